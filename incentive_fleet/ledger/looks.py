"""When somebody looked at the status last, so that the next look can say what is new. Who looked is a name, no right."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from psycopg import Connection

from incentive_fleet.ledger.connection import mapped_errors

KEPT_DAYS: Final = 90  # this bounds the table
NAME_MAX: Final = 200  # characters of a looker
KEEP: Final = """
    INSERT INTO status_looks (looker, looked_at) VALUES (%s, %s)
    ON CONFLICT (looker) DO UPDATE SET looked_at = greatest(status_looks.looked_at, excluded.looked_at)
"""
FORGET: Final = "DELETE FROM status_looks WHERE looked_at < now() - make_interval(days => %s)"


def last_look(connection: Connection[Any], looker: str) -> datetime | None:
    """When this one looked last; None before the first time. Raises TransientError and StatementTimedOut."""
    with mapped_errors(blameless=True):
        row = connection.execute(
            "SELECT looked_at FROM status_looks WHERE looker = %s", (looker[:NAME_MAX],)
        ).fetchone()
    return row[0] if row else None


def keep_look(connection: Connection[Any], looker: str, moment: datetime) -> None:
    """Note the look; it never goes back. Idempotent. Raises TransientError and StatementTimedOut."""
    with mapped_errors(blameless=True), connection.transaction():
        connection.execute(KEEP, (looker[:NAME_MAX], moment))
        connection.execute(FORGET, (KEPT_DAYS,))
