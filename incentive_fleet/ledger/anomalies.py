"""Anomalies: what is odd about an order and wants a person's look (rules 6.6). Resolving one notes who looked, nothing more.

It never moves money: an anomaly follows from the facts, and so do the balances.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from psycopg import Connection

from incentive_fleet.errors import Refused
from incentive_fleet.events.times import format_time
from incentive_fleet.ledger.connection import mapped_errors

ROWS_MAX = 10_000  # of one listing
NOTE_LENGTH_MAX = 2_000  # code points

# What `anomaly_record` takes, of a row of `anomalies`.
COLUMNS = """
    anomalies.order_id, anomalies.reason, anomalies.subject, anomalies.noticed_at, anomalies.resolved_at,
    anomalies.resolved_by, anomalies.resolution,
    ARRAY(
        SELECT json_build_array(kept.noticed_at, kept.resolved_at, kept.resolved_by, kept.resolution)
        FROM anomaly_resolutions AS kept
        WHERE kept.order_id = anomalies.order_id AND kept.reason = anomalies.reason AND kept.subject = anomalies.subject
          AND kept.noticed_at < anomalies.noticed_at
        ORDER BY kept.resolved_at
    )
"""
READ = f"""
    SELECT {COLUMNS} FROM anomalies
    WHERE (resolved_at IS NULL OR %(resolved)s) AND (%(seen)s::timestamptz IS NULL
        OR (noticed_at, order_id, reason, subject) > (%(seen)s, %(order)s, %(reason)s, %(subject)s))
    ORDER BY noticed_at, order_id, reason, subject LIMIT %(limit)s
"""
RESOLVE = f"""
    UPDATE anomalies SET resolved_at = %s, resolved_by = %s, resolution = %s
    WHERE order_id = %s AND reason = %s AND subject = %s AND resolved_at IS NULL
    RETURNING {COLUMNS}
"""
READ_ONE = f"""
    SELECT {COLUMNS} FROM anomalies
    WHERE order_id = %s AND reason = %s AND subject = %s
"""


@dataclass(frozen=True, slots=True)
class Resolution:
    """What somebody said of an anomaly before it was exceeded further. Times are RFC 3339 in UTC."""

    noticed_at: str
    resolved_at: str
    resolved_by: str
    resolution: str


class AnomalyKey(NamedTuple):
    """Which anomaly is meant: an order has at most one of each reason and subject."""

    order_id: str
    reason: str
    subject: str


@dataclass(frozen=True, slots=True)
class AnomalyRecord:
    """One oddity of an order; `resolved_at`, `resolved_by` and `resolution` are None while it is open.

    Times are RFC 3339 in UTC. One that is open again was noticed when it was exceeded further.
    """

    order_id: str
    reason: str  # an AnomalyReason
    subject: str  # the line, or the fact
    noticed_at: str
    resolved_at: str | None
    resolved_by: str | None
    resolution: str | None
    earlier: list[Resolution]


def list_anomalies(
    connection: Connection[Any],
    *,
    limit: int = 100,
    include_resolved: bool = False,
    after: tuple[datetime, AnomalyKey] | None = None,
) -> list[AnomalyRecord]:
    """The earliest noticed first, open ones only unless `include_resolved`, `limit` at the most, those behind `after`.

    Raises ValueError for a limit outside 1 to 10,000, DatabaseUnavailable or DatabaseContention; a retry helps with
    the latter two.
    """
    if not 1 <= limit <= ROWS_MAX:
        raise ValueError(f"limit is {limit}: must be 1 to {ROWS_MAX}")
    seen, key = after or (None, AnomalyKey("", "", ""))
    values = {"resolved": include_resolved, "seen": seen, "limit": limit} | {
        "order": key.order_id,
        "reason": key.reason,
        "subject": key.subject,
    }
    with mapped_errors(blameless=True):
        rows = connection.execute(READ, values).fetchall()
    return [anomaly_record(row) for row in rows]


def resolve_anomaly(
    connection: Connection[Any], anomaly: AnomalyKey, who: str, note: str, now: datetime
) -> AnomalyRecord:
    """Note that `who` looked at an open anomaly and what came of it; of two at once, one is refused.

    Raises Refused (unknown-anomaly, already-resolved, note-out-of-bounds, who-out-of-bounds), DatabaseUnavailable or
    DatabaseContention; a retry helps with the latter two.
    """
    for name, text in (("who", who), ("note", note)):
        if not 1 <= len(text.strip()) <= NOTE_LENGTH_MAX:
            raise Refused(
                f"{name}-out-of-bounds", f"{name} is {text[:50]!r}: 1 to {NOTE_LENGTH_MAX} characters are needed"
            )
    with mapped_errors(blameless=True):
        row = connection.execute(RESOLVE, (now, who.strip(), note.strip(), *anomaly)).fetchone()
        if row is not None:
            return anomaly_record(row)
        before = connection.execute(READ_ONE, anomaly).fetchone()
    if before is None:
        order_id, reason, subject = anomaly
        raise Refused("unknown-anomaly", f"order {order_id!r} has no anomaly {reason!r} about {subject!r}")
    known = anomaly_record(before)
    raise Refused("already-resolved", f"{known.resolved_by} resolved it at {known.resolved_at}: {known.resolution}")


def anomaly_record(row: tuple[Any, ...]) -> AnomalyRecord:
    """The record of a row with the `COLUMNS`."""
    order_id, reason, subject, noticed_at, resolved_at, resolved_by, resolution, earlier = row
    return AnomalyRecord(
        order_id,
        reason,
        subject,
        format_time(noticed_at),
        format_time(resolved_at) if resolved_at else None,
        resolved_by,
        resolution,
        [
            Resolution(_utc(noticed), _utc(resolved), who, said)
            for noticed, resolved, who, said in earlier  # times as Postgres writes them into JSON
        ],
    )


def _utc(text: str) -> str:
    return format_time(datetime.fromisoformat(text))
