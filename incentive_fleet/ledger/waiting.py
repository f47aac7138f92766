"""Facts that wait for their order's placing, or for its final basket. Never writes: what they wait for ends the waiting."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from psycopg import Connection

from incentive_fleet.events.times import format_time
from incentive_fleet.ledger.connection import mapped_errors

ROWS_MAX = 10_000  # of one listing

READ_WAITING = """
    SELECT w.order_id, w.fact, f.source, f.event_id, f.traceparent, f.happened_at, w.since, f.data,
           d.order_id IS NOT NULL, coalesce(o.totals -> 'cancelled', o.totals -> 'fully_refunded') IS NOT NULL
    FROM waiting w JOIN facts f USING (order_id, fact) LEFT JOIN decisions d USING (order_id) LEFT JOIN orders o USING (order_id)
    WHERE w.since <= %(until)s
      AND (%(seen)s::timestamptz IS NULL OR (w.since, w.order_id, w.fact) > (%(seen)s, %(order)s, %(fact)s))
    ORDER BY w.since, w.order_id, w.fact LIMIT %(limit)s
"""


@dataclass(frozen=True, slots=True)
class WaitingFact:
    """A stored fact without effect so far. Times are RFC 3339 in UTC; `age_s` counts from its arrival here."""

    order_id: str
    fact: str  # 'delivery', 'refund:<refund_id>', 'final-basket' or 'cancelling'
    source: str
    event_id: str
    traceparent: str | None
    happened_at: str
    since: str
    age_s: int
    waits_for: str  # 'placing' or 'final basket'
    alarming: bool  # not once the order is cancelled or refunded whole: nothing more of it can move but a make-good
    data: dict[str, Any]


def list_waiting(
    connection: Connection[Any],
    *,
    now: datetime,
    older_than: timedelta = timedelta(0),
    limit: int = 100,
    after: tuple[datetime, str, str] | None = None,
) -> list[WaitingFact]:
    """The longest waiting first, of those that have waited for `older_than` at `now` (aware), `limit` at the most.

    `after` is since when, which order and which fact: those behind it.

    Raises ValueError for a limit outside 1 to 10,000, DatabaseUnavailable or DatabaseContention; a retry helps with
    the latter two.
    """
    if not 1 <= limit <= ROWS_MAX:
        raise ValueError(f"limit is {limit}: must be 1 to {ROWS_MAX}")
    with mapped_errors(blameless=True):
        seen, order_id, fact = after or (None, "", "")
        values = {"until": now - older_than, "seen": seen, "order": order_id, "fact": fact, "limit": limit}
        rows = connection.execute(READ_WAITING, values).fetchall()
    return [
        WaitingFact(
            order_id=order_id,
            fact=fact,
            source=source,
            event_id=event_id,
            traceparent=traceparent,
            happened_at=format_time(happened_at),
            since=format_time(since),
            age_s=int((now - since).total_seconds()),
            waits_for="final basket" if placed else "placing",
            alarming=not (placed and over),
            data=data,
        )
        for order_id, fact, source, event_id, traceparent, happened_at, since, data, placed, over in rows
    ]
