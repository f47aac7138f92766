"""Edits many letters as one run, rehearses that, and undoes it as one. Only a valid event is saved; the originals stay."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import sha256
from typing import Any, Final

from psycopg import Connection

from incentive_fleet.brokers.budget import AS_DECODED, portions
from incentive_fleet.consumers.admission import Admission
from incentive_fleet.dead_letters import runs
from incentive_fleet.dead_letters.acting import BYTES_MAX, PORTION, Act, carry_through
from incentive_fleet.dead_letters.audit import Attribution, NewEntry, state_of
from incentive_fleet.dead_letters.bodies import NewBody, write_bodies
from incentive_fleet.dead_letters.causes import cause_of
from incentive_fleet.dead_letters.changes import lock_letters
from incentive_fleet.dead_letters.edit_plan import Editable, EditPlan, edited
from incentive_fleet.dead_letters.editing import difference
from incentive_fleet.dead_letters.letter import OPEN, Letter
from incentive_fleet.dead_letters.runs import UNWATCHED, Done, Following, RunRecord
from incentive_fleet.errors import Malformed, Refused
from incentive_fleet.ledger.connection import mapped_errors

ACTS: Final = ("edit", "undo")  # that change bodies
REFUSALS_MAX: Final = 50  # kinds of refusal told; the rest is counted

SIZES = "SELECT id, size FROM dead_letters WHERE id = ANY(%s) ORDER BY id"
BODIES = "SELECT id, status, order_id, source_queue, coalesce(edited_body, body) FROM dead_letters WHERE id = ANY(%s) ORDER BY id"
CURRENT = "SELECT id, coalesce(edited_body, body), body_sha256 FROM dead_letters WHERE id = ANY(%s)"
BEFORE = """
    SELECT d.id, l.before, coalesce(l.before, d.body), d.edited_body IS NOT DISTINCT FROM l.after,
           d.edited_body IS NOT DISTINCT FROM l.before
    FROM dead_letters d JOIN dead_letter_run_letters l ON l.dead_letter_id = d.id AND l.run_id = %s
    WHERE d.id = ANY(%s)
"""
CHANGED = """
    SELECT dead_letter_id FROM dead_letter_run_letters
    WHERE run_id = %s AND state = 'done' AND before IS DISTINCT FROM after ORDER BY dead_letter_id
