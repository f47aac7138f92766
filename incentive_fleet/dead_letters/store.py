"""Reads dead letters: filtered, grouped by what is the matter, one at a time. It never writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final

from psycopg import Connection
from psycopg.rows import class_row

from incentive_fleet.dead_letters.letter import BEGINNINGS, COLUMNS, CUT, SUMMARY, Letter
from incentive_fleet.errors import Refused
from incentive_fleet.ledger.connection import mapped_errors

ROWS_MAX: Final = 10_000  # of one listing
SELECTED_MAX: Final = 100_000  # letters that one act may touch

# The text is compared as Postgres' `escape` form of bytes, which every body has, whatever it is; ASCII case is ignored.
# A refund or delivery does not name its customer: the decision on its order does.
WHERE: Final = """
    (%(reason)s::text IS NULL OR d.reason = %(reason)s)
    AND (%(type)s::text IS NULL OR d.event_type = %(type)s)
    AND (%(order)s::text IS NULL OR d.order_id = %(order)s)
    AND (%(queue)s::text IS NULL OR d.source_queue = %(queue)s OR d.dead_letter_queue = %(queue)s)
    AND (%(statuses)s::text[] IS NULL OR d.status = ANY(%(statuses)s))
    AND (%(cause)s::text IS NULL OR d.group_text = %(cause)s)
    AND (%(group)s::bigint IS NULL OR d.group_no = %(group)s)
    AND (%(source)s::text IS NULL OR d.event_source = %(source)s)
    AND (%(edited)s::boolean IS NULL OR d.edited = %(edited)s)
    AND (%(replayed)s::boolean IS NULL OR (d.replays > 0) = %(replayed)s)
    AND (%(run)s::bigint IS NULL OR EXISTS (SELECT FROM dead_letter_run_letters l
         WHERE l.run_id = %(run)s AND l.dead_letter_id = d.id AND l.state <> 'refused'))
    AND (%(seen_before)s::timestamptz IS NULL OR d.last_seen <= %(seen_before)s)
    AND (%(seen_after)s::timestamptz IS NULL OR d.last_seen > %(seen_after)s)
    AND (%(since)s::timestamptz IS NULL OR d.last_seen >= %(since)s)
    AND (%(until)s::timestamptz IS NULL OR d.last_seen < %(until)s)
"""
# Each only where it is asked for: not everybody may read what these read.
CUSTOMER: Final = """
    AND (d.customer_id = %(customer)s
         OR EXISTS (SELECT FROM decisions o WHERE o.order_id = d.order_id AND o.customer_id = %(customer)s))
"""
TEXT: Final = """
    AND (strpos(lower(d.detail), lower(%(text)s)) > 0
         OR strpos(lower(encode(coalesce(d.edited_body, d.body), 'escape')),
                   lower(encode(convert_to(%(text)s, 'UTF8'), 'escape'))) > 0)
"""
LIST = f"""
    SELECT {SUMMARY} FROM dead_letters d
    WHERE {{where}} AND (%(below)s::timestamptz IS NULL OR (d.last_seen, d.id) < (%(below)s, %(below_id)s))
    ORDER BY d.last_seen DESC, d.id DESC LIMIT %(limit)s
"""
COUNT = "SELECT count(*) FROM dead_letters d WHERE {where}"
IDS = "SELECT d.id FROM dead_letters d WHERE {where} ORDER BY d.id LIMIT %(limit)s"
# A group keeps the type that its letters came with; an edit may have changed theirs.
GROUP = """
    SELECT g.group_no, g.reason, g.group_text, g.event_type, counted.*
    FROM dead_letter_groups g JOIN (
        SELECT d.group_no AS number, array_agg(DISTINCT d.source_queue ORDER BY d.source_queue) AS source_queues,
               coalesce(array_agg(DISTINCT d.event_source ORDER BY d.event_source)
                   FILTER (WHERE d.event_source IS NOT NULL), '{}') AS sources,
               count(*) AS count, count(*) FILTER (WHERE d.edited) AS edited, count(*) FILTER (WHERE d.replays > 0) AS replayed,
               min(d.first_seen) AS oldest, max(d.last_seen) AS newest, min(d.id) AS example
        FROM dead_letters d WHERE {where}
        GROUP BY d.group_no
    ) counted ON counted.number = g.group_no
    ORDER BY counted.count DESC, counted.example LIMIT %(limit)s
