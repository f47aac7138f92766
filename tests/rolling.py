"""A running system that is moved from one release to another, over either broker: a shop that goes on ordering, fleets of both
releases beside each other, the steps of the hand-over, and the judgement at its end.

Fleets are processes of their own; nothing here stands in for a server, and no step is waited for by the clock.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import psycopg

from incentive_fleet.embedded.process import free_port
from incentive_fleet.ledger.balances import read_balances
from incentive_fleet.settings import Settings
from tests.brokers_and_workers import Brokers, Source, environment_of, log_of, settings_of, start
from tests.command import Ran, incentives
from tests.contract.brokers_under_test import eventually
from tests.integration.test_health import Health
from tests.releases import Release
from tests.shop import calm_balances

PATIENCE_S = 60
CHUNK = 20
# Small batches, and few in hand, so that every step finds some to hit.
FEW: dict[str, Any] = {"batch_size": 10, "prefetch": 20}
END_SESSIONS = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = %s
"""


@dataclass
class Fleet:
    """`incentives consume` of one release."""

    source: Source
    settings: Settings
    release: Release
    log: Path
    out: Path
    process: subprocess.Popen[bytes] = field(init=False)

    def __post_init__(self) -> None:
        words = ["consume", "--from", self.source, "--no-collect", "--format", "json"]
        command = [sys.executable, "-m", "incentive_fleet.cli.main", *words]
        self.process = start(command, self.settings, self.log, self.out, **self.release.environment)

    def faults(self) -> set[str] | None:
        return Health(self.settings.health_port or 0).faults()

    def works(self) -> None:
        """Wait until nothing is wrong with it."""
        eventually(lambda: self.faults() == set(), PATIENCE_S)

    def pauses(self) -> str:
        """Wait until it does; why, in the words of its log."""
        eventually(lambda: self.faults() == {"fleet"}, PATIENCE_S)
        told = [line for line in log_of(self.log) if line["message"] == "consuming paused"]
        return " ".join(str(line.get("error", "")) for line in told)

    def end(self) -> Counter[str]:
        """Drain it; what it did, by kind."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(PATIENCE_S) == 0, self.log.read_text()
        return Counter(json.loads(self.out.read_text())["counts"])


@dataclass
class World:
    """A shop that goes on ordering, whoever serves it."""

    source: Source
    url: str
    brokers: Brokers
    folder: Path
    events: Iterator[bytes]
    sent: list[bytes] = field(default_factory=list)
    fleets: list[Fleet] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=count)

    @property
    def settings(self) -> Settings:
        return self.brokers.settings

    def consume(self, release: Release) -> Fleet:
        number = next(self.numbers)
        settings = self.settings.model_copy(update={"health_port": free_port()})
        fleet = Fleet(self.source, settings, release, self.folder / f"log{number}", self.folder / f"out{number}")
        self.fleets.append(fleet)
        return fleet

    def run(self, release: Release, *words: str | Path) -> Ran:
        """A command of this release."""
        return incentives(*words, env=environment_of(self.settings) | release.environment)

    def apply(self, release: Release, *words: str | Path) -> Ran:
        """A command of this release that must do what it is for."""
        ran = self.run(release, *words)
        assert ran.code == 0, ran.err
        return ran

    def send(self) -> None:
        chunk = [body for _, body in zip(range(CHUNK), self.events, strict=False)]
        assert len(chunk) == CHUNK, "the shop ran out of orders"
        self.brokers.publish(self.source, chunk)
        self.sent += chunk

    def one(self, query: str) -> int:
        with psycopg.connect(self.url, autocommit=True) as connection:
            row = connection.execute(query.encode()).fetchone()
        assert row is not None
        return int(row[0])

    def stored(self) -> int:
        return self.one("SELECT count(*) FROM facts")

    def goes_on(self) -> None:
        """Under load: new events are stored, although somebody who waits may hold a part of them."""
        wanted = self.stored() + 2 * CHUNK
        eventually(lambda: self.stored() > wanted, PATIENCE_S)

    def begin(self, release: Release) -> Fleet:
        """A fleet of this release that is at work."""
        fleet = self.consume(release)
        self.send()
        eventually(self.all_are_stored, PATIENCE_S)
        return fleet

    def all_are_stored(self) -> bool:
        return self.stored() == len(self.sent)

    def hand_over(self, *old: Fleet, to: Fleet) -> Counter[str]:
        """Under load: the new fleet works beside the old ones, which are drained then, and goes on alone; what the old ones did."""
        to.works()
        self.goes_on()
        done = sum((fleet.end() for fleet in old), Counter[str]())
        self.goes_on()
        return done

    def meet_the_schema_anew(self) -> None:
        """A restart, a failover, a worker that died: whoever consumes opens new sessions."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            ended = connection.execute(END_SESSIONS, (f"incentives consume {self.source}",))
            assert ended.rowcount > 0

    @contextmanager
    def load(self) -> Iterator[None]:
        """Events all the time."""
        over = threading.Event()

        def keep_sending() -> None:
            while not over.wait(0.05):
                self.send()

        thread = threading.Thread(target=keep_sending)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join(PATIENCE_S)
            assert not thread.is_alive()

    @contextmanager
    def under_load(self) -> Iterator[None]:
        """Events all the time; in the end all of them are stored, and what came twice is acknowledged too."""
        with self.load():
            yield
        self.send()
        eventually(lambda: self.all_are_stored() and not self.brokers.left_now(self.source), PATIENCE_S)

    def judge(self, release: Release, calm_url: str, *done: Counter[str]) -> None:
        """Each event took effect once, in one of the fleets, and the money is that of a calm run; `release` looks at it."""
        total = sum(done, Counter())
        assert total.keys() <= {"applied", "waiting", "duplicate"}, "something was retried, blamed or given up"
        # A session that was ended in its COMMIT did not hear that it had applied what then comes again.
        assert total["applied"] + total["waiting"] <= len(self.sent) <= total.total()
        assert self.brokers.left(self.source) == {}
        assert self.brokers.letters(self.source) == []
        assert self.stored() == len(self.sent)
        verified = self.run(release, "ledger", "verify", "--format", "json")
        assert verified.document["sound"] is True, verified.out
        with psycopg.connect(self.url) as connection:
            assert read_balances(connection) == calm_balances(calm_url, self.sent)


@contextmanager
def opened(
    source: Source, server: Callable[[str], Any], url: str, folder: Path, events: Iterator[bytes]
) -> Iterator[World]:
    """A world over this broker, which `server` starts, and no other; its queues are not declared yet."""
    given: dict[str, Any] = {
        "rabbitmq": lambda: {"rabbitmq_url": server("rabbitmq").url, "aws_region": None},
        "sqs": lambda: {"aws_endpoint_url": server("localstack").endpoint_url},
    }[source]()
    brokers = Brokers(settings_of(f"t{uuid.uuid4().hex[:8]}", database_url=url, **FEW, **given))
    world = World(source, url, brokers, folder, events)
    try:
        yield world
    finally:
        for fleet in world.fleets:
            if fleet.process.poll() is None:
                fleet.process.kill()
                fleet.process.wait()
        brokers.close()
