"""Keeps what the collector brings: once per source queue and body, with its lives linked. It never talks to a broker.

One copy may be looked at twice (a crash between COMMIT and the deletion at the broker), one body may be given up in
several copies, and a replayed message may come back. The three are told apart here:
- the same copy again changes nothing;
- another copy is counted, and opens the letter again if somebody had closed it: nothing is hidden unseen;
- a replay that came back starts the letter's next life. After an edit its body is another, so it is a letter of its own
  that names the earlier one.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from enum import Enum
from typing import Any

from psycopg import Connection
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from incentive_fleet.brokers.messages import Arrival
from incentive_fleet.consumers.admission import Admission
from incentive_fleet.dead_letters.arrivals import explain, replay_mark
from incentive_fleet.dead_letters.audit import COLLECTOR, Attribution, add_entry, state_of
from incentive_fleet.dead_letters.causes import key_of
from incentive_fleet.dead_letters.letter import (
    DISCARDED,
    OPEN,
    REPLAYED,
    REPLAYING,
    WITHOUT_BODIES,
    Letter,
    search_fields_of,
    storable_values,
)
from incentive_fleet.ledger.connection import mapped_errors
from incentive_fleet.ledger.session import Session

FIND = f"""
    SELECT {WITHOUT_BODIES} FROM dead_letters
    WHERE transport = %(transport)s AND source_queue = %(source_queue)s AND body_sha256 = %(sha256)s FOR UPDATE
"""
FIND_SENT = f"""
    SELECT {WITHOUT_BODIES} FROM dead_letters
    WHERE sent_sha256 = %(sha256)s
      AND (transport = %(transport)s AND source_queue = %(source_queue)s OR id = %(marked)s)  -- a redirected one says whose
    ORDER BY last_seen DESC, id DESC LIMIT 1 FOR UPDATE
"""
GROUP_NO = "dead_letter_group(%(group_key)s, %(reason)s, %(group_text)s, %(event_type)s)"
ADD = f"""
    INSERT INTO dead_letters (transport, source_queue, dead_letter_queue, body, headers, envelope, reason, detail, group_text,
        group_no, failure, event_type, event_source, event_id, order_id, customer_id, first_seen, last_seen, arrival)
    VALUES (%(transport)s, %(source_queue)s, %(dead_letter_queue)s, %(body)s, %(headers)s, %(envelope)s, %(reason)s,
        %(detail)s, %(group_text)s, {GROUP_NO}, %(failure)s, %(event_type)s, %(event_source)s, %(event_id)s, %(order_id)s,
        %(customer_id)s, %(now)s, %(now)s, %(arrival)s)
    ON CONFLICT (transport, source_queue, body_sha256) DO NOTHING RETURNING {WITHOUT_BODIES}
"""
SEEN = f"""
    UPDATE dead_letters SET times_seen = times_seen + 1, last_seen = %(now)s, arrival = %(arrival)s,
        headers = %(headers)s, envelope = %(envelope)s, reason = %(reason)s, detail = %(detail)s, group_text = %(group_text)s,
        group_no = {GROUP_NO}, failure = %(failure)s, dead_letter_queue = %(dead_letter_queue)s
    WHERE id = %(id)s
"""
# The claim goes too: what has come back was sent, whatever the one who claimed it knows by now.
SET_LIFE = """
    UPDATE dead_letters SET status = %s, life = %s, replays = %s, returned = %s, claim_run = NULL, claimed_by = NULL,
        claimed_at = NULL
    WHERE id = %s
"""
LINK = """
    UPDATE dead_letters SET earlier_id = %s, life = %s, sent_sha256 = %s, same_body_replays = %s WHERE id = %s
