"""One release after the other over a migration, in both orders, with events coming in all the time, and back again.

The next release is made up (tests/releases.py). Whatever the order: nothing is lost, nothing is a dead letter, each event is
applied once by one of the two, and who cannot work with the schema that it finds waits for the other step.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import pytest

from incentive_fleet.embedded import sample_shop
from incentive_fleet.embedded.postgres import Postgres
from incentive_fleet.embedded.process import free_port
from incentive_fleet.errors import DatabaseContention
from incentive_fleet.ledger.balances import read_balances
from incentive_fleet.ledger.migrate import upgrade
from incentive_fleet.ledger.revision import NEWEST
from incentive_fleet.settings import Settings
from tests.brokers_and_workers import Brokers, environment_of, log_of, settings_of, start
from tests.command import Ran, incentives
from tests.contract.brokers_under_test import eventually
from tests.integration.test_health import Health
from tests.parts import fresh_database
from tests.releases import NEXT, THIS, Release, next_release
from tests.shop import calm_balances, open_shop

SHOP = sample_shop.Shop(4_000, seed=29, refunds=0.3)
PATIENCE_S = 60
CHUNK = 20
NO_AWS = {"AWS_REGION": "", "AWS_DEFAULT_REGION": ""}
SESSIONS = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name ="
END_SESSIONS = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE datname = current_database() AND application_name = 'incentives consume rabbitmq'"
)


@dataclass
class Fleet:
    """`incentives consume` of one release."""

    settings: Settings
    release: Release
    log: Path
    out: Path
    process: subprocess.Popen[bytes] = field(init=False)

    def __post_init__(self) -> None:
        words = ["consume", "--from", "rabbitmq", "--no-collect", "--format", "json"]
        command = [sys.executable, "-m", "incentive_fleet.cli.main", *words]
        environment = NO_AWS | self.release.environment
        self.process = start(command, self.settings, self.log, self.out, **environment)

    def faults(self) -> set[str] | None:
        return Health(self.settings.health_port or 0).faults()

    def end(self) -> Counter[str]:
        """Drain it; what it did, by kind."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(PATIENCE_S) == 0, self.log.read_text()
        return Counter(json.loads(self.out.read_text())["counts"])


@dataclass
class World:
    """A shop that goes on ordering, whoever serves it."""

    url: str
    settings: Settings
    brokers: Brokers
    folder: Path
    events: Iterator[bytes]
    sent: list[bytes] = field(default_factory=list)
    fleets: list[Fleet] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=count)

    def consume(self, release: Release) -> Fleet:
        number = next(self.numbers)
        settings = self.settings.model_copy(update={"health_port": free_port()})
        fleet = Fleet(settings, release, self.folder / f"log{number}", self.folder / f"out{number}")
        self.fleets.append(fleet)
        return fleet

    def run(self, release: Release, *words: str) -> Ran:
        return incentives(*words, env={"INCENTIVES_DATABASE_URL": self.url, **release.environment})

    def send(self) -> None:
        chunk = [body for _, body in zip(range(CHUNK), self.events, strict=False)]
        assert len(chunk) == CHUNK, "the shop ran out of orders"
        self.brokers.publish("rabbitmq", chunk)
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

    def catches_up(self) -> None:
        self.send()
        eventually(lambda: self.stored() == len(self.sent), PATIENCE_S)

    def new_sessions(self) -> None:
        with psycopg.connect(self.url, autocommit=True) as connection:
            assert connection.execute(END_SESSIONS.encode()).rowcount > 0

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

    def judge(self, release: Release, calm_url: str, *done: Counter[str]) -> None:
        """Each event took effect once, in one of the fleets, and the money is that of a calm run; `release` looks at it."""
        total = sum(done, Counter())
        assert total.keys() <= {"applied", "waiting", "duplicate"}, "something was retried, blamed or given up"
        # A session that was ended in its COMMIT did not hear that it had applied what then comes again.
        assert total["applied"] + total["waiting"] <= len(self.sent) <= total.total()
        assert self.brokers.left("rabbitmq") == {}
        assert self.brokers.letters("rabbitmq") == []
        assert self.stored() == len(self.sent)
        verified = self.run(release, "ledger", "verify", "--format", "json")
        assert verified.document["sound"] is True, verified.out
        with psycopg.connect(self.url) as connection:
            assert read_balances(connection) == calm_balances(calm_url, self.sent)


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Release]:
    """The next release in three kinds, by what goes together."""
    folder = tmp_path_factory.mktemp("releases")
    return {
        "all with all": next_release(folder / "a", oldest=NEWEST, goes_on_with=NEWEST),
        "new code with the old schema": next_release(folder / "b", oldest=NEWEST),
        "nothing": next_release(folder / "c", oldest=NEXT),
    }


