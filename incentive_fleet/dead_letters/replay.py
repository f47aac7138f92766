"""Replays: claim in Postgres, send to the queue it came from, mark as sent. Each letter is sent once in effect.

A claim belongs to a run, and a run holds an advisory lock for as long as it lives (run_locks.py). So two operators never
send one letter, and the claim of a run that died (its connection ended, its lock is free) is taken over by the next
replay of that letter at once. It may then be sent twice, with one number; the ledger applies it once, and if it
fails twice it is one letter still.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from psycopg import Connection
from psycopg.rows import class_row

from incentive_fleet.brokers.budget import portions
from incentive_fleet.brokers.contract import Sender
from incentive_fleet.brokers.messages import Outgoing
from incentive_fleet.brokers.registry import by_source, parts_of
from incentive_fleet.dead_letters.audit import Attribution, add_entry, state_of
from incentive_fleet.dead_letters.changes import Done
from incentive_fleet.dead_letters.letter import OPEN, REPLAYED, REPLAYING, WITHOUT_BODIES, Letter
from incentive_fleet.dead_letters.run_locks import RunLocks
from incentive_fleet.errors import BrokerUnavailable, SettingsError
from incentive_fleet.failpoints import failpoint
from incentive_fleet.ledger.connection import mapped_errors
from incentive_fleet.ledger.session import Session
from incentive_fleet.settings import Settings

CHUNK: Final = 50  # letters claimed at a time; as many are sent at a time as the settings' budget has bytes for
SENT: Final = 4  # times a body's bytes: the database driver's two copies, ours, and what is on its way out
UNCHANGED_MAX: Final = 2  # replays of one body that failed; a further one needs `force`

LOCK = f"""
    SELECT {WITHOUT_BODIES} FROM dead_letters WHERE id = ANY(%s) AND status IN ('open', 'replaying')
    ORDER BY id FOR UPDATE SKIP LOCKED
"""
READ = f"SELECT {WITHOUT_BODIES} FROM dead_letters WHERE id = ANY(%s)"
BODIES = "SELECT id, coalesce(edited_body, body) FROM dead_letters WHERE id = ANY(%s)"
CLAIM = """
    UPDATE dead_letters SET status = 'replaying', claim_run = %(run)s, claimed_by = %(actor)s, claimed_at = %(at)s,
        replays = %(replays)s, sent_sha256 = %(sha256)s, same_body_replays = %(same)s
    WHERE id = %(id)s
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
class ReplayRequest:
    """Which letters to replay, by whom, and how."""

    ids: Sequence[int]
    by: Attribution
    force: bool = False  # also what failed twice with the very same body
    rate_per_s: float | None = None  # letters a second at the most


@dataclass(slots=True)
class Run:
    """One replay's run. Its lock says that it lives."""

    settings: Settings
    by: Attribution
    force: bool
    connection: Connection[Any]
    locks: RunLocks
    away: bool = False  # a broker is away or its address unknown, so the rest is not tried

    @property
    def number(self) -> int:
        return self.locks.number


def replay(
    session: Session,
    settings: Settings,
    request: ReplayRequest,
    *,
    on_progress: Callable[[int], None] = lambda done: None,
    stop: threading.Event | None = None,
) -> list[Done]:
    """Replay the letters, lowest id first, each once in effect, however often and by however many this is called.

    Returns what became of each that was got to. A broker that is away or whose address is not set ends it: what was not
    sent is open again and says why. `stop` ends it between two chunks. The session is closed at the end. Raises
    DatabaseUnavailable and DatabaseContention; calling it again then takes up what was claimed.
    """
    run = Run(settings, request.by, request.force, session.connection, _lock_a_run(session))
    senders: dict[str, Sender] = {}
    done: list[Done] = []
    try:
        for chunk in _paced(sorted(set(request.ids)), request.rate_per_s, stop or threading.Event()):
            done += _replay_chunk(run, chunk, senders)
            on_progress(len(done))
            if run.away:
                break
    finally:
        run.locks.close()  # which frees whatever an error left claimed
        session.close()
        for sender in senders.values():
            sender.close()
    return done


def open_sender(transport: str, settings: Settings) -> Sender:
    """A sender for letters of one broker. Raises SettingsError when its address is missing."""
    return parts_of(by_source(transport)).open_sender(settings)


def _lock_a_run(session: Session) -> RunLocks:
    with mapped_errors(blameless=True):
        row = session.connection.execute("SELECT nextval('dead_letter_runs')").fetchone()
    assert row is not None
    return RunLocks(session.url, int(row[0]))


def _paced(ids: list[int], rate_per_s: float | None, stop: threading.Event) -> Iterator[list[int]]:
    """Chunks of ids, no more of them so far than the rate allows."""
    size = CHUNK if rate_per_s is None else max(1, min(CHUNK, int(rate_per_s)))
    started = time.monotonic()
    for start in range(0, len(ids), size):
        if rate_per_s is not None:
            stop.wait(max(0.0, started + start / rate_per_s - time.monotonic()))
        if stop.is_set():
            return
        yield ids[start : start + size]


def _replay_chunk(run: Run, ids: list[int], senders: dict[str, Sender]) -> list[Done]:
    claimed, done = _claim(run, ids)
    failpoint("replay-after-claim")
    problems: dict[int, str] = {}
    for transport in sorted({letter.transport for letter in claimed}):
        of_broker = [letter for letter in claimed if letter.transport == transport]
        for portion in portions(of_broker, lambda letter: SENT * letter.size, run.settings.held_bytes_max, CHUNK):
            problems |= _send(run, transport, portion, senders)
    failpoint("replay-after-send")
    _mark(run, claimed, problems)
    for letter in claimed:
        problem = problems.get(letter.id, "")
        done[letter.id] = Done(letter.id, OPEN if problem else REPLAYED, problem)
    return [done[number] for number in ids]


