"""What operators do to letters in the database alone: edit one, discard, restore. Each act is a run, and leaves its trace."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from psycopg import Connection
from psycopg.rows import class_row

from incentive_fleet.consumers.admission import Admission, admitted
from incentive_fleet.dead_letters import runs
from incentive_fleet.dead_letters.acting import carry_through
from incentive_fleet.dead_letters.audit import Attribution, NewEntry, add_entries, state_of
from incentive_fleet.dead_letters.bodies import NewBody, write_bodies
from incentive_fleet.dead_letters.letter import DISCARDED, OPEN, REPLAYED, WITHOUT_BODIES, Letter
from incentive_fleet.dead_letters.runs import UNWATCHED, Done, Following, RunRecord
from incentive_fleet.errors import Refused
from incentive_fleet.ledger.connection import mapped_errors

LOCK = f"SELECT {WITHOUT_BODIES} FROM dead_letters WHERE id = ANY(%s) ORDER BY id FOR UPDATE"
SET_STATUS = "UPDATE dead_letters SET status = %s WHERE id = ANY(%s)"

# From which status an act moves a letter, and in which it finds nothing to do.
MOVES: Mapping[str, tuple[str, frozenset[str], str]] = {
    "discard": ("discarded", frozenset({OPEN}), DISCARDED),
    "restore": ("restored", frozenset({DISCARDED, REPLAYED}), OPEN),
}


def discard(
    connection: Connection[Any],
    ids: Sequence[int],
    by: Attribution,
    following: Following = UNWATCHED,
) -> list[Done]:
    """Close open letters, with a reason. One discarded already is left as it is and counts as done.

    Raises Refused (reason-missing) and TransientError; the same call again is right then.
    """
    _require_reason("discard", by)
    return _move_all(connection, "discard", ids, by, following)


def restore(
    connection: Connection[Any],
    ids: Sequence[int],
    by: Attribution,
    following: Following = UNWATCHED,
) -> list[Done]:
    """Open discarded letters again, and replayed ones whose replay was lost on the way. Open ones count as done.

    Raises TransientError; the same call again is right then.
    """
    return _move_all(connection, "restore", ids, by, following)


def begin_move(connection: Connection[Any], act: str, ids: Sequence[int], by: Attribution) -> int:
    """Write a discard or restore down, for a process of the fleet to carry through; its number. Raises as those."""
    _require_reason(act, by)
    return runs.begin(connection, act, ids, by, dict(runs.DETACHED))


def _require_reason(act: str, by: Attribution) -> None:
    if act == "discard" and not by.reason.strip():
        raise Refused("reason-missing", "a discard needs a reason, for whoever asks later")


def _move_all(
    connection: Connection[Any],
    act: str,
    ids: Sequence[int],
    by: Attribution,
    following: Following,
) -> list[Done]:
    run_id = runs.begin(connection, act, ids, by)
    following.on_begin(run_id)
    carry_through(connection, run_id, move, following)
    return runs.outcomes(connection, run_id)


def move(connection: Connection[Any], run: RunRecord, ids: list[int]) -> tuple[list[Done], list[NewEntry]]:
    """The act of a run that discards or restores."""
    act, movable, status = MOVES[run.act]
    letters = {letter.id: letter for letter in lock_letters(connection, ids)}
    moved = [letter for letter in letters.values() if letter.status in movable]
    connection.execute(SET_STATUS, (status, [letter.id for letter in moved]))
    changes = [NewEntry(letter.id, act, state_of(letter), state_of(replace(letter, status=status))) for letter in moved]
    return [_done(number, letters.get(number), movable | {status}, status, act) for number in ids], changes


def _done(number: int, letter: Letter | None, allowed: frozenset[str], status: str, act: str) -> Done:
    if letter is None:
        return Done(number, "unknown", f"there is no dead letter {number}")
    if letter.status in allowed:
        return Done(number, status)
    return Done(number, letter.status, f"it is {letter.status}, so it cannot be {act}")


def save_edit(
    connection: Connection[Any], letter: Letter, body: bytes, by: Attribution, admission: Admission | None
) -> Letter:
    """Have replays send `body` instead; the original stays. `letter` is what the editor saw. Returns the letter now.

    The original's own bytes undo every edit. Raises Malformed when `body` is no event that its queue takes and is not the
    original, Refused (not-open, changed-meanwhile) and TransientError; nothing is saved then.
    """
    new = NewBody(letter.id, None if body == letter.body else body, body)
    digest = sha256(body).digest()
    if new.edited is not None:
        admitted(new.edited, letter.source_queue, admission)
    with mapped_errors(blameless=True), connection.transaction():
        now = next(iter(lock_letters(connection, [letter.id])), None)
        if now is None or now.status != OPEN:
            raise Refused(
                "not-open", f"dead letter {letter.id} is {now.status if now else 'gone'}: only open ones are edited"
            )
        if now.current_sha256 != letter.current_sha256:
            raise Refused("changed-meanwhile", f"dead letter {letter.id} was edited by somebody else meanwhile")
        if digest == now.current_sha256:
            return letter
        run_id = runs.begin(connection, "edit", [letter.id], by)
        write_bodies(connection, run_id, [new])
        after = replace(
            letter,
            edited_body=new.edited,
            edited=new.edited is not None,
            current_sha256=digest,
            size=len(body),
            **new.fields,
        )
        add_entries(connection, by, run_id, [NewEntry(letter.id, "edited", state_of(now), state_of(after))])
        runs.settle(connection, run_id, [Done(letter.id, OPEN)])
        runs.finish(connection, run_id, datetime.now(UTC))
    return after


def lock_letters(connection: Connection[Any], ids: list[int]) -> list[Letter]:
    """The letters of these ids, by id, locked until the caller's transaction ends."""
    with connection.cursor(row_factory=class_row(Letter)) as cursor:
        return cursor.execute(LOCK, (ids,)).fetchall()
