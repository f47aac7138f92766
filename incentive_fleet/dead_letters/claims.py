"""Claims of a replay's run on letters: take them before they are sent, mark them afterwards. Nothing is sent here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

from psycopg import Connection
from psycopg.rows import class_row

from incentive_fleet.dead_letters import runs
from incentive_fleet.dead_letters.audit import Attribution, NewEntry, add_entries, state_of
from incentive_fleet.dead_letters.letter import OPEN, REPLAYED, REPLAYING, WITHOUT_BODIES, Letter
from incentive_fleet.dead_letters.run_locks import RunLocks
from incentive_fleet.dead_letters.runs import Done
from incentive_fleet.ledger.connection import mapped_errors
from incentive_fleet.settings import Settings

UNCHANGED_MAX: Final = 2  # replays of one body that failed; a further one needs `force`

LOCK = f"""
    SELECT {WITHOUT_BODIES} FROM dead_letters WHERE id = ANY(%s) AND status IN ('open', 'replaying')
    ORDER BY id FOR UPDATE SKIP LOCKED
"""
READ = f"SELECT {WITHOUT_BODIES} FROM dead_letters WHERE id = ANY(%s)"
CLAIM = """
    UPDATE dead_letters d SET status = 'replaying', claim_run = %(run)s, claimed_by = %(actor)s, claimed_at = %(at)s,
        replays = c.replays, sent_sha256 = c.sha256, same_body_replays = c.same
    FROM unnest(%(ids)s::bigint[], %(replays)s::int[], %(sha256)s::bytea[], %(same)s::int[])
        AS c (id, replays, sha256, same)
    WHERE d.id = c.id
"""
# What came back before we got here was opened by the collector, and stays so.
MARK = """
    UPDATE dead_letters SET status = 'replayed', claim_run = NULL, claimed_by = NULL, claimed_at = NULL
    WHERE id = ANY(%s) AND status = 'replaying' AND claim_run = %s
"""
GIVE_BACK = """
    UPDATE dead_letters SET status = 'open', claim_run = NULL, claimed_by = NULL, claimed_at = NULL,
        replays = greatest(replays - 1, returned), same_body_replays = greatest(same_body_replays - 1, 0)
    WHERE id = ANY(%s) AND status = 'replaying' AND claim_run = %s
"""


@dataclass(frozen=True, slots=True)
class Target:
    """Where to send letters instead of the queues that they came from."""

    transport: str  # a broker's source word
    queue: str


@dataclass(slots=True)
class Run:
    """One replay's run, as this process carries it. Its lock says that it lives."""

    settings: Settings
    by: Attribution
    force: bool
    to: Target | None
    connection: Connection[Any]
    locks: RunLocks
    away: str = ""  # why the rest is not tried: what a broker said, or that its address is unknown

    @property
    def number(self) -> int:
        return self.locks.number


def claim(run: Run, ids: list[int]) -> tuple[list[Letter], list[Done]]:
    """What is to be sent now, and what became of the others."""
    connection = run.connection
    run.locks.check()
    with mapped_errors(blameless=True), connection.transaction():
        with connection.cursor(row_factory=class_row(Letter)) as cursor:
            locked = {letter.id: letter for letter in cursor.execute(LOCK, (ids,)).fetchall()}
            others = [number for number in ids if number not in locked]
            missed = {letter.id: letter for letter in cursor.execute(READ, (others,)).fetchall()} if others else {}
        done = [_unclaimable(number, missed.get(number)) for number in others]
        refusals = {letter.id: refusal(letter, run) for letter in locked.values()}
        done += [
            Done(letter.id, letter.status, refusals[letter.id]) for letter in locked.values() if refusals[letter.id]
        ]
        free = [letter for letter in locked.values() if not refusals[letter.id]]
        return _claim_all(connection, free, run), done


