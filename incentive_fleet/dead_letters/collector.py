"""Empties the brokers' dead-letter queues into Postgres: receive, COMMIT, then remove. Runs until told to stop, or idle.

It never removes what was not committed, and it decides nothing about a letter (keeping.py does). What is away is waited
for, in one log line a change of state.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Final

from incentive_fleet.brokers.contract import Broker, DeadLetterQueues
from incentive_fleet.brokers.message_headers import REASON
from incentive_fleet.brokers.messages import Arrival
from incentive_fleet.brokers.registry import parts_of
from incentive_fleet.consumers.admission import Admission, admission_of
from incentive_fleet.consumers.garbage import return_large_blocks
from incentive_fleet.dead_letters.arrivals import explain
from incentive_fleet.dead_letters.keeping import Seen, keep, probe_keeping
from incentive_fleet.dead_letters.letter import search_fields_of
from incentive_fleet.errors import BrokerUnavailable, FleetError, TransientError
from incentive_fleet.failpoints import failpoint
from incentive_fleet.ledger.session import Session
from incentive_fleet.ledger.splitting import Probe, Trial
from incentive_fleet.logs import told_words
from incentive_fleet.pausing import Pause, Pauses
from incentive_fleet.settings import Settings
from incentive_fleet.stopping import SLICE_S, DrainCut, Stop, join

log = logging.getLogger(__name__)

BATCH: Final = 100  # letters in one transaction
REASON_CHARACTERS: Final = 200  # longer than every reason of ours


def run_collector(
    brokers: Sequence[Broker],
    settings: Settings,
    stop: Stop,
    until_idle_s: float | None,
    counts: Counter[str] | None = None,
    pauses: Pauses | None = None,
) -> Counter[str]:
    """Collect from each broker in a thread of its own until `stop`, or until nothing came for so many seconds.

    Idempotent: a crash anywhere repeats and never loses. Returns how many copies were new, returned, again or same;
    `counts` is added to while it runs, and `pauses` tells who waits. A part that is away is waited for,
    with `until_idle_s` too. Raises SettingsError at once, DrainCut when a part lets no thread go after `stop`, and what is
    neither transient nor foreseen.
    """
    total: Counter[str] = Counter() if counts is None else counts
    pauses = Pauses() if pauses is None else pauses
    queues = [parts_of(broker).open_dead_letters(settings, stop) for broker in brokers]
    failures: list[BaseException] = []
    return_large_blocks()

    def run(broker: Broker, of: DeadLetterQueues) -> None:
        about = {"consumer": f"collector-{broker.source}"}
        pause = pauses.add(Pause("collecting", settings.pause_max_s, stop, about))
        try:
            _collect(broker, of, settings, pause, until_idle_s, total)
        except BaseException as error:
            log.critical("collector failed", exc_info=error, extra={"source": broker.source})
            failures.append(error)

    threads = [
        threading.Thread(target=run, args=pair, name=f"collector-{pair[0].source}", daemon=True)
        for pair in zip(brokers, queues, strict=True)
    ]
    for thread in threads:
        thread.start()
    whole = join(threads, stop)
    if failures:
        raise failures[0]
    if not whole:
        raise DrainCut(
            f"The collector had not ended {stop.drain_s:g} s after it was told to; what it held comes again."
        )
    return total


@contextmanager
def collecting(
    brokers: Sequence[Broker], settings: Settings, stop: Stop, *, drain_s: float | None, pauses: Pauses | None = None
) -> Iterator[Counter[str]]:
    """Collect in the background for as long as the block runs; gives the counts, which grow meanwhile, as `pauses` does.

    At the end, or once `stop` is set, what is under way is finished. With `drain_s` the queues are emptied first: until
    nothing came for so many seconds, or `stop`. An error of the collector is raised at the end of the block.
    """
    ending, counts = stop.child(), Counter[str]()
    failures: list[BaseException] = []

    def run() -> None:
        try:
            run_collector(brokers, settings, ending, None, counts, pauses)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run, name="collector", daemon=True)
    thread.start()
    try:
        yield counts
    finally:
        ending.set()
        thread.join(ending.left_s() + SLICE_S)  # it ends by its own bound
    if failures:
        raise failures[0]
    if drain_s is not None and not stop.is_set():
        run_collector(brokers, settings, stop, drain_s, counts, pauses)


def _collect(
    broker: Broker,
    queues: DeadLetterQueues,
    settings: Settings,
    pause: Pause,
    until_idle_s: float | None,
    counts: Counter[str],
) -> None:
    name = f"incentives dlq collect {broker.source}"
    session = Session(settings.need_database_url(), application_name=name, tally=pause.tally)
    keeper = _Keeper(session, broker, admission_of(settings))
    last_seen = time.monotonic()
    try:
        while not pause.stop.is_set():
            try:
                arrivals = queues.receive(BATCH, settings.wait_s)
                idle = not arrivals and until_idle_s is not None and time.monotonic() - last_seen >= until_idle_s
                if idle and queues.empty():
                    return
            except BrokerUnavailable as error:
                pause.wait(error)
                last_seen = time.monotonic()
                continue
            if arrivals:
                failpoint("collector-after-receive")
                _store(queues, keeper, arrivals, pause, counts)
                queues.let_go(arrivals)
                arrivals = []  # else the bodies would stay in memory until the next have come
                last_seen = time.monotonic()
            pause.over()
    finally:
        queues.close()
        session.close()


@dataclass(slots=True)
class _Keeper:
    """Where one thread keeps copies: its session, and what it has told already."""

    session: Session
    broker: Broker
    admission: Admission | None = None
    probe: Probe = field(init=False)

    def __post_init__(self) -> None:
        self.probe = Probe(partial(probe_keeping, self.session, self.broker.source), tally=self.session.tally)

    def keep(self, arrivals: list[Arrival], kept: list[tuple[Arrival, Seen]]) -> None:
        """Add to `kept` what is committed: all, those that meet a bug of ours without their headers, or, if even that
        fails, not at all: they stay with the broker.

        Raises TransientError, then with a part of them kept, and when a made-up letter cannot be kept either.
        """

        def keep_some(some: Sequence[Arrival]) -> None:
            seen = keep(self.session.connection, some, datetime.now(UTC), self.admission)
            kept.extend(zip(some, seen, strict=True))

        trial: Trial[Arrival] = Trial(self.probe, partial(self._keep_bare, kept))
        trial.split(arrivals, keep_some)
        trial.judge()

    def _keep_bare(self, kept: list[tuple[Arrival, Seen]], culprits: Sequence[tuple[Arrival, Exception]]) -> None:
        """What matters is a body and why it is there: each is kept without what else came with it."""
        bared: list[tuple[Arrival, Exception]] = []
        left: list[tuple[Arrival, Exception]] = []
        for arrival, error in culprits:
            try:
                kept += [(arrival, seen) for seen in keep(self.session.connection, [_bare(arrival)], datetime.now(UTC))]
                bared.append((arrival, error))
            except FleetError:
                raise
            except Exception as second:
                left.append((arrival, second))
        self._tell("dead letter is kept without its headers", bared)
        self._tell("dead letter cannot be kept and stays where it is", left)

    def _tell(self, what: str, culprits: Sequence[tuple[Arrival, Exception]]) -> None:
        if not culprits:
            return
        arrival, error = culprits[0]
        extra: dict[str, object] = {
            "queue": arrival.dead_letter_queue,
            "copy": arrival.name,
            "copies": len(culprits),
            "error": told_words(error),
        }
        log.error(what, extra=extra | self.probe.traces.told(error))


def _bare(arrival: Arrival) -> Arrival:
    reason = {name: text[:REASON_CHARACTERS] for name, text in arrival.headers.items() if name == REASON}
    return replace(arrival, headers=reason, envelope={})


def _tell_new(keeper: _Keeper, kept: Sequence[tuple[Arrival, Seen]]) -> None:
    """Each dead letter once, with its order and its reason, and nothing else that its body says."""
    for arrival, seen in kept:
        if seen in (Seen.NEW, Seen.RETURNED):
            extra = {
                "queue": arrival.source_queue,
                "reason": explain(arrival, keeper.admission).reason[:REASON_CHARACTERS],
                "order_id": search_fields_of(arrival.body).order_id,
            }
            log.warning("dead letter" if seen is Seen.NEW else "dead letter returned", extra=extra)


def _store(
    queues: DeadLetterQueues, keeper: _Keeper, arrivals: list[Arrival], pause: Pause, counts: Counter[str]
) -> None:
    """Keep them, waiting for the database for as long as it takes, then remove them from the broker."""
    while arrivals and not pause.stop.is_set():
        kept: list[tuple[Arrival, Seen]] = []
        fault: TransientError | None = None
        try:
            keeper.keep(arrivals, kept)
        except TransientError as error:
            keeper.session.close()
            fault = error
        failpoint("collector-after-commit")
        counts.update(seen.value for _, seen in kept)
        _tell_new(keeper, kept)
        for seen, copies in Counter(seen for _, seen in kept).items():
            pause.tally.add("incentives_collected_total", seen.value, by=copies)
        try:
            if kept:
                queues.remove([arrival for arrival, _ in kept])
        except BrokerUnavailable as error:
            pause.wait(error)  # the copies come again and are the same then
            return
        if fault is None:
            return
        pause.wait(fault)
        done = {id(arrival) for arrival, _ in kept}
        arrivals = [arrival for arrival in arrivals if id(arrival) not in done]
