"""The processes that serve, on whichever host, by what they write of themselves into the ledger. It starts and ends none."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from psycopg import Connection
from psycopg.types.json import Jsonb

from incentive_fleet.ledger.connection import mapped_errors

BEAT_S: Final = 5.0  # between two words of a process
SILENT_S: Final = 20.0  # after which it is told as silent: it hangs, was killed, or does not reach the database
FORGOTTEN_S: Final = 3_600  # after which its row goes: this bounds the table

BEAT: Final = """
    INSERT INTO serving_processes (process_id, host, pid, activity, release, figures)
    VALUES (%(process_id)s, %(host)s, %(pid)s, %(activity)s, %(release)s, %(figures)s)
    ON CONFLICT (process_id) DO UPDATE SET seen_at = now(), figures = excluded.figures
"""
FORGET: Final = "DELETE FROM serving_processes WHERE seen_at < now() - make_interval(secs => %s)"
READ: Final = """
    SELECT process_id, host, pid, activity, release, began_at, extract(epoch FROM now() - seen_at)::float8, figures
    FROM serving_processes WHERE seen_at >= now() - make_interval(secs => %s) ORDER BY activity, host, pid, began_at
"""


@dataclass(frozen=True, slots=True)
class Serving:
    """Which process it is."""

    process_id: UUID
    host: str
    pid: int
    activity: str
    release: str


@dataclass(frozen=True, slots=True)
class SeenProcess:
    """What a process said of itself last, and how long ago, by the database's clock."""

    process: Serving
    began_at: datetime
    seen_s: float
    figures: dict[str, Any]

    @property
    def silent(self) -> bool:
        """Whether it should have said more by now."""
        return self.seen_s > SILENT_S


def beat(connection: Connection[Any], process: Serving, figures: dict[str, Any]) -> None:
    """Say that the process runs, and what it does; forget those that have not for an hour. Raises TransientError."""
    values = {
        **{name: getattr(process, name) for name in ("process_id", "host", "pid", "activity", "release")},
        "figures": Jsonb(figures),
    }
    with mapped_errors(blameless=True), connection.transaction():
        connection.execute(BEAT, values)
        connection.execute(FORGET, (FORGOTTEN_S,))


def gone(connection: Connection[Any], process: Serving) -> None:
    """Say that it has ended. Idempotent. Raises TransientError."""
    with mapped_errors(blameless=True):
        connection.execute("DELETE FROM serving_processes WHERE process_id = %s", (process.process_id,))


def read_processes(connection: Connection[Any]) -> list[SeenProcess]:
    """All that said something in the last hour, those that serve and those that fell silent. Raises TransientError."""
    with mapped_errors(blameless=True):
        rows = connection.execute(READ, (FORGOTTEN_S,)).fetchall()
    return [SeenProcess(Serving(*row[:5]), *row[5:]) for row in rows]
