"""Publishes for every contestant alike: persistent messages, confirmed by the broker, with a window of confirms.

For a backlog as fast as it goes; for latency on a schedule that waits for nobody (open loop).
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

import amqp

from incentive_fleet import names
from incentive_fleet.settings import Settings

WINDOW = 500
CONFIRM_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Wire:
    """A message as it goes to the broker. `id` is the event's, by which its times are found again."""

    id: str
    exchange: str
    routing_key: str
    body: bytes
    headers: Mapping[str, Any] = field(default_factory=dict)
    content_type: str = "application/json"
    correlation_id: str | None = None


def for_fleet(settings: Settings, events: Iterable[tuple[str, bytes]]) -> list[Wire]:
    """Plain CloudEvents to the events exchange, routed by their type."""
    exchange = names.events_exchange(settings.prefix)
    return [
        Wire(_id(body), exchange, type_, body, content_type="application/cloudevents+json") for type_, body in events
    ]


def for_faststream(queue: str, events: Iterable[tuple[str, bytes]]) -> list[Wire]:
    return [Wire(_id(body), "", queue, body) for _, body in events]


def for_dramatiq(queue: str, events: Iterable[tuple[str, bytes]]) -> list[Wire]:
    """As dramatiq's JSONEncoder writes a message of the actor `apply`."""
    return [Wire(id, "", queue, _dramatiq(queue, id, body)) for id, body in ((_id(body), body) for _, body in events)]


def _dramatiq(queue: str, id: str, body: bytes) -> bytes:
    message = {
        "queue_name": queue,
        "actor_name": "apply",
        "args": [body.decode()],
        "kwargs": {},
        "options": {},
        "message_id": id,
        "message_timestamp": time.time_ns() // 1_000_000,
    }
    return json.dumps(message, separators=(",", ":")).encode()


def for_celery(queue: str, events: Iterable[tuple[str, bytes]]) -> list[Wire]:
    """As Celery's message protocol 2 has it, for the task `apply`."""
    wires = []
    for _, body in events:
        id = _id(body)
        headers = {
            "lang": "py",
            "task": "apply",
            "id": id,
            "root_id": id,
            "parent_id": None,
            "group": None,
            "retries": 0,
            "eta": None,
            "expires": None,
            "timelimit": [None, None],
            "ignore_result": True,
            "argsrepr": "",
            "kwargsrepr": "",
        }
        arguments = [[body.decode()], {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}]
        wires.append(Wire(id, "", queue, json.dumps(arguments).encode(), headers, correlation_id=id))
    return wires


def _id(body: bytes) -> str:
    return str(json.loads(body)["id"])


class Publisher:
    """One connection, one thread. Every message is confirmed before `close` or `flush` returns."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._connection = amqp.Connection(
            host=f"{parts.hostname}:{parts.port}",
            userid=parts.username,
            password=parts.password,
            virtual_host=unquote(parts.path[1:]) or "/",
        )
        self._connection.connect()
        self.channel = self._connection.channel()
        self.channel.confirm_select()
        self.channel.events["basic_ack"].add(self._on_ack)
        self.channel.events["basic_nack"].add(self._on_nack)
        self._sent = 0
        self._unconfirmed: dict[int, None] = {}

    def _on_ack(self, tag: int, multiple: bool) -> None:
        # Several queues confirm in an order of their own; tags are kept in the order of publishing.
        for one in [one for one in self._unconfirmed if one <= tag] if multiple else [tag]:
            del self._unconfirmed[one]

    def _on_nack(self, tag: int, multiple: bool) -> None:
        raise AssertionError(f"RabbitMQ did not take message {tag}")

    def declare_queue(self, queue: str, arguments: Mapping[str, Any]) -> None:
        self.channel.queue_declare(queue, durable=True, auto_delete=False, arguments=dict(arguments))

    def ready(self, queue: str) -> int:
        return int(self.channel.queue_declare(queue, passive=True).message_count)

    def publish(self, wires: Sequence[Wire]) -> None:
        """As fast as the confirms come; returns when all are confirmed."""
        for wire in wires:
            self._send(wire)
            while len(self._unconfirmed) >= WINDOW:
                self._connection.drain_events(timeout=CONFIRM_TIMEOUT_S)
        self.flush()

    def publish_on_schedule(self, wires: Sequence[Wire], per_second: float) -> dict[str, int]:
        """One every 1/per_second seconds whatever happens; returns when each was due, in nanoseconds since the epoch."""
        began = time.time_ns() + 50_000_000
        due_at = {wire.id: began + round(number * 1e9 / per_second) for number, wire in enumerate(wires)}
        for wire in wires:
            while (left_s := (due_at[wire.id] - time.time_ns()) / 1e9) > 0:
                if self._unconfirmed and left_s > 0.001:
                    with contextlib.suppress(TimeoutError):
                        self._connection.drain_events(timeout=left_s)
                else:
                    time.sleep(left_s)
            self._send(wire)
        self.flush()
        return due_at

    def flush(self) -> None:
        while self._unconfirmed:
            self._connection.drain_events(timeout=CONFIRM_TIMEOUT_S)

    def close(self) -> None:
        self._connection.close()

    def _send(self, wire: Wire) -> None:
        self._sent += 1
        self._unconfirmed[self._sent] = None
        properties: dict[str, Any] = {"content_type": wire.content_type, "content_encoding": "utf-8"}
        if wire.correlation_id:
            properties["correlation_id"] = wire.correlation_id
        message = amqp.Message(
            wire.body, delivery_mode=2, message_id=wire.id, application_headers=dict(wire.headers), **properties
        )
        self.channel.basic_publish(message, wire.exchange, wire.routing_key)


@contextlib.contextmanager
def open_publisher(url: str) -> Iterator[Publisher]:
    publisher = Publisher(url)
    try:
        yield publisher
    finally:
        publisher.close()


Encode = Callable[[str, Iterable[tuple[str, bytes]]], list[Wire]]