"""


@dataclass(slots=True)
class EditPreview:
    """What an edit would come to. `refusals` counts (reason code, detail without its values), with a letter for example."""

    passed: int = 0
    unchanged: int = 0
    refusals: Counter[tuple[str, str]] = field(default_factory=Counter)
    examples: dict[tuple[str, str], int] = field(default_factory=dict)
    difference: list[str] = field(default_factory=list)  # of the first letter that it would change

    def refuse(self, letter_id: int, reason: str, detail: str) -> None:
        """Count one."""
        kind = (reason, cause_of(reason, detail, None))
        self.refusals[kind] += 1
        self.examples.setdefault(kind, letter_id)


def preview_edit(
    connection: Connection[Any],
    ids: Sequence[int],
    plan: EditPlan,
    admission: Admission | None,
    *,
    bytes_max: int = BYTES_MAX,
) -> EditPreview:
    """What the edit would do, without doing it. Bounded in memory. Raises Refused (bad-assignment) and TransientError."""
    preview, common = EditPreview(), plan.assignments()
    for number, status, order_id, queue, body in _bodies(connection, ids, bytes_max):
        if status != OPEN:
            preview.refuse(number, "not-open", f"it is {status}, so it cannot be edited")
            continue
        try:
            new = edited(plan, common, Editable(number, order_id, queue, body), admission)
        except (Malformed, Refused) as error:
            preview.refuse(number, *told(error))
            continue
        if new is body:
            preview.unchanged += 1
        else:
            preview.passed += 1
            preview.difference = preview.difference or difference(body, new, f"dead letter {number}")
    for number in set(ids) - _known(connection, ids):
        preview.refuse(number, "unknown-dead-letter", f"there is no dead letter {number}")
    return preview


def told(error: Malformed | Refused) -> tuple[str, str]:
    """The reason code and the sentence of a letter that cannot be edited so."""
    return error.reason, error.detail


def edit_many(
    connection: Connection[Any],
    ids: Sequence[int],
    plan: EditPlan,
    by: Attribution,
    admission: Admission | None,
    following: Following = UNWATCHED,
) -> int:
    """Edit the letters as one run; its number. Those that would be given up again are left as they are, and say why.

    Each portion is committed by itself: what an interruption left is edited when the run is resumed, and `undo` takes back
    what was. Raises Refused (bad-assignment) and TransientError.
    """
    plan.assignments()
    run_id = runs.begin(connection, "edit", ids, by, plan.parameters())
    following.on_begin(run_id)
    carry_through(connection, run_id, editing_by(admission), following)
    return run_id


def begin_edit(connection: Connection[Any], ids: Sequence[int], plan: EditPlan, by: Attribution) -> int:
    """Write the edit down, for a process of the fleet to carry through; its number. Raises as `edit_many`."""
    plan.assignments()
    return runs.begin(connection, "edit", ids, by, {**plan.parameters(), **runs.DETACHED})


def undo(
    connection: Connection[Any],
    run_id: int,
    by: Attribution,
    following: Following = UNWATCHED,
) -> int:
    """Take back what an edit's run did, as one run; its number. A letter that was edited, closed or sent since is left.

    Undoing twice does nothing more; an undo can be undone. Raises Refused (unknown-run, no-edit) and TransientError.
    """
    number = _begin_undo(connection, run_id, by, {})
    following.on_begin(number)
    carry_through(connection, number, undo_letters, following)
    return number


def begin_undo(connection: Connection[Any], run_id: int, by: Attribution) -> int:
    """Write the undoing down, for a process of the fleet to carry through; its number. Raises as `undo`."""
    return _begin_undo(connection, run_id, by, runs.DETACHED)


def _begin_undo(connection: Connection[Any], run_id: int, by: Attribution, more: Mapping[str, object]) -> int:
    undone = runs.get_run(connection, run_id)
    if undone.act not in ACTS:
        raise Refused("no-edit", f"run {run_id} is a {undone.act}: an edit can be undone, and the undoing of one")
    return runs.begin(connection, "undo", changed_ids(connection, run_id), by, {"run": run_id, **more})


def changed_ids(connection: Connection[Any], run_id: int) -> list[int]:
    """The letters whose body this run changed, by id. Raises TransientError."""
    with mapped_errors(blameless=True):
        return [int(row[0]) for row in connection.execute(CHANGED, (run_id,)).fetchall()]


def editing_by(admission: Admission | None) -> Act:
    """The act of a run that edits, by what the settings of this process let in."""
    return partial(_edit_letters, admission)


def _edit_letters(
    admission: Admission | None, connection: Connection[Any], run: RunRecord, ids: list[int]
) -> tuple[list[Done], list[NewEntry]]:
    plan = EditPlan.of(run.parameters)
    common = plan.assignments()
    letters = {letter.id: letter for letter in lock_letters(connection, ids)}
    done = {number: _not_open(number, letters.get(number), "edited") for number in ids}
    new: list[NewBody] = []
    for number, body, original in _read(connection, CURRENT, [ids]):
        letter = letters[number]
        if letter.status != OPEN:
            continue
        try:
            result = edited(plan, common, Editable(number, letter.order_id, letter.source_queue, body), admission)
        except (Malformed, Refused) as error:
            reason, detail = told(error)
            done[number] = Done(number, OPEN, f"{reason}: {detail}")
            continue
        done[number] = Done(number, OPEN)
        if result is not body:
            new.append(NewBody(number, None if sha256(result).digest() == original else result, result))
    write_bodies(connection, run.run_id, new)
    return [done[number] for number in ids], _changes("edited", letters, new)


def undo_letters(connection: Connection[Any], run: RunRecord, ids: list[int]) -> tuple[list[Done], list[NewEntry]]:
    """The act of a run that undoes another one."""
    of = int(run.parameters["run"])
    letters = {letter.id: letter for letter in lock_letters(connection, ids)}
    done = {number: _not_open(number, letters.get(number), "changed back") for number in ids}
    new: list[NewBody] = []
    for number, before, current, as_it_was_left, as_before in _read(connection, BEFORE, [of, ids]):
        if letters[number].status != OPEN:
            continue
        if as_it_was_left:
            done[number] = Done(number, OPEN)
            new.append(NewBody(number, before, current))
        elif as_before:
            done[number] = Done(number, OPEN)
        else:
            done[number] = Done(number, OPEN, f"it was edited again after run {of}: undo that one first")
    write_bodies(connection, run.run_id, new)
    return [done[number] for number in ids], _changes("undone", letters, new)


def _not_open(number: int, letter: Letter | None, act: str) -> Done:
    if letter is None:
        return Done(number, "unknown", f"there is no dead letter {number}")
    return Done(number, letter.status, f"it is {letter.status}, so it cannot be {act}")


def _changes(act: str, letters: dict[int, Letter], new: Sequence[NewBody]) -> list[NewEntry]:
    return [
        NewEntry(
            body.id,
            act,
            state_of(letters[body.id]),
            state_of(replace(letters[body.id], current_sha256=sha256(body.current).digest())),
        )
        for body in new
    ]


def _bodies(
    connection: Connection[Any], ids: Sequence[int], bytes_max: int
) -> Iterator[tuple[int, str, str | None, str, bytes]]:
    sizes = _read(connection, SIZES, [list(ids)])
    for portion in portions(sizes, lambda row: AS_DECODED * int(row[1]), bytes_max, PORTION):
        yield from _read(connection, BODIES, [[number for number, _ in portion]])


def _known(connection: Connection[Any], ids: Sequence[int]) -> set[int]:
    return {number for number, _ in _read(connection, SIZES, [list(ids)])}


def _read(connection: Connection[Any], query: str, values: list[Any]) -> list[Any]:
    # Binary: in the text form a body would cross the wire twice as long.
    with mapped_errors(blameless=True), connection.cursor(binary=True) as cursor:
        return cursor.execute(query.encode(), values).fetchall()
