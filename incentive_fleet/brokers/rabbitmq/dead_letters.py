"""The RabbitMQ side of dead letters: consumes the dead-letter queues, acknowledges what is kept, publishes to source queues.

It never decides what a letter means and never declares a queue.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from datetime import datetime
from hashlib import sha256
from typing import Any, Final, cast

from pika.spec import BasicProperties

from incentive_fleet.brokers.dead_letters import OURS, REPLAY, Arrival, Outgoing
from incentive_fleet.brokers.rabbitmq.client import open_link, parameters
from incentive_fleet.brokers.rabbitmq.confirms import Publication
from incentive_fleet.brokers.rabbitmq.headers import readable, sendable
from incentive_fleet.brokers.rabbitmq.link import Incoming, Link
from incentive_fleet.brokers.rabbitmq.transport import OF_THE_BROKER, PERSISTENT, delivered_before
from incentive_fleet.brokers.topology import rabbitmq_queues
from incentive_fleet.names import TYPE_ATTRIBUTE
from incentive_fleet.settings import Settings
from incentive_fleet.stopping import Stop

PREFETCH: Final = 200  # bodies of up to 16 MiB are held in memory meanwhile
# Not `expiration`, which would drop a replayed message, and not `user_id`, which RabbitMQ checks against the login.
PROPERTIES: Final = (
    "content_type",
    "content_encoding",
    "priority",
    "correlation_id",
    "reply_to",
    "message_id",
    "timestamp",
    "type",
    "app_id",
)


class RabbitmqDeadLetters:
    """See DeadLetterQueues. It connects at the first `receive`, and again after its connection was lost."""

    def __init__(self, settings: Settings, stop: Stop | None = None) -> None:
        self._stop = stop or Stop(settings.drain_s)
        self._nodes = parameters(settings)
        self._sources = {group.dead_letters: group.source for group in rabbitmq_queues(settings)}
        self._link: Link | None = None

    def _connected(self) -> Link:
        if self._link is None or not self._link.alive:
            self._link = open_link(self._nodes, self._stop, queues=tuple(self._sources), prefetch=PREFETCH)
        return self._link

    def receive(self, most: int, wait_s: float) -> list[Arrival]:
        """See DeadLetterQueues."""
        link = self._connected()
        return [self._arrival(link, incoming) for incoming in link.take(most, wait_s)]

    def _arrival(self, link: Link, incoming: Incoming) -> Arrival:
        tag, queue, received, body = incoming
        properties = readable(received)
        raw: Mapping[str, Any] = properties.headers or {}
        theirs = {name: value for name, value in raw.items() if not name.startswith(OF_THE_BROKER)}
        envelope = {
            "headers": {name: _kept(value) for name, value in theirs.items()},
            "properties": {
                name: value
                for name in PROPERTIES
                if (value := getattr(properties, name)) is not None and isinstance(value, str | int)
            },
        }
        # Copies have no name of their own on RabbitMQ: what was published with equal properties is told apart by
        # being delivered again.
        name = sha256(json.dumps(envelope, sort_keys=True).encode()).hexdigest()
        return Arrival(
            transport="rabbitmq",
            source_queue=self._sources[queue],
            dead_letter_queue=queue,
            body=body,
            headers={name: _shown(value) for name, value in raw.items()},
            envelope=envelope,
            name=name,
            certain=False,
            receive_count=delivered_before(raw) + 1,
            moved_by_broker=_moved(raw, self._sources[queue]),
            receipt=(link, tag),
        )

    def remove(self, arrivals: list[Arrival]) -> None:
        """Acknowledge on the link that delivered them; what another link delivered is the broker's again."""
        receipts = [cast(tuple[Link, int], arrival.receipt) for arrival in arrivals]
        link = self._link
        if link is None or not link.alive:
            return
        tags = [tag for of, tag in receipts if of is link]
        link.acknowledge(0, tags, ())

    def empty(self) -> bool:
        """Nothing ready and nothing delivered here; what others hold unacknowledged is not seen."""
        link = self._connected()
        return not link.undelivered and not link.ready(tuple(self._sources))

    def close(self) -> None:
        """See DeadLetterQueues."""
        link, self._link = self._link, None
        if link is not None:
            link.close()


class RabbitmqSender:
    """See Sender. It connects at the first `send`, and again after its connection was lost."""

    def __init__(self, settings: Settings, stop: Stop | None = None) -> None:
        self._stop = stop or Stop(settings.drain_s)
        self._nodes = parameters(settings)
        self._link: Link | None = None

    def send(self, messages: list[Outgoing]) -> list[str]:
        """By the default exchange, persistent, mandatory and confirmed."""
        if self._link is None or not self._link.alive:
            self._link = open_link(self._nodes, self._stop)
        taken = self._link.publish([_publication(message) for message in messages])
        return [
            "" if took else f"RabbitMQ refused it or has no queue {message.source_queue!r}"
            for took, message in zip(taken, messages, strict=True)
        ]

    def close(self) -> None:
        """See Sender."""
        if self._link is not None:
            self._link.close()
            self._link = None


def _publication(message: Outgoing) -> Publication:
    kept: Mapping[str, Any] = message.envelope.get("headers", {})
    headers: dict[str, Any] = {name: _restored(value) for name, value in kept.items() if not name.startswith(OURS)}
    properties: dict[str, Any] = dict(message.envelope.get("properties", {}))
    if message.type is not None:
        if TYPE_ATTRIBUTE in headers:
            headers[TYPE_ATTRIBUTE] = message.type
        if "type" in properties:
            properties["type"] = message.type
    headers[REPLAY] = message.mark
    return Publication(
        "",
        message.source_queue,
        BasicProperties(headers=sendable(headers), delivery_mode=PERSISTENT, **properties),
        message.body,
    )


def _moved(headers: Mapping[str, Any], source_queue: str) -> str:
    """RabbitMQ's word for why it moved the message from its source queue; the newest entry of x-death stands first."""
    deaths = headers.get("x-death")
    if not isinstance(deaths, list):
        return ""
    known = (death for death in deaths if isinstance(death, dict))  # a sender may put anything under that name
    return next((str(death.get("reason", "")) for death in known if death.get("queue") == source_queue), "")


def _kept(value: object) -> object:
    """A header as JSON; bytes and times in a form that `_restored` knows, whatever else AMQP has as its text."""
    match value:
        case None | bool() | int() | str():
            return value
        case bytes():
            return {"base64": base64.b64encode(value).decode()}
        case datetime():
            return {"time": value.isoformat()}
        case list():
            return [_kept(item) for item in value]
        case dict():
            return {"table": {str(name): _kept(item) for name, item in value.items()}}
        case _:
            return str(value)


def _restored(value: object) -> object:
    match value:
        case {"base64": str(text)}:
            return base64.b64decode(text)
        case {"time": str(text)}:
            return datetime.fromisoformat(text)
        case {"table": dict(table)}:
            return {name: _restored(item) for name, item in table.items()}
        case list():
            return [_restored(item) for item in value]
        case _:
            return value


def _shown(value: object) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)
