"""The transport contract: what the batch core asks of a broker, and what a broker's adapter promises in return.

An adapter turns a broker's messages into `Delivery` values and settles them with an `Outcome` each. It never decodes a
body, never decides an outcome and never creates a queue (brokers/topology.py does).

Promises of every adapter, checked by tests/contract for memory, SQS and RabbitMQ alike:
- `receive` returns as soon as anything is there; it never waits for company. It returns at most `max_deliveries`, an
  empty list after `wait_s` seconds without any. A message is held for the caller (visibility extended, heartbeats
  answered, also while the caller is busy) until it is settled, until `close`, or until the broker takes it away.
- `settle` carries out each outcome. Settling what is no longer held (visibility ran out, channel gone) is skipped and
  counted, never an error: the message comes again and duplicates are free. It is safe to settle in any order and in
  several calls; a delivery is settled once. `DeadLetter` and (where the adapter republishes) `Retry` are confirmed by
  the broker before the original is acknowledged, so a crash in between repeats and never loses.
- Both raise `BrokerUnavailable` when the broker is away; the next call reconnects by itself. No other error leaves. A
  queue that is missing or a permission that lacks is the same: it ends when an operator acts, and waiting loses nothing.
- `settle` calls `on_taken` for each dead letter and retry that the broker has taken for certain, and for no other.
- When `settle` raises, whatever it could carry out is carried out and nothing that it was given is held any more: the rest
  comes again by the broker's own doing. There is nothing to settle a second time.
- `close` gives back at once whatever is held and unsettled, and ends threads. Calling it twice is harmless.
- One thread owns a transport: `receive`, `settle` and `close` are not to be called from several threads at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol


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
    transport: str  # "sqs", "rabbitmq" or "memory"
    message_id: str  # the broker's or publisher's id of the message; "" when it has none
    receive_count: int  # how often the broker says it was delivered, this time included; 1 when it does not count
    receipt: object  # the adapter's own handle; nobody else looks inside
    headers: Mapping[str, str] = field(default_factory=dict)
    failure: Failure | None = None  # unexpected errors so far, where the transport itself carries them (RabbitMQ)


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


Outcome = Ack | Retry | Release | DeadLetter


@dataclass(frozen=True, slots=True)
class Guarantees:
    """What a broker gives beyond the contract, as data for the core and the contract suite."""

    ordered: bool  # deliveries come in publishing order while nothing fails
    carries_failures: bool  # Retry.failure comes back in Delivery.failure; else attempts are counted in Postgres
    counts_deliveries: bool  # Delivery.receive_count is more than a constant
    release_is_free: bool  # Release does not count towards the broker's delivery limit


OnTaken = Callable[[Delivery, Outcome], None]


def nobody_asks(delivery: Delivery, outcome: Outcome) -> None:
    """Where nobody wants to know what was taken."""


class Transport(Protocol):
    """See the module's docstring for the promises."""

    guarantees: Guarantees

    def receive(self, max_deliveries: int, wait_s: float) -> list[Delivery]: ...

    def settle(self, outcomes: Sequence[tuple[Delivery, Outcome]], on_taken: OnTaken = nobody_asks) -> None: ...

    def idle(self) -> bool:
        """True when the queues consumed hold nothing ready, delayed or in flight, as far as the broker tells."""
        ...

    def close(self) -> None: ...
