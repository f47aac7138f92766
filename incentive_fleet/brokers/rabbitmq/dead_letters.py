"""The RabbitMQ side of dead letters: consumes the dead-letter queues, acknowledges what is kept, publishes to source queues.

It never decides what a letter means and never declares a queue.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Mapping
from functools import partial
from hashlib import sha256
from typing import Final, cast

from incentive_fleet.brokers.budget import Budget
from incentive_fleet.brokers.message_headers import REPLAY
from incentive_fleet.brokers.messages import DELIVERY_LIMIT, Arrival, Moved, Outgoing
from incentive_fleet.brokers.rabbitmq import RABBITMQ
from incentive_fleet.brokers.rabbitmq.client import open_link, parameters
from incentive_fleet.brokers.rabbitmq.copies import KEPT, OF_THE_BROKER, senders, with_type, without_ours
from incentive_fleet.brokers.rabbitmq.counting import ready
from incentive_fleet.brokers.rabbitmq.earlier_envelopes import encoded_by
from incentive_fleet.brokers.rabbitmq.link import Incoming, Link
from incentive_fleet.brokers.rabbitmq.notes import delivered_before
from incentive_fleet.brokers.rabbitmq.plan import rabbitmq_queues
from incentive_fleet.brokers.rabbitmq.properties import (
    TEXT_SIZE,
    Parts,
    array,
    cut,
    join,
    short_text,
    shown,
    shown_name,
    shown_property,
    table,
)
from incentive_fleet.brokers.rabbitmq.sending import Copy, send
from incentive_fleet.errors import BrokerUnavailable
from incentive_fleet.settings import Settings
from incentive_fleet.stopping import Stop

log = logging.getLogger(__name__)

PREFETCH: Final = 200
WIRE: Final = "wire"  # member of an envelope: the sender's properties as on the wire, in base64


class RabbitMQDeadLetters:
    """See contract.py. It connects at the first `receive`, and again after its connection was lost."""

    def __init__(self, settings: Settings, stop: Stop | None = None) -> None:
        self._stop = stop or Stop(settings.drain_s)
        self._settings = settings
        self._nodes = parameters(settings)
        self._sources = {group.dead_letters: group.source for group in rabbitmq_queues(settings)}
        self._link: Link | None = None

    def _connected(self) -> Link:
        if self._link is None or not self._link.alive:
            budget = Budget(self._settings.held_bytes_max, self._settings.event_bytes_max)
            self._link = open_link(
                self._nodes, self._stop, queues=tuple(self._sources), prefetch=PREFETCH, budget=budget
            )
        return self._link

    def receive(self, most: int, wait_s: float) -> list[Arrival]:
        """See contract.py."""
        link = self._connected()
        return [self._arrival(link, incoming) for incoming in link.take(most, wait_s)]

    def _arrival(self, link: Link, incoming: Incoming) -> Arrival:
        tag, queue, properties, body, _ = incoming
        parts = cut(properties)
        theirs = _of_sender(parts)
        # Copies have no name of their own on RabbitMQ: what was published with equal properties is told apart by
        # being delivered again.
        name = sha256(join(theirs.properties, dict(sorted(theirs.headers.items())))).hexdigest()
        return Arrival(
            transport=RABBITMQ.source,
            source_queue=self._sources[queue],
            dead_letter_queue=queue,
            body=body,
            headers={shown_name(name): shown(value) for name, value in parts.headers.items()},
            envelope={
                WIRE: base64.b64encode(join(theirs.properties, theirs.headers)).decode(),
                "properties": {name: shown_property(name, value) for name, value in theirs.properties.items()},
            },
            name=name,
            certain=False,
            receive_count=delivered_before(parts.headers) + 1,
            moved_by_broker=_moved(parts.headers, self._sources[queue]),
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

    def let_go(self, arrivals: list[Arrival]) -> None:
        """See contract.py."""
        link = self._link
        if link is not None and link.alive:
            receipts = (cast(tuple[Link, int], arrival.receipt) for arrival in arrivals)
            link.let_go([len(arrival.body) for arrival, (of, _) in zip(arrivals, receipts, strict=True) if of is link])

    def empty(self) -> bool:
        """Nothing ready, and nothing delivered here or on its way; what others hold unacknowledged is not seen."""
        link = self._connected()
        return not link.undelivered and not link.arriving and not any(ready(link, tuple(self._sources)))

    def close(self) -> None:
        """See contract.py."""
        link, self._link = self._link, None
        if link is not None:
            link.close()


class RabbitMQSender:
    """See contract.py. It connects at the first `send`, and again after its connection was lost."""

    def __init__(self, settings: Settings, stop: Stop | None = None) -> None:
        self._stop = stop or Stop(settings.drain_s)
        self._nodes = parameters(settings)
        self._link: Link | None = None

    def send(self, messages: list[Outgoing]) -> list[str]:
        """By the default exchange, persistent, mandatory and confirmed."""
        sendable = [at for at, message in enumerate(messages) if short_text(message.source_queue) is not None]
        sent = send([_copy(messages[at]) for at in sendable], self._connected)
        if sent.error is not None and not any(sent.taken):
            raise sent.error
        problems = [f"RabbitMQ has no queue {message.source_queue!r}" for message in messages]
        for at, took in zip(sendable, sent.taken, strict=True):
            problems[at] = "" if took else _problem(messages[at], sent.error)
        return problems

    def _connected(self) -> Link:
        if self._link is None or not self._link.alive:
            self._link = open_link(self._nodes, self._stop)
        return self._link

    def close(self) -> None:
        """See contract.py."""
        if self._link is not None:
            self._link.close()
            self._link = None


def _problem(message: Outgoing, error: BrokerUnavailable | None) -> str:
    return str(error) if error is not None else f"RabbitMQ refused it or has no queue {message.source_queue!r}"


def _copy(message: Outgoing) -> Copy:
    mark = {REPLAY: message.mark}
    return Copy("", message.source_queue, message.body, partial(_parts, message), lambda room: mark, mark)


def _parts(message: Outgoing) -> Parts:
    """The sender's properties as the envelope holds them, which starts without any header of ours."""
    kept = message.envelope.get(WIRE)
    encoded = base64.b64decode(kept) if isinstance(kept, str) else encoded_by(message.envelope)
    parts = without_ours(senders(encoded))
    return parts if message.type is None else with_type(parts, message.type)


