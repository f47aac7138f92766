"""Dead letters and what was done about them: groups, letters, runs, history. Bodies are for those who may read customers' data."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import strawberry
from strawberry.types import Info

from incentive_fleet.console.graphql.cursors import FIRST, PageOf, checked_first, page_of, place_of
from incentive_fleet.console.graphql.orders import OrderShown, orders_of
from incentive_fleet.console.graphql.reading import Asking, asking_of
from incentive_fleet.console.graphql.scalars import Document, Long, Time, shows
from incentive_fleet.console.visitors import Work
from incentive_fleet.dead_letters import audit, documents, runs, store
from incentive_fleet.dead_letters.letter import OPEN, REPLAYING
from incentive_fleet.errors import Refused

LETTERS: Final = "dead-letters"
ACTS: Final = "acts"
RUNS: Final = "runs"
BYTES: Final = 65_536  # of a body, where nobody says
BYTES_MAX: Final = 1024 * 1024
ANSWER_BYTES_MAX: Final = 16 * 1024 * 1024  # of the bodies of one answer, edited ones among them
NEWEST: Final = 2**63 - 1


@strawberry.type(name="Act", description="An entry of the audit trail: who did what to a letter, when and why.")
class ActShown:
    act_id: Long
    dead_letter_id: Long | None = strawberry.field(description="Null where it was done to a run as a whole.")
    run_id: Long | None
    act: str
    actor: str
    acted_at: Time
    reason: str
    before: Document
    after: Document


@strawberry.type(name="LetterBody", description="`text` in the `encoding` that says how to read it, utf-8 or hex.")
class LetterBodyShown:
    encoding: str
    text: str
    size: Long = strawberry.field(description="Bytes of the whole.")


@strawberry.type(name="LetterContent", description="What came with the message.")
class LetterContentShown:
    body: LetterBodyShown
    edited_body: LetterBodyShown | None
    headers: Document
    failure: Document | None


@strawberry.type(name="DeadLetter")
class DeadLetterShown:
    id: Long
    status: str
    reason: str
    detail: str
    transport: str
    source_queue: str
    dead_letter_queue: str
    event_type: str | None
    event_source: str | None
    event_id: str | None
    order_id: str | None
    customer_id: str | None
    edited: bool
    first_seen: Time
    last_seen: Time
    times_seen: int
    life: int
    replays: int
    earlier_id: Long | None
    size: Long
    claimed_by: str | None
    claimed_at: Time | None

    @shows(Long)
    def group(self: Any) -> Any:
        """The number of its group."""
        return self.group_no

    @strawberry.field
    def cause(self: Any) -> str:
        """The text of its group."""
        return str(self.group_text)

    @shows(Long | None)
    def run(self: Any) -> Any:
        """The last run that had to do with it."""
        return self.last_run

    @shows(Long)
    def age_s(self, info: Info[Any, Any]) -> Any:
        """Seconds since it was last seen."""
        seen: Any = self.last_seen
        return max(0, int((asking_of(info).now - seen).total_seconds()))

    @shows(LetterContentShown | None)
    async def content(self, info: Info[Any, Any], bytes: int = BYTES) -> Any:
        """Of bodies as many bytes, from the beginning. Takes the role of support."""
        if not 1 <= bytes <= BYTES_MAX:
            raise Refused("out-of-bounds", f"bytes is {bytes}: must be 1 to {BYTES_MAX}")
        return await asking_of(info).load(_contents_of, self.id, bytes)

    @shows(PageOf[ActShown])
    async def history(self, info: Info[Any, Any], first: int = FIRST, after: str | None = None) -> Any:
        """What was done about it, newest first."""
        place = place_of(ACTS, after, (int,))
        limit = checked_first(first) + 1
        rows = await asking_of(info).load(_acts_of, self.id, place[0] if place else NEWEST, limit)
        return page_of(ACTS, rows, first, after, lambda row: (row.act_id,))

    @shows(OrderShown | None)
    async def order(self, info: Info[Any, Any]) -> Any:
        """The order that it names, where there is one. Takes the role of support."""
        return None if self.order_id is None else await asking_of(info).load(orders_of, self.order_id)


@strawberry.type(name="DeadLetterGroup", description="Letters that are alike.")
class DeadLetterGroupShown:
    group: Long
    reason: str
    cause: str
    event_type: str | None
    source_queues: list[str]
    sources: list[str] = strawberry.field(description="Producers.")
    count: Long
    edited: Long
    replayed: Long
    oldest: Time
    newest: Time
    example: Long = strawberry.field(description="The id of one of them.")


@strawberry.type(name="Run", description="What somebody told us to do to letters, as one act.")
class RunShown:
    run: Long
    act: str
    status: str
    carried: bool = strawberry.field(description="By a process, at this moment.")
    actor: str
    reason: str
    began_at: Time
    ended_at: Time | None
    letters: Long
    done: Long
    refused: Long
    pending: Long
    note: str
    approved_by: str | None
    approved_at: Time | None
    parameters: Document


@strawberry.input(name="DeadLetterFilter", description="All that is given must hold.")
class DeadLetterFilter:
    statuses: list[str] | None = strawberry.field(default=None, description="Open and replaying ones, if not given.")
    reason: str | None = None
    type: str | None = None
    order: str | None = None
    queue: str | None = None
    cause: str | None = None
    group: Long | None = None
    source: str | None = None
    edited: bool | None = None
    replayed: bool | None = None
    run: Long | None = None
    since: Time | None = None
    until: Time | None = None
    customer: str | None = strawberry.field(default=None, description="Takes the role of support, as text does.")
    text: str | None = None


def _filters(asking: Asking, wanted: DeadLetterFilter | None) -> store.Filters:
    if wanted is None:
        return store.Filters(statuses=(OPEN, REPLAYING))
    if wanted.customer is not None or wanted.text is not None:
        asking.visitor.require(Work.READ)
    given: dict[str, Any] = {**vars(wanted)}
    statuses = given.pop("statuses")
    return store.Filters(statuses=(OPEN, REPLAYING) if statuses is None else tuple(statuses), **given)


def dead_letter_groups(info: Info[Any, Any], first: int = FIRST, filter: DeadLetterFilter | None = None) -> Any:
    """What is the matter: the biggest groups first."""
    asking = asking_of(info)
    wanted, limit = _filters(asking, filter), checked_first(first)
    found = asking.read(Work.LOOK, store.group_letters, wanted, limit=limit)
    return [documents.group_document(one) for one in found]


def dead_letters(
    info: Info[Any, Any], first: int = FIRST, after: str | None = None, filter: DeadLetterFilter | None = None
) -> Any:
    """The letters seen last, first."""
    asking = asking_of(info)
    place: Any = place_of(LETTERS, after, (datetime, int))
    wanted, limit = _filters(asking, filter), checked_first(first) + 1
    rows = asking.read(Work.LOOK, store.list_letters, wanted, limit=limit, after=place)
    return page_of(LETTERS, rows, first, after, lambda row: (row.last_seen, row.id))


def dead_letter(info: Info[Any, Any], id: Long) -> Any:
    """By its id; null when there is none."""
    try:
        return asking_of(info).read(Work.LOOK, store.get_letters, [id], bodies=False)[0]
    except Refused as refused:
        if refused.reason != "unknown-dead-letter":
            raise
        return None


def dead_letter_acts(
    info: Info[Any, Any],
    first: int = FIRST,
    after: str | None = None,
    run: Long | None = None,
    actor: str | None = None,
) -> Any:
    """The audit trail of all letters, newest first; of a run or a person alone."""
    place: Any = place_of(ACTS, after, (int,))
    wanted = audit.AuditFilters(run=run, actor=actor, below=place[0] if place else None)
    limit = checked_first(first) + 1
    rows = asking_of(info).read(Work.LOOK, audit.list_entries, None, limit=limit, wanted=wanted)
    return page_of(ACTS, rows[::-1], first, after, lambda row: (row.act_id,))


def dead_letter_runs(
    info: Info[Any, Any], first: int = FIRST, after: str | None = None, unfinished: bool = False
) -> Any:
    """The newest first."""
    place: Any = place_of(RUNS, after, (int,))
    limit, below = checked_first(first) + 1, place[0] if place else NEWEST
    rows = asking_of(info).read(Work.LOOK, runs.list_runs, unfinished=unfinished, limit=limit, below=below)
    return page_of(RUNS, [documents.run_document(row) for row in rows], first, after, lambda row: (row["run"],))


def _contents_of(asking: Asking, ids: Sequence[int], bytes: int) -> dict[int, dict[str, Any]]:
    if 2 * bytes * len(ids) > ANSWER_BYTES_MAX:
        more = f"the bodies of {len(ids)} letters could have more than {ANSWER_BYTES_MAX} bytes: ask for fewer, or less of each"
        raise Refused("answer-too-large", more)
    found = store.letter_contents(asking.reader(Work.READ), ids, bytes=bytes)
    return {id: _content(one) for id, one in found.items()}


def _content(one: store.LetterContent) -> dict[str, Any]:
    return {
        "body": _body(one.body, one.size),
        "edited_body": None if one.edited_body is None else _body(one.edited_body, one.edited_size or 0),
        "headers": one.headers,
        "failure": one.failure,
    }


def _body(beginning: bytes, size: int) -> dict[str, Any]:
    return documents.body_document(beginning, whole=len(beginning) == size) | {"size": size}


def _acts_of(asking: Asking, ids: Sequence[int], below: int, limit: int) -> dict[int, list[audit.AuditEntry]]:
    return audit.newest_entries(asking.reader(Work.LOOK), ids, below=below, limit=limit)
