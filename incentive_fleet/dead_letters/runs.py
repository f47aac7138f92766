"""Runs: what somebody told us to do to letters, as one act with a row of its own, and what became of each letter.

A run's letters are chosen when it begins. It can be asked about, stopped, gone on with and approved from another process.
Nothing here touches a letter, and nothing here sends one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from psycopg import Connection
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from incentive_fleet.dead_letters.audit import Attribution, add_run_entry
from incentive_fleet.dead_letters.letter import storable
from incentive_fleet.errors import Refused
from incentive_fleet.ledger.connection import mapped_errors
from incentive_fleet.stopping import Stop

RUN_LOCK: Final = 0x1CE_0002 << 32  # advisory lock keys: this and the run's number
ROWS_MAX: Final = 10_000  # of one listing
NOTE_CHARACTERS: Final = 500

WAITING, READY, STOPPED, DONE = "waiting", "ready", "stopped", "done"
PENDING: Final = "pending"
DETACHED: Final = {
    "detached": True
}  # parameters of a run that nobody waits for: the fleet carries it, whatever its act

BEGIN = """
    INSERT INTO dead_letter_runs (act, status, actor, reason, began_at, parameters, transports, letters)
    VALUES (%(act)s, %(status)s, %(actor)s, %(reason)s, %(at)s, %(parameters)s,
        coalesce(%(transports)s::text[],
            ARRAY(SELECT DISTINCT transport FROM dead_letters WHERE id = ANY(%(ids)s) ORDER BY 1)), %(count)s)
    RETURNING run_id
"""
ADD_LETTERS = "INSERT INTO dead_letter_run_letters (run_id, dead_letter_id) SELECT %s, unnest(%s::bigint[])"
# Who holds the lock of a run carries it on. A bigint key shows as its halves.
READ = f"""
    SELECT r.run_id, r.act, r.status, r.actor, r.reason, r.began_at, r.ended_at, r.parameters, r.transports, r.letters, r.note,
        r.approved_by, r.approved_at, counted.done, counted.refused,
        r.status = 'ready' AND EXISTS (
            SELECT FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 1 AND granted
            AND classid::bigint = {RUN_LOCK >> 32} AND objid::bigint = r.run_id
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database())) AS carried
    FROM dead_letter_runs r, LATERAL (
        SELECT count(*) FILTER (WHERE state = 'done') AS done, count(*) FILTER (WHERE state = 'refused') AS refused
        FROM dead_letter_run_letters l WHERE l.run_id = r.run_id) counted
"""
GET = f"{READ} WHERE r.run_id = %s"
LIST = f"""
    {READ} WHERE (NOT %(unfinished)s OR r.status <> 'done') AND r.run_id < %(below)s ORDER BY r.run_id DESC LIMIT %(limit)s
"""
SET_STATUS = """
    UPDATE dead_letter_runs r SET status = %(status)s, note = %(note)s, ended_at = %(ended)s
    FROM (SELECT run_id, status FROM dead_letter_runs WHERE run_id = %(run)s FOR UPDATE) before
    WHERE r.run_id = before.run_id AND before.status = ANY(%(from)s) RETURNING before.status
"""
APPROVE = """
    UPDATE dead_letter_runs SET status = 'ready', approved_by = %(actor)s, approved_at = %(at)s
    WHERE run_id = %(run)s AND status = 'waiting' RETURNING run_id
"""
SETTLE = """
    UPDATE dead_letter_run_letters l SET state = s.state, status = s.status, detail = s.detail
    FROM unnest(%(ids)s::bigint[], %(states)s::text[], %(statuses)s::text[], %(details)s::text[])
        AS s (id, state, status, detail)
    WHERE l.run_id = %(run)s AND l.dead_letter_id = s.id
"""
NEXT = """
    SELECT dead_letter_id FROM dead_letter_run_letters
    WHERE run_id = %s AND state = 'pending' AND dead_letter_id > %s ORDER BY dead_letter_id LIMIT %s
"""
SEEN = """
    SELECT dead_letter_id AS id, status, detail AS refused FROM dead_letter_run_letters
    WHERE run_id = %s AND (state <> 'pending' OR detail <> '') ORDER BY dead_letter_id
"""
REFUSED = """
    SELECT dead_letter_id AS id, status, detail AS refused FROM dead_letter_run_letters
    WHERE run_id = %s AND detail <> '' ORDER BY dead_letter_id LIMIT %s
