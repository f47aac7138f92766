"""The values that cross between a broker's adapter and the rest: messages out, deliveries in, and what becomes of each.

Nothing here talks to a broker, and nothing here belongs to one. The promises around these values stand in contract.py.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from hashlib import sha256
from typing import Any, Final

from incentive_fleet.errors import Malformed
from incentive_fleet.events.document import refuse_many

CONTENT_TYPE: Final = "application/cloudevents+json"
SHORT_TEXT_BYTES: Final = 255  # AMQP's short string; SNS' attributes take it as well


# To publish.


@dataclass(frozen=True, slots=True)
class Message:
    """A CloudEvent in structured JSON, with the two attributes that brokers route and correlate by."""

    body: bytes
    type: str | None  # SNS message attribute, RabbitMQ routing key; None sends neither
    id: str | None  # RabbitMQ message id; None sends none


@dataclass(frozen=True, slots=True)
class Rejection:
    """One message that the broker refused, for good as far as anyone can tell without changing something."""

    index: int  # into the sequence given to `publish`
    reason: str  # a stable code: unroutable, nacked, too-large, not-text, refused, unavailable
    detail: str  # a sentence for people


def message_of(body: bytes) -> Message:
    """Read type and id as far as the bytes allow; what cannot be read is None, and the bytes are sent as they are."""
    try:
        text = body.decode()
        refuse_many(text)
        event = json.loads(text)
    except (Malformed, ValueError, RecursionError):
        return Message(body, None, None)
    if not isinstance(event, dict):
        return Message(body, None, None)
    return Message(body, _short_text(event.get("type")), _short_text(event.get("id")))


def _short_text(value: object) -> str | None:
    if not isinstance(value, str) or not value or not value.isprintable():
        return None
    return value if len(value.encode()) <= SHORT_TEXT_BYTES else None


# To consume.


@dataclass(frozen=True, slots=True)
class Failure:
    """What is known of the unexpected errors a message has met so far: dead letters carry it as history."""

    attempts: int
    error_class: str
    message: str
    traceback: str
    first_at: datetime
    last_at: datetime
    host: str


@dataclass(slots=True, eq=False)
class Delivery:
    """One message handed to us once. Compared by identity: the same message delivered twice is two deliveries.

    Nobody changes one. It is not declared frozen because that makes it three times as slow to make.
    """

    body: bytes
    queue: str  # the broker's name of the queue it was received from
    transport: str  # the broker's word for where messages come from (registry.py): "sqs", "rabbitmq"
    message_id: str  # the broker's or publisher's id of the message; "" when it has none
    receive_count: int  # how often the broker says it was delivered, this time included; 1 when it does not count
    receipt: object  # the adapter's own handle; nobody else looks inside
    headers: Mapping[str, str] = field(default_factory=dict)
    failure: Failure | None = None  # unexpected errors so far, where the transport itself carries them (RabbitMQ)
    sent_at: float | None = None  # seconds since 1970, where the broker or the publisher says when it was published


@dataclass(frozen=True, slots=True)
class Ack:
    """Done, or a duplicate: remove the message."""


@dataclass(frozen=True, slots=True)
class Retry:
    """An unexpected error: deliver again after `after_s` seconds, carrying `failure` where the transport can."""

    after_s: float
    failure: Failure


@dataclass(frozen=True, slots=True)
class Release:
    """Not started: give it back now, for anybody to take, without counting against it where the broker allows."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Never again by itself: publish to the dead-letter queue with the reason and history, then remove."""

    reason: str  # a stable code: malformed codes, "conflict", "unexpected-error"
    detail: str  # a sentence for people, naming field and value
    failure: Failure | None = None


Disposition = Ack | Retry | Release | DeadLetter  # what becomes of a delivery


# To answer.


@dataclass(frozen=True, slots=True)
class AnswerWanted:
    """What a request says beside its body of the answer that it wants."""

    reply_to: str  # the broker's name of a queue (SQS: its URL); "" where it names none
    arrived_at: float  # seconds since 1970, when it came to this process
    expires_at: float | None  # likewise, after which nobody waits for it; None: it does not say
    fault: Malformed | None = None  # what is the matter with the time that it says


class Answered(StrEnum):
    """What became of an answer. All are final: an answer is never sent twice for want of a taker."""

    SENT = "answered"  # the broker has it
    UNROUTABLE = "reply-unroutable"  # there is no such queue
    REFUSED = "reply-refused"  # the queue is full, or takes nothing of ours
    UNCONFIRMED = "reply-unconfirmed"  # the broker said nothing in time; it may have it all the same


# To empty dead-letter queues, and to send again.


BROKER_REDRIVE: Final = "broker-redrive"  # SQS moved it: received too often
DELIVERY_LIMIT: Final = "delivery-limit"  # RabbitMQ moved it: delivered too often


@dataclass(frozen=True, slots=True)
class Moved:
    """Why a broker moved a message to its dead letters by itself."""

    reason: str  # a stable code, BROKER_REDRIVE, DELIVERY_LIMIT, or "broker-" and the broker's own word
    detail: str  # a sentence for people


@dataclass(frozen=True, slots=True)
class Arrival:
    """One copy of a dead letter, received and still held."""

    transport: str  # as of a Delivery
    source_queue: str
    dead_letter_queue: str
    body: bytes
    headers: Mapping[str, str]
    envelope: Mapping[str, Any]  # JSON: what it takes to send the message again as it was
    name: str  # the broker's name of this copy; equal for every delivery of it
    certain: bool  # equal names are the same copy (SQS); otherwise only when it is also delivered again (RabbitMQ)
    receive_count: int
    moved_by_broker: Moved | None  # None when the broker does not say that it moved it
    receipt: object
    crowded: bool = False  # the body leaves no room beside it for a reason of ours

    @property
    def body_sha256(self) -> bytes:
        return sha256(self.body).digest()


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A dead letter to be sent again: to the queue that it came from, or to another one."""

    source_queue: str
    body: bytes
    envelope: Mapping[str, Any]  # of an Arrival of the same broker; empty for what came from another one
    mark: str  # the value of message_headers.REPLAY
    type: str | None  # the `type` of an edited body, to be put in place of the old one; None leaves it
