"""Reminders (rules 10): credit that expires soon is announced, a notice a customer, currency and UTC day. It moves nothing."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from psycopg import Connection

from incentive_fleet.errors import Refused
from incentive_fleet.incentives.notices import expiring
from incentive_fleet.ledger.connection import mapped_errors
from incentive_fleet.ledger.rows import OUTBOX
from incentive_fleet.ledger.telling import notice_row
from incentive_fleet.ledger.writing import write

DAYS_MAX = 365  # rules 10
PAGE = 2_000  # notices of one transaction

READ_EXPIRING = """
    SELECT customer_id, currency, (expires_at AT TIME ZONE 'UTC')::date::text AS day, sum(remaining)::bigint
    FROM lots WHERE live AND expires_at >= %s AND expires_at < %s AND (customer_id, currency) >= (%s, %s)
    GROUP BY customer_id, currency, day
    HAVING (customer_id, currency, (expires_at AT TIME ZONE 'UTC')::date::text) > (%s, %s, %s)
    ORDER BY customer_id, currency, day LIMIT %s
"""
ANNOUNCE = """
    INSERT INTO reminders (customer_id, currency, day, days)
    SELECT *, %s FROM unnest(%s::text[], %s::text[], %s::date[])
    ON CONFLICT (customer_id, currency, day, days) DO NOTHING RETURNING customer_id, currency, day::text
"""

Key = tuple[str, str, str]  # customer, currency, day


def remind(
    connection: Connection[Any], as_of: datetime, days: int, progress: Callable[[int], None] = lambda notices: None
) -> int:
    """Announce what expires on each of the `days` days after the day of `as_of`; returns how many notices are new.

    Idempotent: a day is announced once for each number of days, with the amount of then. Raises Refused
    (days-out-of-bounds), DatabaseUnavailable or DatabaseContention: what was announced stays so.
    """
    if not 1 <= days <= DAYS_MAX:
        raise Refused("days-out-of-bounds", f"days is {days}: must be 1 to {DAYS_MAX}")
    first = as_of.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
    told, after = 0, ("", "", "")
    with mapped_errors(blameless=True):
        while True:
            with connection.transaction():
                bounds = (first, first + timedelta(days=days), after[0], after[1], *after, PAGE)
                rows = connection.execute(READ_EXPIRING, bounds).fetchall()
                new = _announce(connection, rows, days, as_of)
            if not rows:
                return told
            told, after = told + new, rows[-1][:3]
            progress(told)


def _announce(connection: Connection[Any], rows: list[tuple[Any, ...]], days: int, as_of: datetime) -> int:
    if not rows:
        return 0
    customers, currencies, dates, _ = (list(column) for column in zip(*rows, strict=True))
    fresh: set[Key] = set(connection.execute(ANNOUNCE, (days, customers, currencies, dates)).fetchall())
    notices = [
        expiring(customer_id, currency, day, days, amount, as_of)
        for customer_id, currency, day, amount in rows
        if (customer_id, currency, day) in fresh
    ]
    write(connection, [(OUTBOX, [notice_row(notice) for notice in notices])])
    return len(notices)
