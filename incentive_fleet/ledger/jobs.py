"""When the jobs that a schedule runs ran last, and what came of it. It runs none of them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

from psycopg import Connection
from psycopg.types.json import Jsonb

from incentive_fleet.ledger.connection import mapped_errors

Job = Literal["expire", "verify", "verify-full"]

RECORD: Final = """
    INSERT INTO job_runs AS last (job, runs, began_at, seconds, well, well_at, figures)
    VALUES (%(job)s, 1, %(began_at)s, %(seconds)s, %(well)s, CASE WHEN %(well)s THEN %(began_at)s::timestamptz END, %(figures)s)
    ON CONFLICT (job) DO UPDATE SET runs = last.runs + 1, began_at = excluded.began_at, seconds = excluded.seconds,
        well = excluded.well, well_at = coalesce(excluded.well_at, last.well_at), figures = excluded.figures
"""
READ: Final = """
    SELECT job, runs, began_at, seconds, well, well_at, figures, extract(epoch FROM now() - began_at)::float8,
           extract(epoch FROM now() - well_at)::float8
    FROM job_runs ORDER BY job
"""


@dataclass(frozen=True, slots=True)
class JobRun:
    """The last run of a job; ages in seconds, by the database's clock."""

    job: Job
    runs: int
    began_at: datetime
    seconds: float
    well: bool  # nothing was refused, or found
    well_at: datetime | None  # when the last run that went well began
    figures: dict[str, Any]
    age_s: float
    well_age_s: float | None


def record_run(
    connection: Connection[Any], job: Job, began_at: datetime, seconds: float, *, well: bool, figures: dict[str, Any]
) -> None:
    """Write down a run that has ended. Raises DatabaseUnavailable or DatabaseUnfit."""
    values = {"job": job, "began_at": began_at, "seconds": seconds, "well": well, "figures": Jsonb(figures)}
    with mapped_errors(blameless=True):
        connection.execute(RECORD, values)


def read_runs(connection: Connection[Any]) -> dict[Job, JobRun]:
    """The last run of each job that ever ran. Raises DatabaseUnavailable or DatabaseUnfit; a retry helps with the first."""
    with mapped_errors(blameless=True):
        return {row[0]: JobRun(*row) for row in connection.execute(READ).fetchall()}
