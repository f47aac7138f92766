"""Empties the brokers' dead-letter queues into Postgres: receive, COMMIT, then remove. Runs until told to stop, or idle.

It never removes what was not committed, and it decides nothing about a letter (keeping.py does). What is away is waited
for, in one log line a change of state.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Final

from incentive_fleet.brokers.dead_letters import Arrival, DeadLetterQueues
from incentive_fleet.consumers.worker import Source
from incentive_fleet.dead_letters.keeping import Seen, keep
from incentive_fleet.errors import BrokerUnavailable, FleetError, TransientError
from incentive_fleet.faults import reach
from incentive_fleet.ledger.session import Session
from incentive_fleet.pausing import Pause
from incentive_fleet.settings import Settings
from incentive_fleet.stopping import SLICE_S, DrainCut, Stop, join

log = logging.getLogger(__name__)

BATCH: Final = 100  # letters in one transaction


def run_collector(
    sources: Sequence[Source],
    settings: Settings,
    stop: Stop,
    until_idle_s: float | None,
    counts: Counter[str] | None = None,
) -> Counter[str]:
    """Collect from each source in a thread of its own until `stop`, or until nothing came for so many seconds.

    Idempotent: a crash anywhere repeats and never loses. Returns how many copies were new, returned, again or same;
    `counts` is added to while it runs. A part that is away is waited for, with `until_idle_s` too. Raises SettingsError at
    once, DrainCut when a part lets no thread go after `stop`, and what is neither transient nor foreseen.
    """
    total: Counter[str] = Counter() if counts is None else counts
    queues = [open_queues(source, settings, stop) for source in sources]
    failures: list[BaseException] = []

    def run(source: Source, of: DeadLetterQueues) -> None:
        try:
            _collect(source, of, settings, stop, until_idle_s, total)
        except BaseException as error:
            log.critical("collector failed", exc_info=error, extra={"source": source})
            failures.append(error)

    threads = [
        threading.Thread(target=run, args=pair, name=f"collector-{pair[0]}", daemon=True)
        for pair in zip(sources, queues, strict=True)
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
    sources: Sequence[Source], settings: Settings, stop: Stop, *, drain_s: float | None
) -> Iterator[Counter[str]]:
    """Collect in the background for as long as the block runs; gives the counts, which grow meanwhile.

    At the end, or once `stop` is set, what is under way is finished. With `drain_s` the queues are emptied first: until
    nothing came for so many seconds, or `stop`. An error of the collector is raised at the end of the block.
    """
    ending, counts = stop.child(), Counter[str]()
    failures: list[BaseException] = []

    def run() -> None:
        try:
            run_collector(sources, settings, ending, None, counts)
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
        run_collector(sources, settings, stop, drain_s, counts)


def open_queues(source: Source, settings: Settings, stop: Stop) -> DeadLetterQueues:
    """The dead-letter queues of one broker, connected on first use. Raises SettingsError when its address is missing."""
    if source == "sqs":
        from incentive_fleet.brokers.aws.dead_letters import SqsDeadLetters

        return SqsDeadLetters(settings, stop)
    from incentive_fleet.brokers.rabbitmq.dead_letters import RabbitmqDeadLetters

    return RabbitmqDeadLetters(settings, stop)


def _collect(
    source: Source,
    queues: DeadLetterQueues,
    settings: Settings,
    stop: Stop,
    until_idle_s: float | None,
    counts: Counter[str],
    clock: Callable[[], float] = time.monotonic,
) -> None:
    session = Session(settings.need_database_url(), application_name=f"incentives dlq collect {source}")
    pause = Pause("consuming", settings.pause_max_s, stop, {"consumer": f"collector-{source}"})
    last_seen = clock()
    try:
        while not stop.is_set():
            try:
                arrivals = queues.receive(BATCH, settings.wait_s)
                idle = not arrivals and until_idle_s is not None and clock() - last_seen >= until_idle_s
                if idle and queues.empty():
                    return
            except BrokerUnavailable as error:
                pause.wait(error)
                last_seen = clock()
                continue
            if arrivals:
                reach("collector-after-receive")
                _store(queues, session, arrivals, pause, counts)
                last_seen = clock()
            pause.over()
    finally:
        queues.close()
        session.close()


def _store(
    queues: DeadLetterQueues, session: Session, arrivals: list[Arrival], pause: Pause, counts: Counter[str]
) -> None:
    """Keep them, waiting for the database for as long as it takes, then remove them from the broker."""
    while not pause.stop.is_set():
        try:
            kept = _keep_or_split(session, arrivals)
        except TransientError as error:
            session.close()
            pause.wait(error)
            continue
        reach("collector-after-commit")
        counts.update(seen.value for _, seen in kept)
        try:
            queues.remove([arrival for arrival, _ in kept])
        except BrokerUnavailable as error:
            pause.wait(error)  # the copies come again and are the same then
        return


def _keep_or_split(session: Session, arrivals: list[Arrival]) -> list[tuple[Arrival, Seen]]:
    """All in one transaction; one that meets a bug of ours is logged and stays with the broker, the others are kept."""
    try:
        return list(zip(arrivals, keep(session.connection, arrivals, datetime.now(UTC)), strict=True))
    except FleetError:
        raise
    except Exception as error:
        if len(arrivals) > 1:
            half = len(arrivals) // 2
            return _keep_or_split(session, arrivals[:half]) + _keep_or_split(session, arrivals[half:])
        extra = {"queue": arrivals[0].dead_letter_queue, "copy": arrivals[0].name}
        log.error(
            "dead letter cannot be kept and stays where it is", exc_info=error, extra={**extra, "error": str(error)}
        )
        return []