"""
GET = f"SELECT {COLUMNS} FROM dead_letters WHERE id = %s"
GET_CUT = f"SELECT {CUT} FROM dead_letters WHERE id = %s"
GET_MANY_CUT = f"SELECT {CUT} FROM dead_letters WHERE id = ANY(%s) ORDER BY id"
GET_BEGINNINGS = f"SELECT {BEGINNINGS} FROM dead_letters WHERE id = ANY(%(ids)s)"
LIST_MANY = f"SELECT {SUMMARY} FROM dead_letters WHERE id = ANY(%s) ORDER BY id"
TRANSPORTS = "SELECT DISTINCT transport FROM dead_letters WHERE id = ANY(%s) ORDER BY 1"
LATER = "SELECT id FROM dead_letters WHERE earlier_id = %s ORDER BY id LIMIT 100"


@dataclass(frozen=True, slots=True)
class Filters:
    """Which letters: all that is given must hold; None asks nothing."""

    reason: str | None = None
    type: str | None = None
    order: str | None = None
    customer: str | None = None
    queue: str | None = None  # source or dead-letter queue
    statuses: tuple[str, ...] | None = None
    cause: str | None = None  # the group's text
    group: int | None = None  # the group's number
    source: str | None = None  # the producer, by the event's word
    edited: bool | None = None
    replayed: bool | None = None  # ever
    run: int | None = None  # letters that this run had to do with, but for those it was refused
    since: datetime | None = None  # last seen then or later; aware
    until: datetime | None = None  # last seen before then; aware
    seen_before: datetime | None = None  # last seen then or earlier; aware
    seen_after: datetime | None = None  # last seen later than that; aware
    text: str | None = None  # anywhere in the detail or the body

    def query(self, template: str) -> bytes:
        """The statement with the conditions that are asked for."""
        asked = (WHERE, CUSTOMER if self.customer is not None else "", TEXT if self.text is not None else "")
        return template.replace("{where}", "".join(asked)).encode()

    def values(self, limit: int) -> dict[str, object]:
        """The parameters of a query. Raises Refused (nul-in-filter)."""
        values = asdict(self)
        if any(isinstance(value, str) and "\x00" in value for value in values.values()):
            raise Refused("nul-in-filter", "a filter holds the character NUL, which no stored text has")
        return values | {"statuses": None if self.statuses is None else list(self.statuses), "limit": limit}


@dataclass(frozen=True, slots=True)
class LetterGroup:
    """Letters that are alike: one reason, one text, one type as they came. Its number stays for ever."""

    group_no: int
    reason: str
    group_text: str
    event_type: str | None
    number: int  # again
    source_queues: list[str]
    sources: list[str]  # producers
    count: int
    edited: int
    replayed: int
    oldest: datetime
    newest: datetime
    example: int  # the id of one of them


def list_letters(
    connection: Connection[Any], wanted: Filters, *, limit: int = 50, after: tuple[datetime, int] | None = None
) -> list[Letter]:
    """The letters seen last, first, without their bodies; those behind `after`, which is when one was last seen and its id.

    Raises ValueError for a limit outside 1 to 10,000; TransientError.
    """
    below, id = after or (None, 0)
    values = wanted.values(_limited(limit)) | {"below": below, "below_id": id}
    with mapped_errors(blameless=True), connection.cursor(row_factory=class_row(Letter)) as cursor:
        return cursor.execute(wanted.query(LIST), values).fetchall()


def count_letters(connection: Connection[Any], wanted: Filters) -> int:
    """How many letters the filter finds. Raises TransientError."""
    with mapped_errors(blameless=True):
        row = connection.execute(wanted.query(COUNT), wanted.values(1)).fetchone()
    assert row is not None
    return int(row[0])


def group_letters(connection: Connection[Any], wanted: Filters, *, limit: int = 50) -> list[LetterGroup]:
    """The biggest groups first. Raises ValueError for a limit outside 1 to 10,000, and TransientError."""
    with mapped_errors(blameless=True), connection.cursor(row_factory=class_row(LetterGroup)) as cursor:
        return cursor.execute(wanted.query(GROUP), wanted.values(_limited(limit))).fetchall()


def select_ids(connection: Connection[Any], wanted: Filters) -> list[int]:
    """The ids that the filter finds, oldest first, 100,000 at the most. Raises TransientError."""
    with mapped_errors(blameless=True):
        return [int(row[0]) for row in connection.execute(wanted.query(IDS), wanted.values(SELECTED_MAX)).fetchall()]


def get_letter(connection: Connection[Any], dead_letter_id: int, *, whole: bool = True) -> Letter:
    """One letter, of a body that no consumer would decode the beginning alone unless it is wanted whole.

    Raises Refused (unknown-dead-letter) and TransientError.
    """
    with mapped_errors(blameless=True), connection.cursor(binary=True, row_factory=class_row(Letter)) as cursor:
        letter = cursor.execute(GET if whole else GET_CUT, (dead_letter_id,)).fetchone()
    if letter is None:
        raise Refused("unknown-dead-letter", f"there is no dead letter {dead_letter_id}")
    return letter


def get_letters(connection: Connection[Any], ids: list[int], *, bodies: bool = True) -> list[Letter]:
    """The letters of these ids, by id, bodies as `get_letter` cuts them.

    Raises Refused (unknown-dead-letter) naming the first missing; TransientError.
    """
    # Binary: a body in the text form would cross the wire twice as long.
    with mapped_errors(blameless=True), connection.cursor(binary=True, row_factory=class_row(Letter)) as cursor:
        letters = cursor.execute(GET_MANY_CUT if bodies else LIST_MANY, (ids,)).fetchall()
    missing = sorted(set(ids) - {letter.id for letter in letters})
    if missing:
        raise Refused("unknown-dead-letter", f"there is no dead letter {missing[0]}")
    return letters


@dataclass(frozen=True, slots=True)
class LetterContent:
    """What came with a message, of the bodies as many bytes from the beginning as were asked for, and how many they have."""

    id: int
    body: bytes
    size: int
    edited_body: bytes | None
    edited_size: int | None
    headers: dict[str, str]
    failure: dict[str, Any] | None


def letter_contents(connection: Connection[Any], ids: Sequence[int], *, bytes: int) -> dict[int, LetterContent]:
    """What came with each of these letters, of bodies the beginning. Raises TransientError."""
    with mapped_errors(blameless=True), connection.cursor(binary=True, row_factory=class_row(LetterContent)) as cursor:
        rows = cursor.execute(GET_BEGINNINGS.encode(), {"ids": list(ids), "bytes": bytes}).fetchall()
    return {row.id: row for row in rows}


def transports_of(connection: Connection[Any], ids: list[int]) -> list[str]:
    """The brokers that these letters came from, sorted. Raises TransientError."""
    with mapped_errors(blameless=True):
        return [str(row[0]) for row in connection.execute(TRANSPORTS, (ids,)).fetchall()]


def later_ids(connection: Connection[Any], dead_letter_id: int) -> list[int]:
    """The letters that edited replays of this one came back as. Raises TransientError."""
    with mapped_errors(blameless=True):
        return [int(row[0]) for row in connection.execute(LATER, (dead_letter_id,)).fetchall()]


def _limited(limit: int) -> int:
    if not 1 <= limit <= ROWS_MAX:
        raise ValueError(f"limit is {limit}: must be 1 to {ROWS_MAX}")
    return limit
