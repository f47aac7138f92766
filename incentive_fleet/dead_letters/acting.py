"""Carries a run through that changes letters in the database alone, a bounded number and size of letters a transaction.

Each portion of letters, its trace and what became of it are one transaction, which begins by looking whether the run may go
on. So a run that is interrupted anywhere is resumed where it stood, and two processes that carry one run do nothing twice.
It sends nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

from psycopg import Connection

from incentive_fleet.brokers.budget import AS_DECODED, portions
from incentive_fleet.dead_letters.audit import NewEntry, add_entries
from incentive_fleet.dead_letters.runs import (
    READY,
    UNWATCHED,
    Done,
    Following,
    RunRecord,
    finish,
    get_run,
    settle,
    stop_run,
)
from incentive_fleet.ledger.connection import mapped_errors, retry_contention

PORTION: Final = 500  # letters changed in one transaction
PAGE: Final = 5_000  # letters looked up at a time
BYTES_MAX: Final = 64 * 1024 * 1024  # of the bodies of one portion, as decoded

NEXT = """
    SELECT l.dead_letter_id, coalesce(d.size, 0)
    FROM dead_letter_run_letters l LEFT JOIN dead_letters d ON d.id = l.dead_letter_id
    WHERE l.run_id = %s AND l.state = 'pending' AND l.dead_letter_id > %s ORDER BY l.dead_letter_id LIMIT %s
"""
MAY_GO_ON = "SELECT status FROM dead_letter_runs WHERE run_id = %s FOR SHARE"
STILL_PENDING = """
    SELECT dead_letter_id FROM dead_letter_run_letters
    WHERE run_id = %s AND dead_letter_id = ANY(%s) AND state = 'pending' ORDER BY dead_letter_id FOR UPDATE
"""

# What an act makes of these letters, in the caller's transaction: the outcome of each, and the entries for the trail.
Act = Callable[[Connection[Any], RunRecord, list[int]], tuple[Sequence[Done], Sequence[NewEntry]]]


def carry_through(
    connection: Connection[Any],
    run_id: int,
    act: Act,
    following: Following = UNWATCHED,
    *,
    at: datetime | None = None,
    bytes_max: int = BYTES_MAX,
) -> None:
    """Do the act to every letter that the run has not got to yet, lowest id first, and say that it is done.

    The trail bears the time when the run began, or `at` where that is past. Its `stop`, or somebody who stops the run, ends it
    between two portions. Raises TransientError, then with the portions before committed; the same call again is right.
    """
    run = get_run(connection, run_id)
    if at is not None:
        run = replace(run, began_at=at)
    got_to = run.done + run.refused
    last = 0
    while page := _page(connection, run_id, last):
        for portion in portions(page, lambda one: AS_DECODED * one[1], bytes_max, PORTION):
            if following.stop is not None and following.stop.is_set():
                if not following.hands_over:
                    stop_run(connection, run_id, "the process that carried it was told to stop")
                return
            ids = [number for number, _ in portion]
            done = _portion(connection, run, ids, act)
            if done is None:
                return
            got_to += done
            following.on_progress(got_to)
            last = ids[-1]
    finish(connection, run_id, datetime.now(UTC))


def _page(connection: Connection[Any], run_id: int, after: int) -> list[tuple[int, int]]:
    with mapped_errors(blameless=True):
        return connection.execute(NEXT, (run_id, after, PAGE)).fetchall()


def _portion(connection: Connection[Any], run: RunRecord, ids: list[int], act: Act) -> int | None:
    """How many letters were got to; None when the run may not go on. A collector that is in the way is waited for."""
    with mapped_errors(blameless=True):
        return retry_contention()(_portion_once, connection, run, ids, act)


def _portion_once(connection: Connection[Any], run: RunRecord, ids: list[int], act: Act) -> int | None:
    with connection.transaction():
        row = connection.execute(MAY_GO_ON, (run.run_id,)).fetchone()
        if row is None or row[0] != READY:
            return None
        pending = [int(row[0]) for row in connection.execute(STILL_PENDING, (run.run_id, ids)).fetchall()]
        done, changes = act(connection, run, pending)
        add_entries(connection, run.by, run.run_id, changes)
        settle(connection, run.run_id, done)
    return len(done)
