"""What operators do to letters in the database alone: edit, discard, restore. Each act and its trace are one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from typing import Any, Final

from psycopg import Connection
from psycopg.rows import class_row

from incentive_fleet.consumers.admission import Admission, admitted
from incentive_fleet.dead_letters.audit import Attribution, add_entry, state_of
from incentive_fleet.dead_letters.letter import DISCARDED, OPEN, REPLAYED, WITHOUT_BODIES, Letter, search_fields_of
from incentive_fleet.errors import Refused
from incentive_fleet.ledger.connection import mapped_errors

CHUNK: Final = 500  # letters changed in one transaction

LOCK = f"SELECT {WITHOUT_BODIES} FROM dead_letters WHERE id = ANY(%s) ORDER BY id FOR UPDATE"
SET_STATUS = "UPDATE dead_letters SET status = %s WHERE id = ANY(%s)"
SET_BODY = """
    UPDATE dead_letters SET edited_body = %(edited_body)s, event_type = %(event_type)s, event_source = %(event_source)s,
        event_id = %(event_id)s, order_id = %(order_id)s, customer_id = %(customer_id)s
    WHERE id = %(id)s
"""


@dataclass(frozen=True, slots=True)
class Done:
    """What an act on one letter came to; `refused` is "" or why nothing happened to it."""

    id: int
    status: str  # afterwards; "unknown" when there is no such letter
    refused: str = ""


def discard(connection: Connection[Any], ids: Sequence[int], by: Attribution) -> list[Done]:
    """Close open letters, with a reason. One discarded already is left as it is and counts as done.

    Raises Refused (reason-missing) and TransientError; the same call again is right then.
    """
    if not by.reason.strip():
        raise Refused("reason-missing", "a discard needs a reason, for whoever asks later")
    return _change(connection, ids, by, "discarded", {OPEN: ""} | {DISCARDED: "same"}, DISCARDED)


def restore(connection: Connection[Any], ids: Sequence[int], by: Attribution) -> list[Done]:
    """Open discarded letters again, and replayed ones whose replay was lost on the way. Open ones count as done.

    Raises TransientError; the same call again is right then.
    """
    return _change(connection, ids, by, "restored", {DISCARDED: "", REPLAYED: "", OPEN: "same"}, OPEN)


def _change(
    connection: Connection[Any], ids: Sequence[int], by: Attribution, act: str, allowed: dict[str, str], status: str
) -> list[Done]:
    done: list[Done] = []
    wanted = sorted(set(ids))
    for start in range(0, len(wanted), CHUNK):
        done += _change_chunk(connection, wanted[start : start + CHUNK], by, act, allowed, status)
    return done


def _change_chunk(
    connection: Connection[Any], ids: list[int], by: Attribution, act: str, allowed: dict[str, str], status: str
) -> list[Done]:
    with mapped_errors(blameless=True), connection.transaction():
        letters = {letter.id: letter for letter in _lock(connection, ids)}
        moved = [letter for letter in letters.values() if allowed.get(letter.status) == ""]
        connection.execute(SET_STATUS, (status, [letter.id for letter in moved]))
        for letter in moved:
            add_entry(connection, letter.id, act, by, state_of(letter), state_of(replace(letter, status=status)))
    return [_done(number, letters.get(number), allowed, status, act) for number in ids]


def _done(number: int, letter: Letter | None, allowed: dict[str, str], status: str, act: str) -> Done:
    if letter is None:
        return Done(number, "unknown", f"there is no dead letter {number}")
    if letter.status in allowed:
        return Done(number, status)
    return Done(number, letter.status, f"it is {letter.status}, so it cannot be {act}")


def save_edit(
    connection: Connection[Any], letter: Letter, body: bytes, by: Attribution, admission: Admission | None
) -> Letter:
    """Have replays send `body` instead; the original stays. `letter` is what the editor saw. Returns the letter now.

    The original's own bytes undo every edit. Raises Malformed when `body` is no event that its queue takes and is not the original,
    Refused (not-open, changed-meanwhile) and TransientError; nothing is saved then.
    """
    edited = None if body == letter.body else body
    digest = sha256(body).digest()
    if edited is not None:
        admitted(edited, letter.source_queue, admission)
    with mapped_errors(blameless=True), connection.transaction():
        now = next(iter(_lock(connection, [letter.id])), None)
        if now is None or now.status != OPEN:
            raise Refused(
                "not-open", f"dead letter {letter.id} is {now.status if now else 'gone'}: only open ones are edited"
            )
        if now.current_sha256 != letter.current_sha256:
            raise Refused("changed-meanwhile", f"dead letter {letter.id} was edited by somebody else meanwhile")
        if digest == now.current_sha256:
            return letter
        after = replace(
            letter, edited_body=edited, current_sha256=digest, size=len(body), **asdict(search_fields_of(body))
        )
        connection.execute(SET_BODY, {"id": letter.id, "edited_body": edited, **asdict(search_fields_of(body))})
        before_text, after_text = letter.current_body.decode("utf-8", "replace"), body.decode("utf-8", "replace")
        add_entry(
            connection,
            letter.id,
            "edited",
            by,
            {**state_of(now), "body": before_text},
            {**state_of(after), "body": after_text},
        )
    return after


def _lock(connection: Connection[Any], ids: list[int]) -> list[Letter]:
    with connection.cursor(row_factory=class_row(Letter)) as cursor:
        return cursor.execute(LOCK, (ids,)).fetchall()