"""


@dataclass(frozen=True, slots=True)
class Done:
    """What an act on one letter came to; `refused` is "" or why nothing happened to it."""

    id: int
    status: str  # afterwards; "unknown" when there is no such letter
    refused: str = ""


@dataclass(frozen=True, slots=True)
class Following:
    """How the caller follows a run that it begins."""

    on_begin: Callable[[int], None] = lambda run_id: None
    on_progress: Callable[[int], None] = lambda done: None  # how many letters were got to
    stop: Stop | None = None  # set: end between two portions; the run is stopped then ...
    hands_over: bool = False  # ... or stays ready, for another process to go on with


UNWATCHED: Final = Following()


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A row of dead_letter_runs, and how far it is."""

    run_id: int
    act: str  # edit, undo, replay, discard, restore
    status: str  # waiting (for an approval), ready (and carried, or to be carried on), stopped, done
    actor: str
    reason: str
    began_at: datetime
    ended_at: datetime | None
    parameters: dict[str, Any]
    transports: list[str]
    letters: int
    note: str
    approved_by: str | None
    approved_at: datetime | None
    done: int
    refused: int
    carried: bool  # by a process, at this moment

    @property
    def pending(self) -> int:
        """Letters not got to."""
        return self.letters - self.done - self.refused

    @property
    def by(self) -> Attribution:
        """Who began it, when, and why."""
        return Attribution(self.actor, self.began_at, self.reason)


def begin(
    connection: Connection[Any],
    act: str,
    ids: Sequence[int],
    by: Attribution,
    parameters: dict[str, object] | None = None,
    *,
    transports: Sequence[str] | None = None,
) -> int:
    """Write a run down, with its letters; its number. It needs these transports, or those of its letters.

    Raises TransientError.
    """
    wanted = sorted(set(ids))
    values = {
        "act": act,
        "status": WAITING if by.needs_approval else READY,
        "actor": storable(by.actor.strip()),
        "reason": storable(by.reason),
        "at": by.at,
        "parameters": Jsonb({**(parameters or {}), "needs_approval": True} if by.needs_approval else parameters or {}),
        "ids": wanted,
        "count": len(wanted),
        "transports": None if transports is None else list(transports),
    }
    with mapped_errors(blameless=True), connection.transaction():
        row = connection.execute(BEGIN, values).fetchone()
        assert row is not None
        connection.execute(ADD_LETTERS, (row[0], wanted))
    return int(row[0])


def get_run(connection: Connection[Any], run_id: int) -> RunRecord:
    """One run. Raises Refused (unknown-run) and TransientError."""
    with mapped_errors(blameless=True), connection.cursor(row_factory=class_row(RunRecord)) as cursor:
        run = cursor.execute(GET, (run_id,)).fetchone()
    if run is None:
        raise Refused("unknown-run", f"there is no run {run_id}: `incentives dlq runs` lists them")
    return run


def list_runs(
    connection: Connection[Any], *, unfinished: bool = False, limit: int = 50, below: int = 2**63 - 1
) -> list[RunRecord]:
    """The newest runs first, those with lower numbers than `below`.

    Raises ValueError for a limit outside 1 to 10,000, and TransientError.
    """
    if not 1 <= limit <= ROWS_MAX:
        raise ValueError(f"limit is {limit}: must be 1 to {ROWS_MAX}")
    with mapped_errors(blameless=True), connection.cursor(row_factory=class_row(RunRecord)) as cursor:
        return cursor.execute(LIST, {"unfinished": unfinished, "limit": limit, "below": below}).fetchall()


def next_ids(connection: Connection[Any], run_id: int, after: int, limit: int) -> list[int]:
    """Letters of the run that are yet to be done, with higher ids than `after`, lowest first. Raises TransientError."""
    with mapped_errors(blameless=True):
        return [int(row[0]) for row in connection.execute(NEXT, (run_id, after, limit)).fetchall()]