def _claim(run: Run, ids: list[int]) -> tuple[list[Letter], dict[int, Done]]:
    connection = run.connection
    run.locks.check()
    with mapped_errors(blameless=True), connection.transaction():
        with connection.cursor(row_factory=class_row(Letter)) as cursor:
            locked = {letter.id: letter for letter in cursor.execute(LOCK, (ids,)).fetchall()}
            others = [number for number in ids if number not in locked]
            missed = {letter.id: letter for letter in cursor.execute(READ, (others,)).fetchall()} if others else {}
        claimed: list[Letter] = []
        done = {number: _unclaimable(number, missed.get(number)) for number in others}
        for letter in locked.values():
            refused = refusal(letter, run)
            if refused:
                done[letter.id] = Done(letter.id, letter.status, refused)
            else:
                claimed.append(_claim_one(connection, letter, run))
    return claimed, done


def refusal(letter: Letter, run: Run) -> str:
    """Why an open or claimed letter is not replayed; "" when it is."""
    if letter.status == REPLAYING and not (letter.claim_run and run.locks.is_dead(letter.claim_run)):
        return f"{letter.claimed_by} is replaying it since {letter.claimed_at:%Y-%m-%d %H:%M:%S}Z"
    unchanged = letter.sent_sha256 == letter.current_sha256
    if letter.status == OPEN and unchanged and letter.same_body_replays >= UNCHANGED_MAX and not run.force:
        return f"it failed after {letter.same_body_replays} replays of this very body: edit it, discard it, or give --force"
    return ""


def _claim_one(connection: Connection[Any], letter: Letter, run: Run) -> Letter:
    taken_over = letter.status == REPLAYING
    if taken_over:  # from a dead run: the same replay, with the same number
        after = replace(letter, claim_run=run.number, claimed_by=run.by.actor, claimed_at=run.by.at)
    else:
        same = letter.same_body_replays + 1 if letter.sent_sha256 == letter.current_sha256 else 1
        after = replace(
            letter,
            status=REPLAYING,
            claim_run=run.number,
            claimed_by=run.by.actor,
            claimed_at=run.by.at,
            replays=letter.replays + 1,
            sent_sha256=letter.current_sha256,
            same_body_replays=same,
        )
    values = {
        "run": run.number,
        "actor": run.by.actor,
        "at": run.by.at,
        "replays": after.replays,
        "sha256": after.sent_sha256,
        "same": after.same_body_replays,
        "id": letter.id,
    }
    connection.execute(CLAIM, values)
    add_entry(
        connection,
        letter.id,
        "claimed",
        run.by,
        state_of(letter),
        {**state_of(after), "forced": run.force, "taken_over": taken_over},
    )
    return after


def _unclaimable(number: int, letter: Letter | None) -> Done:
    if letter is None:
        return Done(number, "unknown", f"there is no dead letter {number}")
    if letter.status in (OPEN, REPLAYING):
        return Done(number, letter.status, "somebody else is busy with it at this moment")
    remedy = "restore it first" if letter.status != REPLAYED else "it is open again as soon as it comes back"
    return Done(number, letter.status, f"it is {letter.status} already; {remedy}")


def _send(run: Run, transport: str, letters: list[Letter], senders: dict[str, Sender]) -> dict[int, str]:
    try:
        if transport not in senders:
            senders[transport] = open_sender(transport, run.settings)
        bodies = _bodies(run, letters)
        problems = senders[transport].send([_outgoing(letter, bodies[letter.id]) for letter in letters])
    except (BrokerUnavailable, SettingsError) as error:
        run.away = True
        return {letter.id: str(error) for letter in letters}
    return {letter.id: problem for letter, problem in zip(letters, problems, strict=True) if problem}


def _bodies(run: Run, letters: list[Letter]) -> dict[int, bytes]:
    """What to send, as it was claimed: a letter that is being replayed is not edited."""
    # Binary: in the text form a body would cross the wire twice as long.
    with mapped_errors(), run.connection.cursor(binary=True) as cursor:
        return dict(cursor.execute(BODIES, ([letter.id for letter in letters],)).fetchall())


def _outgoing(letter: Letter, body: bytes) -> Outgoing:
    return Outgoing(
        source_queue=letter.source_queue,
        body=body,
        envelope=letter.envelope,
        mark=f"{letter.id}.{letter.replays}",
        type=letter.event_type if letter.edited_body is not None else None,
    )


def _mark(run: Run, claimed: list[Letter], problems: dict[int, str]) -> None:
    connection = run.connection
    sent = [letter.id for letter in claimed if letter.id not in problems]
    with mapped_errors(blameless=True), connection.transaction():
        connection.execute(MARK, (sent, run.number))
        connection.execute(GIVE_BACK, (list(problems), run.number))
        for letter in claimed:
            problem = problems.get(letter.id, "")
            by = replace(run.by, reason=problem[:500] or run.by.reason)
            after = replace(
                letter,
                status=OPEN if problem else REPLAYED,
                replays=max(letter.replays - 1, letter.returned) if problem else letter.replays,
            )
            add_entry(connection, letter.id, "not-sent" if problem else "sent", by, state_of(letter), state_of(after))