@pytest.fixture
def calm_url(postgres: Postgres, database_template: str) -> Iterator[str]:
    with fresh_database(postgres, database_template) as url:
        open_shop(url, SHOP)
        yield url


@pytest.fixture
def world(database_url: str, rabbitmq: Any, tmp_path: Path) -> Iterator[World]:
    with psycopg.connect(database_url, autocommit=True) as owner:
        owner.execute("DELETE FROM destinations WHERE destination = 'sns'")
    open_shop(database_url, SHOP)
    # Small batches, and few in hand, so that every step finds some to hit.
    few = {"batch_size": 10, "prefetch": 20, "database_url": database_url, "rabbitmq_url": rabbitmq.url}
    settings = settings_of(f"t{uuid.uuid4().hex[:8]}", aws_region=None, **few)
    brokers = Brokers(settings)
    brokers.apply()
    made = World(database_url, settings, brokers, tmp_path, (body for _, body in sample_shop.events(SHOP)))
    try:
        yield made
    finally:
        for fleet in made.fleets:
            if fleet.process.poll() is None:
                fleet.process.kill()
                fleet.process.wait()
        brokers.close()


def told(fleet: Fleet) -> str:
    """Why it pauses, in the words of its log."""
    return " ".join(str(line.get("error", "")) for line in log_of(fleet.log) if line["message"] == "consuming paused")


def test_schema_first_and_then_the_code_and_the_code_back_again(
    world: World, releases: dict[str, Release], calm_url: str
) -> None:
    """The usual migration: one that the code before it can live with. Nobody waits at any step, the way back included."""
    new = releases["all with all"]
    old = world.consume(THIS)
    world.catches_up()
    with world.load():
        upgraded = world.run(new, "db", "upgrade", "--format", "json")
        assert (upgraded.code, upgraded.document) == (0, {"revision": NEXT}), upgraded.err
        world.goes_on()
        world.new_sessions()  # a restart, a failover, a worker that died: the old release meets the new schema
        world.goes_on()
        beside = world.consume(new)
        eventually(lambda: beside.faults() == set(), PATIENCE_S)
        first = old.end()
        world.goes_on()
    world.catches_up()
    with world.load():  # the new release disappoints: back to the old one, whose pipeline begins with its own upgrade
        same = world.run(THIS, "db", "upgrade")
        assert same.code == 0, same.err
        assert (
            same.out
            == f"The schema is at revision {NEXT}, newer than this release ({NEWEST}), which goes on with it.\n"
        )
        again = world.consume(THIS)
        eventually(lambda: again.faults() == set(), PATIENCE_S)
        second = beside.end()
        world.goes_on()
    world.catches_up()
    world.judge(THIS, calm_url, first, second, again.end())
    relayed = incentives("relay", "--until-idle", "0.2", env=environment_of(world.settings, **NO_AWS))
    assert relayed.code == 0, relayed.err
    assert world.one("SELECT count(*) FROM outbox_unpublished") == 0


