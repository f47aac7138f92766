"""How many dead letters are open, by cause, for whoever watches them. It never writes, and reads no body."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from psycopg import Connection

from incentive_fleet.ledger.connection import mapped_errors

# An unexpected error says little by its reason; its class says more, and there are not many.
OPEN: Final = """
    SELECT CASE WHEN error_class IS NULL THEN reason ELSE reason || ' ' || regexp_replace(error_class, '^.*[.]', '') END,
           count(*), extract(epoch FROM now() - min(first_seen))::float8, count(*) FILTER (WHERE last_seen > %s)
    FROM open_dead_letters GROUP BY 1 ORDER BY 2 DESC, 1
"""


@dataclass(frozen=True, slots=True)
class OpenLetters:
    """Letters of one cause that nobody has dealt with."""

    cause: str  # the reason code; of an unexpected error its class too
    letters: int
    oldest_s: float
    new: int  # of them, that came or came again after the moment that was asked for


def read_open(connection: Connection[Any], since: datetime | None = None) -> list[OpenLetters]:
    """All causes, the largest first. Raises TransientError and StatementTimedOut."""
    with mapped_errors(blameless=True):
        return [OpenLetters(*row) for row in connection.execute(OPEN, (since,)).fetchall()]
