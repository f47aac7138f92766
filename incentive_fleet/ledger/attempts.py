"""Counts unexpected errors of messages that cannot carry the count themselves (SQS), by queue and message id."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from psycopg import Connection
from psycopg.rows import class_row

from incentive_fleet.ledger.connection import mapped_errors

RECORD = """
    INSERT INTO attempts AS a (queue, message_id, attempts, error_class, message, traceback, host, first_at, last_at)
    VALUES (%(queue)s, %(message_id)s, 1, %(error_class)s, %(message)s, %(traceback)s, %(host)s, %(now)s, %(now)s)
    ON CONFLICT (queue, message_id) DO UPDATE SET attempts = a.attempts + 1, error_class = excluded.error_class,
        message = excluded.message, traceback = excluded.traceback, host = excluded.host, last_at = excluded.last_at
    RETURNING attempts, first_at
"""


@dataclass(frozen=True, slots=True)
class Attempt:
    """How often a message failed so far, this time included, and when it did first."""

    attempts: int
    first_at: datetime


@dataclass(frozen=True, slots=True)
class FailedMessage:
    """A message, by queue and id, and the unexpected error that it met this time."""

    queue: str
    message_id: str
    error_class: str
    message: str
    traceback: str
    host: str


def record_attempt(connection: Connection[Any], failed: FailedMessage, now: datetime) -> Attempt:
    """Count one more failure, in a transaction of its own. Raises TransientError; counting again is then right.

    Postgres stores neither NUL nor half a surrogate pair: an error's text that has one shows it as U+FFFD or `?`.
    """
    texts = {"message": _storable(failed.message), "traceback": _storable(failed.traceback)}
    values = asdict(failed) | texts | {"now": now}
    with mapped_errors(blameless=True), connection.cursor(row_factory=class_row(Attempt)) as cursor:
        attempt = cursor.execute(RECORD, values).fetchone()
    assert attempt is not None
    return attempt


def _storable(text: str) -> str:
    return text.replace("\x00", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()


def forget_attempts(connection: Connection[Any], queue_and_ids: Sequence[tuple[str, str]]) -> None:
    """Drop the counts of messages that are done with. Idempotent. Raises TransientError; a retry helps."""
    with mapped_errors(blameless=True):
        connection.execute(
            "DELETE FROM attempts USING unnest(%s::text[], %s::text[]) AS k (queue, message_id)"
            " WHERE attempts.queue = k.queue AND attempts.message_id = k.message_id",
            ([queue for queue, _ in queue_and_ids], [message_id for _, message_id in queue_and_ids]),
        )
