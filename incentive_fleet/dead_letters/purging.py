"""Deletes closed letters whose time is over, with what their edits kept. Their trail stays, and holds no body.

Letters that are open or being replayed are never deleted: the database refuses it, whoever asks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from psycopg import Connection
from psycopg.rows import class_row

from incentive_fleet.dead_letters.audit import Attribution, NewEntry, add_entries, state_of
from incentive_fleet.dead_letters.letter import SUMMARY, Letter
from incentive_fleet.ledger.connection import mapped_errors
from incentive_fleet.stopping import Stop

PORTION: Final = 500  # letters of one transaction

# Nobody saw another copy since, and nobody did anything to it: so long it has been closed.
CLOSED: Final = """
    status IN ('replayed', 'discarded') AND last_seen <= %(before)s
    AND NOT EXISTS (SELECT FROM dead_letter_audit a WHERE a.dead_letter_id = dead_letters.id AND a.acted_at > %(before)s)
"""
COUNT = f"SELECT count(*) FROM dead_letters WHERE {CLOSED}"
NEXT = f"SELECT id FROM dead_letters WHERE {CLOSED} AND id > %(after)s ORDER BY id LIMIT %(limit)s"
FORGET = """
    UPDATE dead_letter_run_letters SET before = NULL, after = NULL
    WHERE dead_letter_id = ANY(%s) AND (before IS NOT NULL OR after IS NOT NULL)
"""
DELETE = f"""
    DELETE FROM dead_letters WHERE id = ANY(%s) AND status IN ('replayed', 'discarded') RETURNING {SUMMARY}
"""


def count_closed(connection: Connection[Any], before: datetime) -> int:
    """How many letters were closed then or earlier, and left alone since. Raises TransientError."""
    with mapped_errors(blameless=True):
        row = connection.execute(COUNT, {"before": before}).fetchone()
    assert row is not None
    return int(row[0])


def purge(
    connection: Connection[Any],
    before: datetime,
    by: Attribution,
    *,
    on_progress: Callable[[int], None] = lambda done: None,
    stop: Stop | None = None,
) -> int:
    """Delete letters that were closed at `before` or earlier; how many. Portions are committed one by one.

    Raises TransientError; the same call again goes on with the rest.
    """
    purged = last = 0
    while stop is None or not stop.is_set():
        with mapped_errors(blameless=True):
            values = {"before": before, "after": last, "limit": PORTION}
            ids = [int(row[0]) for row in connection.execute(NEXT, values).fetchall()]
        if not ids:
            break
        purged += _purge_portion(connection, ids, by)
        last = ids[-1]
        on_progress(purged)
    return purged


def _purge_portion(connection: Connection[Any], ids: list[int], by: Attribution) -> int:
    with mapped_errors(blameless=True), connection.transaction():
        with connection.cursor(row_factory=class_row(Letter)) as cursor:
            letters = cursor.execute(DELETE, (ids,)).fetchall()
        connection.execute(FORGET, ([letter.id for letter in letters],))
        add_entries(connection, by, None, [_purged(letter) for letter in letters])
    return len(letters)


def _purged(letter: Letter) -> NewEntry:
    what = {"reason": letter.reason, "source_queue": letter.source_queue}
    return NewEntry(letter.id, "purged", {**state_of(letter), **what}, state_of(replace(letter, status="purged")))
