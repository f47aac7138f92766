"""The fleet's supervisor: starts worker processes, restarts the dead with back-off, drains all on SIGTERM within a bound."""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from incentive_fleet.brokers.contract import Broker
from incentive_fleet.consumers import answering
from incentive_fleet.consumers.core import GIVEN_UP_FOR
from incentive_fleet.consumers.suspects import Suspects
from incentive_fleet.consumers.worker import CAREFUL, DRAINED, OF_QUOTES
from incentive_fleet.measuring import Tally, from_document, sum_of
from incentive_fleet.settings import Settings
from incentive_fleet.stopping import Stop

log = logging.getLogger(__name__)

RESTART_FIRST_S = 0.5
RESTART_MAX_S = 15.0
HEALTHY_AFTER_S = 60.0  # a worker that lived so long died of something new; what it got done before tells nothing
DEATHS_MAX = 10  # in a row, none of them healthy: something is wrong that a restart does not mend
CAREFUL_FROM = 2  # deaths in a row after which a place is filled with a careful worker (suspects.py)
CAREFUL_S = 20.0  # a careful worker that lived so long makes room for one at full speed
POLL_S = 0.05
# Python hears SIGTERM neither while it starts nor on its last steps, and ends by it: nothing that the worker did is to blame.
TOLD_TO_STOP = (DRAINED, -signal.SIGTERM)


@dataclass(slots=True)
class Worker:
    """One place in the fleet, and the process that fills it now."""

    number: int
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    deaths: int = 0
    restart_at: float = 0.0
    done: bool = False
    paused: bool = False
    counts: Counter[str] = field(default_factory=Counter)  # of the process that runs now
    earlier: Counter[str] = field(default_factory=Counter)  # of its predecessors
    tally: Tally = field(default_factory=Tally)  # likewise
    earlier_tally: Tally = field(default_factory=Tally)
    starts: int = 0
    careful: bool = False  # whether the process that runs now is
    making_room: bool = False  # whether it was told to
    in_hand: str = ""  # what a careful one touches now: digests, one as a rule
    reader: threading.Thread | None = None

    def total(self) -> Counter[str]:
        return self.counts + self.earlier


