"""Runs the relay until it is stopped or idle: a thread and a connection for each destination, so that none waits for
another. It never gives an outcome up: what cannot be published now keeps its mark.

A destination is *running* or *paused*. It pauses while its broker or the database is away, backing off with jitter, and
each change of state is one log line. An outcome that the broker refuses is set aside for a while, so that those behind
it go on.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field

from incentive_fleet.brokers.contract import Publisher
from incentive_fleet.errors import BrokerUnavailable, FleetError, Refused, StatementTimedOut, TransientError
from incentive_fleet.ledger.connection import connect, require_leading
from incentive_fleet.pausing import Pause, Pauses
from incentive_fleet.producers.relay import Connection, RejectedOutcome, any_left, relay_round, unpublished, wanted
from incentive_fleet.stopping import DrainCut, Stop, join

BATCH_SIZE = 500
POLL_S = 0.2  # between two looks at an empty outbox
PAUSE_MAX_S = 30.0
SET_ASIDE_S = 300.0  # before a refused outcome is tried again: somebody may have bound a queue or raised a limit
SET_ASIDE_MAX = 1_000  # more than that, and it is the destination that is wrong: pause

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RelaySummary:
    """What a run of the relay did, by destination."""

    published: Mapping[str, int]
    refused: Mapping[str, int]  # refusals, repeated ones included
    # Left at the end, destinations that this relay does not serve included; None when the database was away then.
    unpublished: Mapping[str, int] | None


@dataclass(slots=True)
class _Lane:
    """One destination's work, owned by one thread."""

    destination: str
    publisher: Publisher
    pause: Pause
    published: int = 0
    refused: int = 0
    set_aside: dict[int, float] = field(default_factory=dict)  # outbox id -> when to try again (monotonic)


@dataclass(frozen=True, slots=True)
class RelayPace:
    """How much a relay publishes at a time, how long it waits, and when it ends."""

    batch_size: int = BATCH_SIZE
    until_idle_s: float | None = None  # ends after so many seconds in which nothing was left; None: when it is told to
    pause_max_s: float = PAUSE_MAX_S  # between two tries of a part that is away
    poll_s: float = POLL_S  # between two looks at an empty outbox
    set_aside_max: int = SET_ASIDE_MAX  # refused outcomes of one destination; beyond, the relay gives up


PACE = RelayPace()


@dataclass(frozen=True, slots=True)
class _Run:
    database_url: str
    pace: RelayPace
    stop: Stop
    counts: Counter[str]
    pauses: Pauses


def run_relay(
    database_url: str,
    publishers: Mapping[str, Publisher],
    *,
    stop: Stop,
    pace: RelayPace = PACE,
    counts: Counter[str] | None = None,
    pauses: Pauses | None = None,
) -> RelaySummary:
    """Publish outcomes to each destination until `stop` is set, or until nothing was left for `pace.until_idle_s` seconds.

    Publishers of destinations that the ledger neither marks nor has marked outcomes for are left alone. Outcomes that a
    broker refused do not keep a run from being idle; the summary tells them. A part that is away is waited for, with
    `until_idle_s` too. `counts` is told meanwhile how many each destination took, `pauses` which of them wait. Raises
    SettingsError when a destination is missing at the start, DatabaseUnavailable or DatabaseUnfit when the summary of a run
    that was not stopped cannot be read at the end, and DrainCut when a part lets no thread go after `stop`. The caller
    closes the publishers, each of which must be used for nothing else meanwhile.
    """
    publishers = _needed(database_url, publishers)
    for publisher in publishers.values():
        _check(publisher)
    counts, pauses = Counter() if counts is None else counts, Pauses() if pauses is None else pauses
    run = _Run(database_url, pace, stop, counts, pauses)
    lanes = [_Lane(name, publisher, _pause_of(name, run)) for name, publisher in publishers.items()]
    _run_all(run, lanes)
    left = _left(run)
    for destination, count in sorted((left or {}).items()):
        if destination not in publishers:
            log.warning(
                "%d outcomes wait for %s, which this relay does not serve",
                count,
                destination,
                extra={"destination": destination, "unpublished": count},
            )
    return RelaySummary(
        {lane.destination: lane.published for lane in lanes}, {lane.destination: lane.refused for lane in lanes}, left
    )


