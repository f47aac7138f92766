"""Runs the relay until it is stopped or idle: a thread and a connection for each destination, so that none waits for
another. It never gives an outcome up: what cannot be published now keeps its mark.

A destination is *running* or *paused*. It pauses while its broker or the database is away, backing off with jitter, and
each change of state is one log line. An outcome that the broker refuses is set aside for a while, so that those behind
it go on.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field

from incentive_fleet.brokers.publishing import Publisher
from incentive_fleet.errors import BrokerUnavailable, FleetError, Refused, TransientError
from incentive_fleet.ledger.connection import connect, longest_pause_s
from incentive_fleet.producers.relay import Connection, Refusal, any_left, relay_round, unpublished, wanted

BATCH_SIZE = 500
POLL_S = 0.2  # between two looks at an empty outbox
FIRST_PAUSE_S = 0.5
PAUSE_MAX_S = 30.0
SET_ASIDE_S = 300.0  # before a refused outcome is tried again: somebody may have bound a queue or raised a limit
SET_ASIDE_MAX = 1_000  # more than that, and it is the destination that is wrong: pause

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RelaySummary:
    """What a run of the relay did, by destination."""

    published: Mapping[str, int]
    refused: Mapping[str, int]  # refusals, repeated ones included
    unpublished: Mapping[str, int]  # left at the end, destinations that this relay does not serve included


@dataclass(slots=True)
class _Lane:
    """One destination's work, owned by one thread."""

    destination: str
    publisher: Publisher
    published: int = 0
    refused: int = 0
    paused_for: str = ""  # class of the error, "" while running
    pauses: int = 0
    set_aside: dict[int, float] = field(default_factory=dict)  # outbox id -> when to try again (monotonic)


@dataclass(frozen=True, slots=True)
class _Run:
    database_url: str
    batch_size: int
    until_idle_s: float | None
    pause_max_s: float
    stop: threading.Event


def run_relay(
    database_url: str,
    publishers: Mapping[str, Publisher],
    *,
    stop: threading.Event,
    batch_size: int = BATCH_SIZE,
    until_idle_s: float | None = None,
    pause_max_s: float = PAUSE_MAX_S,
) -> RelaySummary:
    """Publish outcomes to each destination until `stop` is set, or until nothing was left for `until_idle_s` seconds.

    Publishers of destinations that the ledger neither marks nor has marked outcomes for are left alone. Outcomes that a
    broker refused do not keep a run from being idle; the summary tells them. Raises SettingsError when a destination or
    the schema is missing at the start, and DatabaseUnavailable when the summary cannot be read at the end. The caller
    closes the publishers, each of which must be used for nothing else meanwhile.
    """
    publishers = _needed(database_url, publishers)
    for publisher in publishers.values():
        _check(publisher)
    run = _Run(database_url, batch_size, until_idle_s, pause_max_s, stop)
    lanes = [_Lane(destination, publisher) for destination, publisher in publishers.items()]
    with ThreadPoolExecutor(max(1, len(lanes)), thread_name_prefix="relay") as threads:
        for future in [threads.submit(_work, run, lane) for lane in lanes]:
            future.result()
    with closing(connect(database_url, application_name="incentives-relay")) as connection:
        left = unpublished(connection)
    for destination in sorted(left.keys() - publishers.keys()):
        log.warning(
            "%d outcomes wait for %s, which this relay does not serve",
            left[destination],
            destination,
            extra={"destination": destination, "unpublished": left[destination]},
        )
    return RelaySummary(
        {lane.destination: lane.published for lane in lanes}, {lane.destination: lane.refused for lane in lanes}, left
    )


def _needed(database_url: str, publishers: Mapping[str, Publisher]) -> Mapping[str, Publisher]:
    try:
        with closing(connect(database_url, application_name="incentives-relay")) as connection:
            needed = wanted(connection) | unpublished(connection).keys()
    except TransientError:
        log.debug("the database is away at the start; every destination will pause", exc_info=True)
        return publishers
    return {destination: publisher for destination, publisher in publishers.items() if destination in needed}


def _check(publisher: Publisher) -> None:
    try:
        publisher.check()
    except BrokerUnavailable:
        log.debug("a broker is away at the start; its destination will pause", exc_info=True)


def _work(run: _Run, lane: _Lane) -> None:
    connection: Connection | None = None
    idle_since = time.monotonic()
    try:
        while not run.stop.is_set():
            try:
                if connection is None or connection.closed:
                    connection = connect(run.database_url, application_name=f"incentives-relay-{lane.destination}")
                busy = _round(run, lane, connection)
            except FleetError as error:
                _pause(run, lane, error)
                if isinstance(error, Refused) and run.until_idle_s is not None:
                    return  # waiting for people to act is not what a run with an end is for
                idle_since = time.monotonic()
                continue
            _resume(lane)
            if busy:
                idle_since = time.monotonic()
            elif run.until_idle_s is not None and time.monotonic() - idle_since >= run.until_idle_s:
                return
            else:
                run.stop.wait(POLL_S)
    except BaseException:
        run.stop.set()  # a bug in one lane ends the run, rather than leave half a relay behind
        raise
    finally:
        if connection is not None:
            connection.close()


def _round(run: _Run, lane: _Lane, connection: Connection) -> bool:
    """One round; True while there is, or may be, more to do at once."""
    now = time.monotonic()
    lane.set_aside = {outbox_id: again for outbox_id, again in lane.set_aside.items() if again > now}
    done = relay_round(connection, lane.destination, lane.publisher, run.batch_size, lane.set_aside)
    lane.published += done.published
    if done.refusals:
        _set_aside(lane, done.refusals)
    if done.published or done.refusals:
        return True
    if any_left(connection, lane.destination, lane.set_aside):
        run.stop.wait(POLL_S)  # another relay holds them
        return True
    return False


def _set_aside(lane: _Lane, refusals: tuple[Refusal, ...]) -> None:
    again = time.monotonic() + SET_ASIDE_S
    lane.refused += len(refusals)
    lane.set_aside.update((refusal.outbox_id, again) for refusal in refusals)
    for reason, count in Counter(refusal.failure.reason for refusal in refusals).items():
        first = next(refusal for refusal in refusals if refusal.failure.reason == reason)
        log.error(
            "%s refused %d outcomes (%s), the first is outbox row %d: %s; they keep their marks",
            lane.destination,
            count,
            reason,
            first.outbox_id,
            first.failure.detail,
            extra={"destination": lane.destination, "reason": reason, "count": count, "outbox_id": first.outbox_id},
        )
    if len(lane.set_aside) > SET_ASIDE_MAX:
        lane.set_aside.clear()
        raise Refused("refuses-all", f"{lane.destination} refused more than {SET_ASIDE_MAX} outcomes")


def _pause(run: _Run, lane: _Lane, error: FleetError) -> None:
    kind = type(error).__name__
    if lane.paused_for != kind:
        log.warning(
            "relay to %s paused: %s",
            lane.destination,
            error,
            extra={"destination": lane.destination, "state": "paused", "error": kind},
        )
    lane.paused_for = kind
    lane.pauses += 1
    delay_s = min(longest_pause_s(error, run.pause_max_s), FIRST_PAUSE_S * 2 ** min(lane.pauses - 1, 16))
    run.stop.wait(delay_s * random.uniform(0.5, 1))


def _resume(lane: _Lane) -> None:
    if lane.paused_for:
        log.info(
            "relay to %s running again after %d pauses",
            lane.destination,
            lane.pauses,
            extra={"destination": lane.destination, "state": "running"},
        )
    lane.paused_for, lane.pauses = "", 0
