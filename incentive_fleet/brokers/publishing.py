"""What a publisher promises, and the values that cross its border. Nothing here talks to a broker.

Promises of every publisher, tested against the real brokers:
- `publish` returns when the broker has confirmed or refused each message; what is not among the failures is confirmed.
- `BrokerUnavailable` means that nobody knows what arrived: publish the same messages again, with the same ids.
  Consumers drop repeats, so that is free. The next call reconnects by itself.
- `SettingsError` means that the topic or exchange does not exist or does not let us in: people must act.
- One thread owns a publisher. What is in flight at a time is bounded.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from incentive_fleet.errors import Malformed
from incentive_fleet.events.document import refuse_many

CONTENT_TYPE = "application/cloudevents+json"


@dataclass(frozen=True, slots=True)
class Message:
    """A CloudEvent in structured JSON, with the two attributes that brokers route and correlate by."""

    body: bytes
    type: str | None  # SNS message attribute, RabbitMQ routing key; None sends neither
    id: str | None  # RabbitMQ message id; None sends none


@dataclass(frozen=True, slots=True)
class Failure:
    """One message that the broker refused, for good as far as anyone can tell without changing something."""

    index: int  # into the sequence given to `publish`
    reason: str  # a stable code: unroutable, nacked, too-large, not-text, refused, unavailable
    detail: str  # a sentence for people


class Publisher(Protocol):
    """See the module's docstring for the promises."""

    def check(self) -> None:
        """Raise SettingsError when the destination does not exist, BrokerUnavailable when the broker is away."""
        ...

    def publish(self, messages: Sequence[Message]) -> list[Failure]: ...

    def close(self) -> None:
        """Let go of connections and threads; calling it twice is harmless."""
        ...


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
    """A text that fits AMQP's short string (255 bytes) and SNS' attributes, else None."""
    if not isinstance(value, str) or not value or not value.isprintable():
        return None
    return value if len(value.encode()) <= 255 else None
