"""The outbox as it was written: one CloudEvent a line, for who rebuilds what it was told. Never writes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from psycopg import Connection

from incentive_fleet.ledger.connection import mapped_errors

PAGE: Final = 2_000
READ: Final = "SELECT outbox_id, body FROM outbox WHERE outbox_id > %s AND outbox_id <= %s ORDER BY outbox_id LIMIT %s"


def outcomes(connection: Connection[Any]) -> Iterator[str]:
    """Every outcome and notice of the moment of the call, as published, in the order in which they were written.

    Raises DatabaseUnavailable or DatabaseContention; a retry begins anew.
    """
    with mapped_errors(blameless=True):
        newest = connection.execute("SELECT coalesce(max(outbox_id), 0) FROM outbox").fetchone()
        after, last = 0, newest[0] if newest else 0
        while rows := connection.execute(READ, (after, last, PAGE)).fetchall():
            yield from (body for _, body in rows)
            after = rows[-1][0]