def _of_sender(parts: Parts) -> Parts:
    """All that came with a copy, but for the broker's word about this life of it."""
    headers = {name: value for name, value in parts.headers.items() if not name.startswith(OF_THE_BROKER)}
    properties = {name: value for name, value in parts.properties.items() if name in KEPT}
    return Parts(properties, headers, parts.unread)


def _moved(headers: Mapping[bytes, bytes], source_queue: str) -> Moved | None:
    word = _word_of_broker(headers, source_queue)
    if not word:
        return None
    reason = DELIVERY_LIMIT if word == "delivery_limit" else f"broker-{word.replace('_', '-')}"
    return Moved(reason, f"RabbitMQ moved it from {source_queue}: {word}")


def _word_of_broker(headers: Mapping[bytes, bytes], source_queue: str) -> str:
    """RabbitMQ's word for why it moved the message from its source queue; the newest entry of x-death stands first."""
    deaths = headers.get(b"x-death", b"")
    for death in (array(deaths[TEXT_SIZE:]) or []) if deaths[:1] == b"A" else []:
        known = table(death[TEXT_SIZE:]) if death[:1] == b"F" else None  # a sender may put anything under that name
        if known and shown(known.get(b"queue", b"V")) == source_queue:
            return shown(known.get(b"reason", b"S\0\0\0\0"))
    return ""