"""


class Seen(Enum):
    """What a copy turned out to be."""

    NEW = "new"
    RETURNED = "returned"  # a replay that failed again
    AGAIN = "again"  # another copy of a body that is known
    SAME = "same"  # a copy that was kept already


def keep(
    connection: Connection[Any], arrivals: Sequence[Arrival], now: datetime, admission: Admission | None = None
) -> list[Seen]:
    """Keep copies in one transaction, in the order given. Idempotent; once it returned they may leave the broker.

    `admission` explains copies that had no room for their reason.

    Raises DatabaseUnavailable or DatabaseContention: nothing is kept then, and the same call again is right.
    """
    # In the order of arrival, so that ids tell it. Two collectors that hold the same bodies in opposite orders may
    # deadlock; Postgres ends one of them, and its caller tries again.
    with mapped_errors(), connection.transaction():
        return [_keep_one(connection, arrival, now, admission) for arrival in arrivals]


def probe_keeping(session: Session, transport: str) -> None:
    """Return when a made-up copy could be kept at this moment, new and then again; both are rolled back.

    Raises what stands in the way: TransientError, or whatever the driver or a bug raises.
    """
    name = f"probe-{uuid.uuid4().hex}"
    arrival = Arrival(transport, name, name, name.encode(), {}, {}, name, True, 1, None, None)
    again = replace(arrival, name=f"{name}-again")
    with mapped_errors(), session.connection.transaction(force_rollback=True):
        keep(session.connection, [arrival, again], datetime.now(UTC))
        session.connection.execute("SET CONSTRAINTS ALL IMMEDIATE")


def _keep_one(connection: Connection[Any], arrival: Arrival, now: datetime, admission: Admission | None) -> Seen:
    values = _values(arrival, now, admission)
    with connection.cursor(row_factory=class_row(Letter)) as cursor:
        letter = cursor.execute(FIND, values).fetchone()
        if letter is None:
            added = cursor.execute(ADD, values).fetchone()
            if added is not None:
                return _begin(connection, added, arrival, now)
            letter = cursor.execute(FIND, values).fetchone()  # another collector was faster
    assert letter is not None
    meaning = _meaning(letter, arrival)
    if meaning is Seen.SAME:
        return meaning
    connection.execute(SEEN, values | {"id": letter.id})
    if meaning is Seen.RETURNED:
        _, number = _own_mark(letter, arrival) or (letter.id, letter.replays)
        _start_life(connection, letter, number, Attribution(COLLECTOR, now, "came back after a replay"))
    elif letter.status in (REPLAYED, DISCARDED) and not _is_stale(letter, arrival):
        # One that is being replayed right now stays so: what is sent has the same content as this copy.
        _reopen(connection, letter, Attribution(COLLECTOR, now, "another copy arrived"))
    return meaning


def _values(arrival: Arrival, now: datetime, admission: Admission | None) -> dict[str, object]:
    explanation, fields = explain(arrival, admission), search_fields_of(arrival.body)
    return {
        "transport": arrival.transport,
        "source_queue": arrival.source_queue,
        "dead_letter_queue": arrival.dead_letter_queue,
        "body": arrival.body,
        "sha256": arrival.body_sha256,
        "headers": Jsonb(storable_values(dict(arrival.headers))),
        "envelope": Jsonb(storable_values(dict(arrival.envelope))),
        "reason": explanation.reason,
        "detail": explanation.detail,
        "group_text": explanation.group_text,
        "group_key": key_of(explanation.reason, explanation.group_text, fields.event_type),
        "failure": None if explanation.failure is None else Jsonb(explanation.failure),
        "arrival": arrival.name,
        "now": now,
        **asdict(fields),
    }


def _meaning(letter: Letter, arrival: Arrival) -> Seen:
    if letter.arrival == arrival.name and (arrival.certain or arrival.receive_count > 1):
        return Seen.SAME
    mark = _own_mark(letter, arrival)
    if mark is not None:
        return Seen.RETURNED if mark[1] > letter.returned else Seen.AGAIN
    # SQS carries ten attributes at the most, so the mark may have been dropped on the way.
    sent = letter.status in (REPLAYING, REPLAYED) and letter.sent_sha256 == arrival.body_sha256
    return (
        Seen.RETURNED
        if sent and letter.replays > letter.returned and replay_mark(arrival.headers) is None
        else Seen.AGAIN
    )


def _own_mark(letter: Letter, arrival: Arrival) -> tuple[int, int] | None:
    """The mark of a replay of this very letter that can have happened."""
    mark = replay_mark(arrival.headers)
    return mark if mark is not None and mark[0] == letter.id and mark[1] <= letter.replays + 1 else None


def _is_stale(letter: Letter, arrival: Arrival) -> bool:
    """A second copy of a replay whose first copy came back already: what was done since stands."""
    mark = replay_mark(arrival.headers)
    return mark is not None and mark[0] in (letter.id, letter.earlier_id)


def _begin(connection: Connection[Any], letter: Letter, arrival: Arrival, now: datetime) -> Seen:
    """A body seen for the first time here; it may be the edited replay of another letter."""
    by = Attribution(COLLECTOR, now)
    with connection.cursor(row_factory=class_row(Letter)) as cursor:
        marked = replay_mark(arrival.headers)
        keys = {
            "transport": arrival.transport,
            "source_queue": arrival.source_queue,
            "sha256": arrival.body_sha256,
            "marked": None if marked is None else marked[0],
        }
        earlier = cursor.execute(FIND_SENT, keys).fetchone()
    if earlier is None:
        add_entry(connection, letter.id, "collected", by, {}, state_of(letter))
        return Seen.NEW
    life, digest = earlier.life + 1, arrival.body_sha256
    connection.execute(LINK, (earlier.id, life, digest, earlier.same_body_replays, letter.id))
    link: dict[str, object] = {**state_of(replace(letter, life=life)), "earlier": earlier.id}
    add_entry(connection, letter.id, "collected", by, {}, link)
    mark = replay_mark(arrival.headers)
    number = mark[1] if mark is not None and mark[0] == earlier.id else earlier.replays
    number = min(max(number, earlier.returned), earlier.replays + 1)
    after = replace(
        earlier,
        status=REPLAYED if earlier.status == REPLAYING else earlier.status,
        replays=max(number, earlier.replays),
        returned=number,
    )
    _set_life(connection, after)
    add_entry(
        connection,
        earlier.id,
        "returned",
        Attribution(COLLECTOR, now, "the edited replay came back"),
        state_of(earlier),
        {**state_of(after), "later": letter.id},
    )
    return Seen.RETURNED


def _start_life(connection: Connection[Any], letter: Letter, number: int, by: Attribution) -> None:
    after = replace(letter, status=OPEN, life=letter.life + 1, replays=max(number, letter.replays), returned=number)
    _set_life(connection, after)
    add_entry(connection, letter.id, "returned", by, state_of(letter), state_of(after))


def _reopen(connection: Connection[Any], letter: Letter, by: Attribution) -> None:
    after = replace(letter, status=OPEN)
    _set_life(connection, after)
    add_entry(connection, letter.id, "reopened", by, state_of(letter), state_of(after))


def _set_life(connection: Connection[Any], after: Letter) -> None:
    connection.execute(SET_LIFE, (after.status, after.life, after.replays, after.returned, after.id))