@dataclass(slots=True)
class Fleet:
    """`processes` workers, each consuming from every broker. Belongs to the main thread: it waits for signals."""

    brokers: list[Broker]
    processes: int
    settings: Settings
    until_idle_s: float | None
    on_tick: Callable[[Fleet], None] = lambda fleet: None
    stopping: Stop = field(init=False)
    workers: list[Worker] = field(default_factory=list)
    suspects: Suspects = field(default_factory=Suspects)
    told: Stop | None = None  # ends the fleet when it is set
    quotes: bool = False  # whether it answers quotes rather than applying facts

    def __post_init__(self) -> None:
        self.stopping = (self.told or Stop(self.settings.drain_s)).child()

    def counts(self) -> Counter[str]:
        """What became of deliveries, summed over the fleet, killed workers' last reports included."""
        total: Counter[str] = Counter()
        for worker in self.workers:
            total.update(worker.total())
        return total

    def tally(self) -> Tally:
        """What all workers count, the dead ones' last reports included, and how many there are."""
        workers = list(self.workers)
        total = sum_of(tally for worker in workers for tally in (worker.tally, worker.earlier_tally))
        total.level("incentives_workers_wanted", now=self.processes)
        total.level("incentives_workers_alive", now=sum(worker.process is not None for worker in workers))
        total.add("incentives_worker_restarts_total", by=sum(max(0, worker.starts - 1) for worker in workers))
        # A counter that is first seen at sixty has not grown by sixty: it must be seen at zero.
        for reason in answering.GIVEN_UP_FOR if self.quotes else GIVEN_UP_FOR:
            total.add("incentives_dead_letters_total", reason, by=0)
        return total

    @property
    def paused(self) -> bool:
        return any(worker.paused for worker in self.workers)

    def stop(self) -> None:
        """Begin to drain. Idempotent and thread-safe."""
        self.stopping.set()

    def kill(self) -> None:
        """End the workers now, as a power cut would: what they held comes again. Thread-safe."""
        self._signal(signal.SIGKILL)

    def run(self) -> bool:
        """Run until all workers are done or stopped; True unless a worker kept dying or had to be killed."""
        self.workers = [Worker(number) for number in range(self.processes)]
        signalled = cut = False
        healthy = True
        try:
            while not all(worker.done for worker in self.workers):
                now = time.monotonic()
                if self.stopping.is_set() and not signalled:
                    signalled = True
                    self._signal(signal.SIGTERM)
                if self.stopping.left_s() <= 0 and not cut:
                    cut, healthy = True, False
                    log.error("drain took too long", extra={"drain_s": self.settings.drain_s})
                    self.kill()
                for worker in self.workers:
                    healthy = self._tend(worker, now) and healthy
                self.on_tick(self)
                time.sleep(POLL_S)
        except BaseException:
            self.kill()
            raise
        return healthy

    def _tend(self, worker: Worker, now: float) -> bool:
        """Start, restart or retire one worker; False when it is given up."""
        if worker.done:
            return True
        if worker.process is None:
            if self.stopping.is_set():
                worker.done = True
            elif now >= worker.restart_at:
                self._start(worker, now)
            return True
        code = worker.process.poll()
        if code is None:
            if worker.careful and not worker.making_room and now - worker.started_at > CAREFUL_S:
                worker.making_room = True
                worker.process.send_signal(signal.SIGTERM)
            return True
        self._bury(worker)
        if code == 0 or (self.stopping.is_set() and code in TOLD_TO_STOP):
            worker.done = True
            return True
        if code in TOLD_TO_STOP:  # while the fleet goes on: its place is filled again
            if not worker.making_room:
                log.info("worker was stopped", extra={"worker": worker.number})
            worker.careful, worker.restart_at = False, now
            return True
        return self._after_death(worker, code, now)

    def _after_death(self, worker: Worker, code: int, now: float) -> bool:
        lived = now - worker.started_at > HEALTHY_AFTER_S
        worker.deaths = 1 if lived else worker.deaths + 1
        if worker.in_hand and " " not in worker.in_hand:  # of several nobody can tell which it was
            self.suspects.died_with(worker.in_hand)
        worker.careful = worker.deaths >= CAREFUL_FROM
        delay_s = min(RESTART_FIRST_S * 2 ** (worker.deaths - 1), RESTART_MAX_S)
        extra = {"worker": worker.number, "exit_code": code, "deaths": worker.deaths}
        if worker.deaths >= DEATHS_MAX or self.stopping.is_set():
            log.error("worker given up", extra=extra)
            worker.done = True
            self.stop()
            return False
        log.warning("worker died", extra=extra | {"restart_in_s": delay_s})
        worker.restart_at = now + delay_s
        return True

    def _start(self, worker: Worker, now: float) -> None:
        command = [
            sys.executable,
            "-m",
            "incentive_fleet.consumers.worker",
            ",".join(broker.source for broker in self.brokers),
        ]
        if self.until_idle_s is not None:
            command.append(str(self.until_idle_s))
        if self.quotes:
            command.append(OF_QUOTES)
        if worker.careful:
            command += [CAREFUL, ",".join(self.suspects.condemned())]
        worker.in_hand, worker.making_room = "", False
        # A process group of its own: Ctrl-C in a terminal, and whoever signals a whole group, is for the supervisor alone.
        worker.process = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, process_group=0)
        worker.started_at = now
        worker.starts += 1
        worker.reader = threading.Thread(
            target=_read_reports, args=(worker, worker.process, self.suspects), daemon=True
        )
        worker.reader.start()

    def _bury(self, worker: Worker) -> None:
        if worker.reader is not None:
            worker.reader.join(timeout=5)
        worker.earlier.update(worker.counts)
        worker.earlier_tally.merge(worker.tally, levels=False)
        worker.counts, worker.tally, worker.paused, worker.process = Counter(), Tally(), False, None

    def _signal(self, number: int) -> None:
        for worker in self.workers:
            if worker.process is not None and worker.process.poll() is None:
                worker.process.send_signal(number)


def _read_reports(worker: Worker, process: subprocess.Popen[bytes], suspects: Suspects) -> None:
    """Follow a worker's reports until it closes its end."""
    assert process.stdout is not None
    with process.stdout as lines:
        for line in lines:
            try:
                report = json.loads(line)
            except ValueError:  # a line cut short by the worker's death
                continue
            if "in_hand" in report:
                for digest in worker.in_hand.split() if not report["in_hand"] else ():
                    suspects.went_well(digest)
                worker.in_hand = str(report["in_hand"])
            else:
                worker.counts, worker.paused = Counter(report["counts"]), bool(report["paused"])
                worker.tally = from_document(report["tally"])
