"""Carries runs on in the background of `consume` and `dlq collect`: replays whose command died or never meant to wait, and
whatever else was begun for the fleet to do (from the console, where nobody waits in a request).

A run is taken by its lock, which ends with its holder, so a carrier that died is replaced by whichever process looks next. What
is away is waited for, in one log line a change of state. It begins no run, and it touches none that a person has stopped.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any, Final

from psycopg import Connection

from incentive_fleet.brokers.registry import configured
from incentive_fleet.dead_letters.replay import Ended, carry
from incentive_fleet.dead_letters.resuming import resume
from incentive_fleet.dead_letters.run_locks import RunLocks
from incentive_fleet.dead_letters.runs import DONE, READY, Following, get_run, stop_run
from incentive_fleet.errors import BrokerUnavailable, FleetError
from incentive_fleet.ledger.connection import mapped_errors
from incentive_fleet.ledger.session import Session
from incentive_fleet.logs import told_words
from incentive_fleet.pausing import Pause
from incentive_fleet.settings import Settings
from incentive_fleet.stopping import SLICE_S, Stop

log = logging.getLogger(__name__)

EVERY_S: Final = 5.0  # between two looks for runs, each on a connection of its own: a fleet has many processes
RUNS_MAX: Final = 20  # of one look

CARRIED: Final = """
    SELECT run_id, act FROM dead_letter_runs
    WHERE status = 'ready'
      AND (act = 'replay' AND transports <@ %s::text[] OR act <> 'replay' AND parameters @> '{"detached": true}')
    ORDER BY run_id LIMIT %s
"""


@contextmanager
def carrying(settings: Settings, stop: Stop) -> Iterator[None]:
    """Carry replays on for as long as the block runs, for the brokers that the settings name. It never raises."""
    ending = stop.child()
    pause = Pause("carrying replays on", settings.pause_max_s, ending)
    thread = threading.Thread(target=_run, args=(settings, ending, pause), name="carrier", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join(ending.left_s() + SLICE_S)  # it ends between two chunks


def _run(settings: Settings, stop: Stop, pause: Pause) -> None:
    session = Session(settings.need_database_url(), application_name="incentives dlq carry")
    try:
        while not stop.wait(EVERY_S):
            try:
                carry_ready(session, settings, stop)
                pause.over()
            except FleetError as error:
                pause.wait(error)
            finally:
                session.close()
    finally:
        session.close()


def carry_ready(session: Session, settings: Settings, stop: Stop) -> None:
    """Carry on every run that is ready and that nobody else carries, one after the other.

    Raises BrokerUnavailable and TransientError: what was not sent is sent by the next call, here or elsewhere.
    """
    for run_id, act in _ready(session.connection, settings):
        try:
            following = Following(stop=stop, hands_over=True)
            carry_one = carry if act == "replay" else _carry_change
            ended = carry_one(session, settings, run_id, following)
        except BrokerUnavailable as error:
            raise BrokerUnavailable(f"run {run_id} waits: {error}") from error
        except FleetError:
            raise
        except Exception as error:  # a bug of ours: told to whoever looks at the run, and not met again at every look
            log.error("run stopped", exc_info=error, extra={"run": run_id, "error": told_words(error)})
            session.close()
            stop_run(session.connection, run_id, f"{type(error).__name__}: {error}")
            continue
        if ended is Ended.DONE:
            log.info("run carried to its end", extra={"run": run_id})
        if stop.is_set():
            return


def _carry_change(session: Session, settings: Settings, run_id: int, following: Following) -> Ended:
    """An act in the database alone. Two could carry it at once without harm; the lock spares the second the work."""
    with closing(RunLocks(session.url, run_id)) as locks:
        if not locks.held:
            return Ended.ELSEWHERE
        run = get_run(session.connection, run_id)
        if run.status == READY:
            resume(session.connection, settings, run, following)
            run = get_run(session.connection, run_id)
    return Ended.DONE if run.status == DONE else Ended.STOPPED


def _ready(connection: Connection[Any], settings: Settings) -> list[tuple[int, str]]:
    transports = [broker.source for broker in configured(settings)]
    with mapped_errors(blameless=True):
        return connection.execute(CARRIED, (transports, RUNS_MAX)).fetchall()
