"""What a filter can name: reason codes, queues and types of this release, and those of the letters that are there.

A filter that names nothing known is a slip of the pen, not an empty list. It never writes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, Final

from psycopg import Connection

from incentive_fleet.brokers.messages import BROKER_REDRIVE, DELIVERY_LIMIT
from incentive_fleet.brokers.registry import queue_names
from incentive_fleet.brokers.topology import QUEUES
from incentive_fleet.consumers.answering import MALFORMED, NO_ADDRESS, NOT_ALLOWED
from incentive_fleet.consumers.core import GIVEN_UP_FOR
from incentive_fleet.dead_letters.arrivals import UNEXPLAINED
from incentive_fleet.dead_letters.store import Filters
from incentive_fleet.ledger.connection import mapped_errors
from incentive_fleet.settings import Settings

REASONS: Final = frozenset(
    {*GIVEN_UP_FOR, MALFORMED, NO_ADDRESS, NOT_ALLOWED, BROKER_REDRIVE, DELIVERY_LIMIT, UNEXPLAINED}
)
TYPES: Final = frozenset(type_ for type_, _ in QUEUES)
NAMED_MAX: Final = 100  # of what letters hold: a sender can make up as many as it likes

READ: Final = {
    "reason": "SELECT DISTINCT reason FROM dead_letters ORDER BY 1",
    "type": "SELECT DISTINCT event_type FROM dead_letters WHERE event_type IS NOT NULL ORDER BY 1",
    "group": "SELECT group_no FROM dead_letter_groups ORDER BY 1 DESC",
    "run": "SELECT run_id FROM dead_letter_runs ORDER BY 1 DESC",
    "queue": "SELECT source_queue FROM dead_letters UNION SELECT dead_letter_queue FROM dead_letters ORDER BY 1",
}


@dataclass(frozen=True, slots=True)
class Unknown:
    """A filter that can find nothing: which, what it was given, and some of what it might have meant, sorted."""

    name: str  # "reason", "type", "queue", "group" or "run"
    value: str
    known: tuple[str, ...]


def unknown_filters(connection: Connection[Any], wanted: Filters, settings: Settings) -> Iterator[Unknown]:
    """The filters whose value is neither this release's nor any letter's. Raises TransientError."""
    ours: dict[str, Collection[str]] = {
        "reason": REASONS,
        "type": TYPES,
        "queue": queue_names(settings),
    }
    given = {"reason": wanted.reason, "type": wanted.type, "queue": wanted.queue}
    numbers = {"group": wanted.group, "run": wanted.run}
    for name, value in (given | {name: None if n is None else str(n) for name, n in numbers.items()}).items():
        if value is None or value in ours.get(name, ()):
            continue
        with mapped_errors():
            met = [str(row[0]) for row in connection.execute(READ[name].encode()).fetchall()]
        if value not in met:
            known = {*map(str, ours.get(name, ())), *met[:NAMED_MAX]}
            yield Unknown(name, value, tuple(sorted(known, key=int if name in numbers else str)))
