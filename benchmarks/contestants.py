"""Who is measured: the fleet and its peers. How each is started, what its queue looks like and what it is sent.

A peer's settings are the best that were found by trying (benchmarks/README.md says which were tried).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import publishing, stopwatch
from benchmarks.publishing import Wire, open_publisher
from benchmarks.rig import Rig, declare_topology, environment
from incentive_fleet.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
PEERS = ROOT / ".venv-peers" / "bin"
STOP_S = 30.0


@dataclass(frozen=True, slots=True)
class Contestant:
    """`commands` start its processes; `about` is its settings in words."""

    name: str
    about: str
    commands: tuple[tuple[str, ...], ...]
    encode: Callable[[str, Iterable[tuple[str, bytes]]], list[Wire]] | None = None  # None: the fleet
    variables: Mapping[str, str] = field(default_factory=dict)
    dead_letters: bool = False  # whether its queue names a dead-letter queue, as dramatiq's does
    changes: Mapping[str, Any] = field(default_factory=dict)  # of the fleet's settings

    @property
    def is_fleet(self) -> bool:
        return self.encode is None


def _many(count: int, what: str) -> str:
    plural = "" if count == 1 else "es" if what.endswith("s") else "s"
    return f"{count} {what}{plural}"


def fleet(processes: int, **changes: Any) -> Contestant:
    """The product's own workers, without the supervisor that would only restart them."""
    command = (sys.executable, "-m", "benchmarks.fleet_worker", "rabbitmq")
    about = f"{_many(processes, 'process')}, batches of up to {changes.get('batch_size', 500)}"
    return Contestant(f"fleet x{processes}", about, (command,) * processes, changes=changes)


def dramatiq(processes: int = 1, threads: int = 16, prefetch: int = 64) -> Contestant:
    command = (str(PEERS / "dramatiq"), "benchmarks.peers.dramatiq_worker")
    options = ("-p", str(processes), "-t", str(threads), "--skip-logging")
    return Contestant(
        "dramatiq",
        f"{_many(processes, 'process')} of {threads} threads, prefetch {prefetch}, only the Retries middleware",
        ((*command, *options),),
        publishing.for_dramatiq,
        {"dramatiq_queue_prefetch": str(prefetch)},
        dead_letters=True,
    )


def celery(concurrency: int = 16, prefetch: int = 8, workers: int = 1, pool: str = "threads") -> Contestant:
    options = ("--pool", pool, "--concurrency", str(concurrency), "--loglevel", "ERROR", "-O", "fair")
    quiet = ("--without-gossip", "--without-mingle", "--without-heartbeat")
    command = (str(PEERS / "celery"), "-A", "benchmarks.peers.celery_worker", "worker", *options, *quiet)
    return Contestant(
        "Celery",
        f"{_many(workers, 'worker')} with {concurrency} {pool}, acks_late, prefetch multiplier {prefetch}, no result backend,"
        " no events, no gossip, mingle or heartbeat",
        tuple((*command, "-n", f"worker{number}@%h") for number in range(workers)),
        publishing.for_celery,
        {"BENCH_PREFETCH": str(prefetch)},
    )


def faststream(processes: int = 2, threads: int = 16, prefetch: int = 64) -> Contestant:
    command = (str(PEERS / "faststream"), "run", "benchmarks.peers.faststream_worker:app")
    options = ("--workers", str(processes)) if processes > 1 else ()
    return Contestant(
        "FastStream",
        f"{_many(processes, 'process')} of {threads} threads, prefetch {prefetch}, uvloop, no dependency injection",
        ((*command, *options, "--log-level", "error"),),
        publishing.for_faststream,
        {"BENCH_THREADS": str(threads), "BENCH_PREFETCH": str(prefetch)},
    )


def peers() -> list[Contestant]:
    return [dramatiq(), celery(), faststream()]


@dataclass(slots=True)
class Entry:
    """A contestant with a ledger and queues of its own, ready to be fed and started."""

    contestant: Contestant
    settings: Settings
    queue: str
    notes: Path

    def wires(self, events: Iterable[tuple[str, bytes]]) -> list[Wire]:
        encode = self.contestant.encode
        return publishing.for_fleet(self.settings, events) if encode is None else encode(self.queue, events)

    @contextmanager
    def working(self, *, detailed: bool = False) -> Iterator[list[subprocess.Popen[bytes]]]:
        """Its processes run until the block ends."""
        variables = environment(self.settings) | dict(self.contestant.variables)
        variables |= {
            "BENCH_RABBITMQ_URL": self.settings.need_rabbitmq_url(),
            "BENCH_QUEUE": self.queue,
            stopwatch.FOLDER: str(self.notes),
            "PYTHONPATH": str(ROOT),
        }
        if detailed:
            variables[stopwatch.DETAILED] = "1"
        log = (self.notes.parent / f"{self.notes.name}.log").open("ab")
        processes = [
            subprocess.Popen(
                command,
                env=variables,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            for command in self.contestant.commands
        ]
        log.close()
        try:
            yield processes
        finally:
            for process in processes:
                _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM, and what it started goes with it: each has a session of its own."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def enter(rig: Rig, contestant: Contestant, database_url: str) -> Entry:
    """Declare the contestant's queues, durable quorum queues all."""
    settings = rig.settings(database_url, **contestant.changes)
    queue = rig.fresh_name("peer")
    notes = rig.folder / rig.fresh_name("notes")
    notes.mkdir()
    if contestant.is_fleet:
        declare_topology(settings)
    else:
        arguments: dict[str, Any] = {"x-queue-type": "quorum"}
        if contestant.dead_letters:
            arguments |= {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": f"{queue}.XQ"}
        with open_publisher(settings.need_rabbitmq_url()) as publisher:
            publisher.declare_queue(queue, arguments)
    return Entry(contestant, settings, queue, notes)