def _run_all(run: _Run, lanes: list[_Lane]) -> None:
    failures: list[BaseException] = []

    def work(lane: _Lane) -> None:
        try:
            _work(run, lane)
        except BaseException as error:
            run.stop.set()  # a bug in one lane ends the run, rather than leave half a relay behind
            failures.append(error)

    threads = [
        threading.Thread(target=work, args=(lane,), name=f"relay-{lane.destination}", daemon=True) for lane in lanes
    ]
    for thread in threads:
        thread.start()
    whole = join(threads, run.stop)
    if failures:
        raise failures[0]
    if not whole:
        raise DrainCut(
            f"The relay had not ended {run.stop.drain_s:g} s after it was told to; what is unconfirmed is published again."
        )


def _left(run: _Run) -> dict[str, int] | None:
    try:
        with closing(connect(run.database_url, application_name="incentives-relay")) as connection:
            return unpublished(connection)
    except TransientError:
        if run.stop.is_set():
            return None
        raise


def _pause_of(destination: str, run: _Run) -> Pause:
    pause = Pause(f"relay to {destination}", run.pace.pause_max_s, run.stop, {"destination": destination})
    return run.pauses.add(pause)


def _needed(database_url: str, publishers: Mapping[str, Publisher]) -> Mapping[str, Publisher]:
    try:
        with closing(connect(database_url, application_name="incentives-relay")) as connection:
            needed = wanted(connection) | unpublished(connection).keys()
    except (TransientError, StatementTimedOut):
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
                if connection is not None and not isinstance(error, BrokerUnavailable | Refused):
                    connection.close()  # after a failover it may lead to a standby, which stays open and takes nothing
                lane.pause.wait(error)
                if isinstance(error, Refused) and run.pace.until_idle_s is not None:
                    return  # waiting for people to act is not what a run with an end is for
                idle_since = time.monotonic()
                continue
            lane.pause.over()
            if busy:
                idle_since = time.monotonic()
            elif run.pace.until_idle_s is not None and time.monotonic() - idle_since >= run.pace.until_idle_s:
                return
            else:
                run.stop.wait(run.pace.poll_s)
    finally:
        if connection is not None:
            connection.close()


def _round(run: _Run, lane: _Lane, connection: Connection) -> bool:
    """One round; True while there is, or may be, more to do at once."""
    now = time.monotonic()
    lane.set_aside = {outbox_id: again for outbox_id, again in lane.set_aside.items() if again > now}
    require_leading(connection)  # one that was replaced has no new outcomes, for ever
    done = relay_round(connection, lane.destination, lane.publisher, run.pace.batch_size, lane.set_aside)
    lane.published += done.published
    run.counts[lane.destination] = lane.published
    lane.pause.tally.add("incentives_relay_published_total", lane.destination, by=done.published)
    if done.rejected:
        _set_aside(lane, done.rejected, run.pace.set_aside_max)
    if done.published or done.rejected:
        return True
    if any_left(connection, lane.destination, lane.set_aside):
        run.stop.wait(run.pace.poll_s)  # another relay holds them
        return True
    return False


def _set_aside(lane: _Lane, rejected: tuple[RejectedOutcome, ...], at_most: int) -> None:
    again = time.monotonic() + SET_ASIDE_S
    lane.refused += len(rejected)
    lane.set_aside.update((one.outbox_id, again) for one in rejected)
    for reason, count in Counter(one.rejection.reason for one in rejected).items():
        first = next(one for one in rejected if one.rejection.reason == reason)
        log.error(
            "%s refused %d outcomes (%s), the first is outbox row %d: %s; they keep their marks",
            lane.destination,
            count,
            reason,
            first.outbox_id,
            first.rejection.detail,
            extra={"destination": lane.destination, "reason": reason, "count": count, "outbox_id": first.outbox_id},
        )
    if len(lane.set_aside) > at_most:
        lane.set_aside.clear()
        raise Refused("refuses-all", f"{lane.destination} refused more than {at_most} outcomes")
