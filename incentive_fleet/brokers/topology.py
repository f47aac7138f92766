"""What the brokers' topologies have in common: which queues there are, and how a difference is told. No names, no I/O.

Each adapter's plan.py is the one place that knows its names and arguments, as plain data from the settings; its topology.py
carries the plan out. docs/topology.md gives each argument its reason.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

# The event's type and what its queues are called. An event of unknown type, or of none, goes to the first.
SOURCES: Final = (
    ("order-placed.v1", "order-placed"),
    ("order-finalized.v1", "order-finalized"),
    ("order-cancelled.v1", "order-cancelled"),
    ("order-refunded.v1", "order-refunded"),
    ("delivery-completed.v1", "delivery-completed"),
    ("credit-grant-requested.v1", "credit-grant-requested"),
)
CATCH_ALL: Final = "order-placed.v1"
# Questions have a queue and consumers of their own, so that no backlog of facts delays an answer (rules 14).
QUOTES: Final = ("incentives-quote-requested.v1", "quote-requested")
QUEUES: Final = (*SOURCES, QUOTES)

BACKSTOP_DELIVERIES: Final = 1_000  # also SQS's own maximum for maxReceiveCount; killed consumers count against it
RETENTION_S: Final = 1_209_600  # 14 days, the longest that SQS keeps a message


@dataclass(frozen=True, slots=True)
class QueueNames:
    """One event type's queues on one broker."""

    type: str
    source: str
    dead_letters: str
    retries: tuple[
        tuple[float, str], ...
    ] = ()  # (delay in seconds, queue), shortest first; where the broker cannot delay


def facts_of(queues: Iterable[QueueNames]) -> tuple[QueueNames, ...]:
    """Those of facts, which the fleet consumes."""
    return tuple(queue for queue in queues if queue.type != QUOTES[0])


def quotes_of(queues: Iterable[QueueNames]) -> tuple[QueueNames, ...]:
    """That of quote requests."""
    return tuple(queue for queue in queues if queue.type == QUOTES[0])


@dataclass(frozen=True, slots=True)
class QueueDepth:
    """How many messages a queue holds, as far as the broker tells; None where it does not."""

    queue: str
    role: Literal["source", "dead-letter", "retry"]
    ready: int
    in_flight: int | None  # with a consumer that has not settled them
    delayed: int | None  # hidden until their time has come
    oldest_s: float | None = None  # age of its oldest message


@dataclass(frozen=True, slots=True)
class Change:
    """What `apply` did to one thing, or could not do."""

    broker: str  # its name in the registry
    name: str
    action: Literal["created", "updated", "refused"]
    detail: str = ""  # for "refused", what differs; nothing is ever deleted to make it fit


@dataclass(frozen=True, slots=True)
class Drift:
    """One thing that is not as it should be."""

    broker: str  # its name in the registry
    name: str
    attribute: str  # "exists" when the whole thing is missing
    actual: str
    wanted: str


@dataclass(frozen=True, slots=True)
class DriftReport:
    """How a broker differs from the topology."""

    drift: tuple[Drift, ...]
    unseen: tuple[str, ...]  # sentences for people: what could not be looked at, and which setting would help
