"""Replays: claim in Postgres, send to the queue it came from, mark as sent. Each letter is sent once in effect.

A claim belongs to a run, and a run holds an advisory lock for as long as it lives (run_locks.py). So two operators never
send one letter, and the claim of a run that died (its connection ended, its lock is free) is taken over by the next
replay of that letter at once. It may then be sent twice, with one number; the ledger applies it once, and if it
fails twice it is one letter still.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Final

from psycopg import Connection

from incentive_fleet.brokers.budget import portions
from incentive_fleet.brokers.contract import Sender
from incentive_fleet.brokers.messages import Outgoing
from incentive_fleet.brokers.registry import by_source, parts_of
from incentive_fleet.dead_letters import runs
from incentive_fleet.dead_letters.audit import Attribution
from incentive_fleet.dead_letters.claims import Run, Target, claim, mark
from incentive_fleet.dead_letters.letter import Letter
from incentive_fleet.dead_letters.run_locks import RunLocks
from incentive_fleet.dead_letters.runs import UNWATCHED, Done, Following, RunRecord
from incentive_fleet.errors import BrokerUnavailable, SettingsError
from incentive_fleet.failpoints import failpoint
from incentive_fleet.ledger.connection import mapped_errors
from incentive_fleet.ledger.session import Session
from incentive_fleet.settings import Settings
from incentive_fleet.stopping import Stop

CHUNK: Final = 50  # letters claimed at a time; as many are sent at a time as the settings' budget has bytes for
SENT: Final = 4  # times a body's bytes: the database driver's two copies, ours, and what is on its way out
WATCH_S: Final = 0.5  # between two looks at a run that another process carries

BODIES = "SELECT id, coalesce(edited_body, body) FROM dead_letters WHERE id = ANY(%s)"


@dataclass(frozen=True, slots=True)
class ReplayRequest:
    """Which letters to replay, by whom, and how."""

    ids: Sequence[int]
    by: Attribution
    force: bool = False  # also what failed twice with the very same body
    rate_per_s: float | None = None  # letters a second at the most
    to: Target | None = None


class Ended(Enum):
    """Why a process carries a run on no more."""

    DONE = "done"  # every letter was got to
    STOPPED = "stopped"  # somebody stopped the run, or this process
    ELSEWHERE = "elsewhere"  # another process carries it


def replay(
    session: Session,
    settings: Settings,
    request: ReplayRequest,
    following: Following = UNWATCHED,
) -> list[Done]:
    """Replay the letters, lowest id first, each once in effect, however often and by however many this is called.

    Returns what became of each that was got to. A broker that is away or whose address is not set stops the run: what was
    not sent is open again and says why. `stop` ends it between two chunks. A process of the fleet that was faster carries the
    run, and is waited for. The session is closed at the end. Raises DatabaseUnavailable and DatabaseContention; the run goes on
    in the fleet then, or by calling this again, which takes up what was claimed.
    """
    try:
        run_id = begin_replay(session.connection, request)
        following.on_begin(run_id)
        carry_to_the_end(session, settings, run_id, following)
        return runs.outcomes(session.connection, run_id)
    finally:
        session.close()


def begin_replay(connection: Connection[Any], request: ReplayRequest) -> int:
    """Write the run down, for any process to carry on; its number. Raises TransientError."""
    parameters: dict[str, object] = {
        "force": request.force,
        "rate_per_s": request.rate_per_s,
        "to": None if request.to is None else asdict(request.to),
    }
    transports = None if request.to is None else [request.to.transport]
    return runs.begin(connection, "replay", request.ids, request.by, parameters, transports=transports)


def carry_to_the_end(
    session: Session,
    settings: Settings,
    run_id: int,
    following: Following = UNWATCHED,
) -> None:
    """Carry a run on, or wait for the process that does. One that meets a broker away is stopped. Raises TransientError."""
    following = replace(following, stop=following.stop or Stop())
    assert following.stop is not None
    try:
        while carry(session, settings, run_id, following) is Ended.ELSEWHERE:
            run = runs.get_run(session.connection, run_id)
            following.on_progress(run.done + run.refused)
            if run.status != runs.READY or following.stop.wait(WATCH_S):
                return
    except BrokerUnavailable as error:
        runs.stop_run(session.connection, run_id, f"a broker does not take it: {error}")


def carry(session: Session, settings: Settings, run_id: int, following: Following) -> Ended:
    """Send what the run has not got to, for as long as nobody stops it, this process lives and the brokers are there.

    Nobody else carries it meanwhile: this process holds its lock, which is free as soon as the process is dead. Raises
    BrokerUnavailable where a broker is away, refuses the login or has no address here, and TransientError: whoever carries it on
    then takes up what was claimed.
    """
    record = runs.get_run(session.connection, run_id)
    if record.status != runs.READY:
        return Ended.STOPPED
    locks = RunLocks(session.url, run_id)
    senders: dict[str, Sender] = {}
    try:
        if not locks.held:
            return Ended.ELSEWHERE
        to = record.parameters["to"]
        run = Run(
            settings,
            record.by,
            bool(record.parameters["force"]),
            None if to is None else Target(**to),
            session.connection,
            locks,
        )
        return _send_all(run, record, senders, following)
    finally:
        locks.close()  # which frees whatever an error left claimed
        for sender in senders.values():
            sender.close()


def open_sender(transport: str, settings: Settings) -> Sender:
    """A sender for letters of one broker. Raises SettingsError when its address is missing."""
    return parts_of(by_source(transport)).open_sender(settings)


def _send_all(
    run: Run,
    record: RunRecord,
    senders: dict[str, Sender],
    following: Following,
) -> Ended:
    """Chunk after chunk, no more letters so far than the rate allows."""
    rate, stop = record.parameters["rate_per_s"], following.stop or Stop()
    size = CHUNK if rate is None else max(1, min(CHUNK, int(rate)))
    started, sent, before, last = time.monotonic(), 0, record.done + record.refused, 0
    while ids := runs.next_ids(run.connection, run.number, last, size):
        if rate is not None:
            stop.wait(max(0.0, started + sent / rate - time.monotonic()))
        if stop.is_set() or runs.get_run(run.connection, run.number).status != runs.READY:
            return Ended.STOPPED
        run.by = replace(run.by, at=datetime.now(UTC))
        _replay_chunk(run, ids, senders)
        sent, last = sent + len(ids), ids[-1]
        following.on_progress(before + sent)
        if run.away:
            raise BrokerUnavailable(run.away)
    runs.finish(run.connection, run.number, datetime.now(UTC))
    return Ended.DONE


def _replay_chunk(run: Run, ids: list[int], senders: dict[str, Sender]) -> None:
    claimed, refused = claim(run, ids)
    failpoint("replay-after-claim")
    problems: dict[int, str] = {}
    for transport in sorted({_transport(run, letter) for letter in claimed}):
        of_broker = [letter for letter in claimed if _transport(run, letter) == transport]
        for portion in portions(of_broker, lambda letter: SENT * letter.size, run.settings.held_bytes_max, CHUNK):
            problems |= _send(run, transport, portion, senders)
    failpoint("replay-after-send")
    mark(run, claimed, problems, refused)


def _transport(run: Run, letter: Letter) -> str:
    return letter.transport if run.to is None else run.to.transport


def _send(run: Run, transport: str, letters: list[Letter], senders: dict[str, Sender]) -> dict[int, str]:
    try:
        if transport not in senders:
            senders[transport] = open_sender(transport, run.settings)
        bodies = _bodies(run, letters)
        problems = senders[transport].send([_outgoing(run, letter, bodies[letter.id]) for letter in letters])
    except (BrokerUnavailable, SettingsError) as error:
        run.away = str(error)
        return {letter.id: str(error) for letter in letters}
    return {letter.id: problem for letter, problem in zip(letters, problems, strict=True) if problem}


def _bodies(run: Run, letters: list[Letter]) -> dict[int, bytes]:
    """What to send, as it was claimed: a letter that is being replayed is not edited."""
    # Binary: in the text form a body would cross the wire twice as long.
    with mapped_errors(), run.connection.cursor(binary=True) as cursor:
        return dict(cursor.execute(BODIES, ([letter.id for letter in letters],)).fetchall())


def _outgoing(run: Run, letter: Letter, body: bytes) -> Outgoing:
    """To another broker go the body and its type alone: an envelope is its own broker's."""
    foreign = run.to is not None and run.to.transport != letter.transport
    return Outgoing(
        source_queue=letter.source_queue if run.to is None else run.to.queue,
        body=body,
        envelope={} if foreign else letter.envelope,
        mark=f"{letter.id}.{letter.replays}",
        type=letter.event_type if letter.edited or foreign else None,
    )