def settle(connection: Connection[Any], run_id: int, done: Sequence[Done], again: Sequence[Done] = ()) -> None:
    """Write down what became of letters, in the caller's transaction; `again` are refused for now and stay pending."""
    if not done and not again:
        return
    every = [*done, *again]
    states = [*("refused" if one.refused else "done" for one in done), *(PENDING for _ in again)]
    values = {
        "run": run_id,
        "ids": [one.id for one in every],
        "states": states,
        "statuses": [one.status for one in every],
        "details": [storable(one.refused)[:NOTE_CHARACTERS] for one in every],
    }
    connection.execute(SETTLE, values)


def outcomes(connection: Connection[Any], run_id: int) -> list[Done]:
    """What became of each letter that was got to, by id. Raises TransientError."""
    with mapped_errors(blameless=True), connection.cursor(row_factory=class_row(Done)) as cursor:
        return cursor.execute(SEEN, (run_id,)).fetchall()


def refusals(connection: Connection[Any], run_id: int, *, limit: int = 50) -> list[Done]:
    """The letters that nothing happened to so far, and why, by id, `limit` at the most. Raises TransientError."""
    with mapped_errors(blameless=True), connection.cursor(row_factory=class_row(Done)) as cursor:
        return cursor.execute(REFUSED, (run_id, limit)).fetchall()


def finish(connection: Connection[Any], run_id: int, at: datetime) -> None:
    """The run has got to every letter. Idempotent. Raises TransientError."""
    _set_status(connection, run_id, DONE, (READY,), "", at)


def stop_run(connection: Connection[Any], run_id: int, note: str, by: Attribution | None = None) -> None:
    """Let nobody carry it on; what is under way is finished. Stopping a stopped run does nothing. `by` is for the trail: whoever
    wanted it so, None where nobody did.

    Raises Refused (unknown-run, run-is-done) and TransientError.
    """
    with mapped_errors(blameless=True), connection.transaction():
        before = _set_status(connection, run_id, STOPPED, (WAITING, READY), note)
        if before is not None and by is not None:
            add_run_entry(connection, run_id, "stopped", by, (before, STOPPED))
    if before is None:
        run = get_run(connection, run_id)
        if run.status == DONE:
            raise Refused("run-is-done", f"run {run_id} is done: there is nothing to stop")


def resume_run(connection: Connection[Any], run_id: int, by: Attribution) -> RunRecord:
    """Let it go on, also where its command has died.

    Raises Refused (unknown-run, run-is-done, needs-approval) and TransientError.
    """
    run = get_run(connection, run_id)
    if run.status == DONE:
        raise Refused("run-is-done", f"run {run_id} is done: every letter was got to")
    if run.parameters.get("needs_approval") and run.approved_by is None:
        _set_status(connection, run_id, WAITING, (STOPPED,), "")
        raise Refused(
            "needs-approval", f"run {run_id} of {run.actor} waits for another one's `incentives dlq approve {run_id}`"
        )
    with mapped_errors(blameless=True), connection.transaction():
        before = _set_status(connection, run_id, READY, (STOPPED,), "")
        add_run_entry(connection, run_id, "resumed", by, (before or run.status, READY))
    return get_run(connection, run_id)


def approve_run(connection: Connection[Any], run_id: int, by: Attribution) -> RunRecord:
    """Let a run that waits go on, by another one than who began it. Approving it again changes nothing.

    Raises Refused (unknown-run, own-run, not-waiting) and TransientError.
    """
    run = get_run(connection, run_id)
    if run.actor == by.actor:
        raise Refused("own-run", f"run {run_id} was begun by {run.actor}: another one has to approve it")
    with mapped_errors(blameless=True), connection.transaction():
        values = {"run": run_id, "actor": storable(by.actor.strip()), "at": by.at}
        approved = connection.execute(APPROVE, values).fetchone()
        if approved is not None:
            add_run_entry(connection, run_id, "approved", by, (WAITING, READY))
    if approved is None and run.approved_by is None:
        raise Refused("not-waiting", f"run {run_id} is {run.status}: it waits for no approval")
    return get_run(connection, run_id)


def _set_status(
    connection: Connection[Any],
    run_id: int,
    status: str,
    from_: Sequence[str],
    note: str,
    ended: datetime | None = None,
) -> str | None:
    """Its status before; None where that is none of those from which it may get there."""
    values = {"run": run_id, "status": status, "from": list(from_), "note": note[:NOTE_CHARACTERS], "ended": ended}
    with mapped_errors(blameless=True):
        row = connection.execute(SET_STATUS, values).fetchone()
    return None if row is None else str(row[0])