def refusal(letter: Letter, run: Run) -> str:
    """Why an open or claimed letter is not replayed; "" when it is."""
    ours = letter.claim_run == run.number  # by the process that carried this run before
    if letter.status == REPLAYING and not (ours or (letter.claim_run and run.locks.is_dead(letter.claim_run))):
        return f"{letter.claimed_by} is replaying it since {letter.claimed_at:%Y-%m-%d %H:%M:%S}Z"
    unchanged = letter.sent_sha256 == letter.current_sha256
    if letter.status == OPEN and unchanged and letter.same_body_replays >= UNCHANGED_MAX and not run.force:
        return f"it failed after {letter.same_body_replays} replays of this very body: edit it, discard it, or give --force"
    return ""


def _claim_all(connection: Connection[Any], letters: list[Letter], run: Run) -> list[Letter]:
    claimed = [_claimed(letter, run) for letter in letters]
    values: dict[str, object] = {
        "run": run.number,
        "actor": run.by.actor,
        "at": run.by.at,
        "ids": [letter.id for letter in claimed],
        "replays": [letter.replays for letter in claimed],
        "sha256": [letter.sent_sha256 for letter in claimed],
        "same": [letter.same_body_replays for letter in claimed],
    }
    connection.execute(CLAIM, values)
    changes = [
        NewEntry(
            before.id,
            "claimed",
            state_of(before),
            {**state_of(after), "forced": run.force, "taken_over": before.status == REPLAYING},
        )
        for before, after in zip(letters, claimed, strict=True)
    ]
    add_entries(connection, run.by, run.number, changes)
    return claimed


def _claimed(letter: Letter, run: Run) -> Letter:
    ours = replace(letter, claim_run=run.number, claimed_by=run.by.actor, claimed_at=run.by.at)
    if letter.status == REPLAYING:  # from a dead process: the same replay, with the same number
        return ours
    same = letter.same_body_replays + 1 if letter.sent_sha256 == letter.current_sha256 else 1
    return replace(
        ours,
        status=REPLAYING,
        replays=letter.replays + 1,
        sent_sha256=letter.current_sha256,
        same_body_replays=same,
    )


def _unclaimable(number: int, letter: Letter | None) -> Done:
    if letter is None:
        return Done(number, "unknown", f"there is no dead letter {number}")
    if letter.status in (OPEN, REPLAYING):
        return Done(number, letter.status, "somebody else is busy with it at this moment")
    remedy = "restore it first" if letter.status != REPLAYED else "it is open again as soon as it comes back"
    return Done(number, letter.status, f"it is {letter.status} already; {remedy}")


def mark(run: Run, claimed: list[Letter], problems: dict[int, str], refused: list[Done]) -> None:
    """Write down what was sent and what was not, in one transaction. Raises TransientError."""
    connection = run.connection
    sent = [letter.id for letter in claimed if letter.id not in problems]
    done = [Done(number, REPLAYED) for number in sent]
    failed = [Done(number, OPEN, problem) for number, problem in problems.items()]
    with mapped_errors(blameless=True), connection.transaction():
        connection.execute(MARK, (sent, run.number))
        connection.execute(GIVE_BACK, (list(problems), run.number))
        add_entries(
            connection, run.by, run.number, [_change(run, letter, problems.get(letter.id, "")) for letter in claimed]
        )
        if run.away:
            runs.settle(connection, run.number, [*done, *refused], again=failed)
        else:
            runs.settle(connection, run.number, [*done, *refused, *failed])


def _change(run: Run, letter: Letter, problem: str) -> NewEntry:
    after = replace(
        letter,
        status=OPEN if problem else REPLAYED,
        replays=max(letter.replays - 1, letter.returned) if problem else letter.replays,
    )
    where: dict[str, object] = {} if run.to is None else {"to": run.to.queue, "over": run.to.transport}
    act = "not-sent" if problem else "sent"
    return NewEntry(letter.id, act, state_of(letter), {**state_of(after), **where}, problem[:500])