@pytest.mark.deploy
def test_code_first_where_it_works_with_the_schema_before(
    world: World, releases: dict[str, Release], calm_url: str
) -> None:
    new = releases["new code with the old schema"]
    old = world.consume(THIS)
    world.catches_up()
    with world.load():
        beside = world.consume(new)
        eventually(lambda: beside.faults() == set(), PATIENCE_S)
        first = old.end()
        world.goes_on()
        assert world.run(new, "db", "upgrade").code == 0
        world.new_sessions()
        world.goes_on()
    world.catches_up()
    refused = world.run(THIS, "db", "upgrade")
    assert refused.code == 2, "the migration did not say that the old release goes on with it"
    assert f"newer than this release knows ({NEWEST})" in refused.err
    world.judge(new, calm_url, first, beside.end())


def test_code_first_where_it_needs_the_new_schema_waits_while_the_old_works_on(
    world: World, releases: dict[str, Release], calm_url: str
) -> None:
    new = releases["nothing"]
    old = world.consume(THIS)
    world.catches_up()
    with world.load():
        early = world.consume(new)
        eventually(lambda: early.faults() == {"fleet"}, PATIENCE_S)
        assert f"this release needs {NEXT} at least: run `incentives db upgrade`" in told(early)
        world.goes_on()
        assert old.faults() == set()
        assert world.run(new, "db", "upgrade").code == 0
        eventually(lambda: early.faults() == set(), PATIENCE_S)
        first = old.end()
        world.goes_on()
    world.catches_up()
    world.judge(new, calm_url, first, early.end())


@pytest.mark.deploy
def test_schema_first_where_the_old_code_does_not_know_it(
    world: World, releases: dict[str, Release], calm_url: str
) -> None:
    """Open sessions of the old release go on, new ones wait, and what they held is the new release's."""
    new = releases["nothing"]
    old = world.consume(THIS)
    world.catches_up()
    with world.load():
        assert world.run(new, "db", "upgrade").code == 0
        late = world.consume(THIS)
        eventually(lambda: late.faults() == {"fleet"}, PATIENCE_S)
        assert f"newer than this release knows ({NEWEST}): run the release that upgraded it" in told(late)
        world.goes_on()
        assert old.faults() == set()
    world.new_sessions()
    world.send()
    eventually(lambda: old.faults() == {"fleet"}, PATIENCE_S)
    with world.load():
        beside = world.consume(new)
        eventually(lambda: beside.faults() == set(), PATIENCE_S)
        world.goes_on()
        first = old.end() + late.end()
    world.catches_up()
    world.judge(new, calm_url, first, beside.end())


def test_a_report_that_runs_for_long_holds_up_the_upgrade_and_not_the_fleet(
    world: World, releases: dict[str, Release], calm_url: str
) -> None:
    """The migration needs a lock that a reader has. Who waits for it keeps everybody else waiting, so it never waits long."""
    new, old = releases["all with all"], world.consume(THIS)
    world.catches_up()
    with psycopg.connect(world.url) as report, world.load():
        report.execute("SELECT count(*) FROM facts")
        command = [sys.executable, "-m", "incentive_fleet.cli.main", "db", "upgrade"]
        upgrading = start(command, world.settings, world.folder / "upgrading", None, **new.environment)
        waits = f"{SESSIONS} 'incentives db upgrade' AND wait_event_type = 'Lock'"
        eventually(lambda: world.one(waits), PATIENCE_S)
        world.goes_on()
        eventually(lambda: not world.one(waits), PATIENCE_S)  # it has given up, to try again
        assert upgrading.poll() is None
        report.rollback()
        assert upgrading.wait(PATIENCE_S) == 0
    world.catches_up()
    world.judge(new, calm_url, old.end())


def test_an_upgrade_that_gets_no_lock_says_so_and_changes_nothing(database_url: str) -> None:
    with psycopg.connect(database_url) as holder:
        holder.execute("LOCK TABLE schema_goes_on_with")
        with pytest.raises(DatabaseContention, match=r"locked within 0\.1 s, 50ms at a time; nothing was changed"):
            upgrade(f"{database_url}&options={quote('-c lock_timeout=50ms')}", patience_s=0.1)
    assert upgrade(database_url) == NEWEST
