"""One release after the other over a migration, in both orders, with events coming in all the time, and back again.

The next release is made up (tests/releases.py). Whatever the order: nothing is lost, nothing is a dead letter, each event is
applied once by one of the two, and who cannot work with the schema that it finds waits for the other step.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest

from incentive_fleet.embedded import sample_shop
from incentive_fleet.embedded.postgres import Postgres
from incentive_fleet.errors import DatabaseContention
from incentive_fleet.ledger.migrate import upgrade
from incentive_fleet.ledger.revision import NEWEST
from tests.brokers_and_workers import Source, start
from tests.contract.brokers_under_test import eventually
from tests.parts import fresh_database
from tests.releases import NEXT, THIS, Release, next_release
from tests.rolling import PATIENCE_S, World, opened
from tests.shop import open_shop

SHOP = sample_shop.Shop(4_000, seed=29, refunds=0.3)
DESTINATIONS = {"rabbitmq": "rabbitmq", "sqs": "sns"}  # by where events come from
SESSIONS = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name ="

over_both = pytest.mark.parametrize("source", ["rabbitmq", "sqs"])
# What the other one shows takes a minute more.
over_both_in_time = pytest.mark.parametrize("source", ["rabbitmq", pytest.param("sqs", marks=pytest.mark.deploy)])
over_rabbitmq = pytest.mark.parametrize("source", ["rabbitmq"])


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
def world(request: pytest.FixtureRequest, source: Source, database_url: str, tmp_path: Path) -> Iterator[World]:
    """With a topology, and outcomes that go to the same broker."""
    events = (body for _, body in sample_shop.events(SHOP))
    with psycopg.connect(database_url, autocommit=True) as owner:
        owner.execute("DELETE FROM destinations WHERE destination <> %s", (DESTINATIONS[source],))
    open_shop(database_url, SHOP)
    with opened(source, request.getfixturevalue, database_url, tmp_path, events) as made:
        made.brokers.apply()
        yield made


@over_both
def test_schema_first_and_then_the_code_and_the_code_back_again(
    world: World, releases: dict[str, Release], calm_url: str
) -> None:
    """The usual migration: one that the code before it can live with. Nobody waits at any step, the way back included."""
    new = releases["all with all"]
    old = world.begin(THIS)
    with world.under_load():
        assert world.apply(new, "db", "upgrade", "--format", "json").document["revision"] == NEXT
        world.goes_on()
        world.meet_the_schema_anew()
        world.goes_on()
        beside = world.consume(new)
        first = world.hand_over(old, to=beside)
    with (
        world.under_load()
    ):  # the new release disappoints: back to the old one, whose pipeline begins with its own upgrade
        assert (
            world.apply(THIS, "db", "upgrade").out
            == f"The schema is at revision {NEXT}, newer than this release ({NEWEST}), which goes on with it.\n"
        )
        again = world.consume(THIS)
        second = world.hand_over(beside, to=again)
    world.judge(THIS, calm_url, first, second, again.end())
    world.apply(THIS, "relay", "--until-idle", "0.2")
    assert world.one("SELECT count(*) FROM outbox_unpublished") == 0


@pytest.mark.deploy
@over_both
def test_code_first_where_it_works_with_the_schema_before(
    world: World, releases: dict[str, Release], calm_url: str
) -> None:
    new = releases["new code with the old schema"]
    old = world.begin(THIS)
    with world.under_load():
        beside = world.consume(new)
        first = world.hand_over(old, to=beside)
        world.apply(new, "db", "upgrade")
        world.meet_the_schema_anew()
        world.goes_on()
    refused = world.run(THIS, "db", "upgrade")
    assert refused.code == 2, "the migration did not say that the old release goes on with it"
    assert f"newer than this release knows ({NEWEST})" in refused.err
    world.judge(new, calm_url, first, beside.end())


@over_both_in_time
def test_code_first_where_it_needs_the_new_schema_waits_while_the_old_works_on(
    world: World, releases: dict[str, Release], calm_url: str
) -> None:
    new = releases["nothing"]
    old = world.begin(THIS)
    with world.under_load():
        early = world.consume(new)
        assert f"this release needs {NEXT} at least: run `incentives db upgrade`" in early.pauses()
        world.goes_on()
        assert old.faults() == set()
        world.apply(new, "db", "upgrade")
        first = world.hand_over(old, to=early)
    world.judge(new, calm_url, first, early.end())


@pytest.mark.deploy
@over_both
def test_schema_first_where_the_old_code_does_not_know_it(
    world: World, releases: dict[str, Release], calm_url: str
) -> None:
    """Open sessions of the old release go on, new ones wait, and what they held is the new release's."""
    new = releases["nothing"]
    old = world.begin(THIS)
    with world.load():
        world.apply(new, "db", "upgrade")
        late = world.consume(THIS)
        assert f"newer than this release knows ({NEWEST}): run the release that upgraded it" in late.pauses()
        world.goes_on()
        assert old.faults() == set()
    world.meet_the_schema_anew()
    world.send()
    old.pauses()
    with world.under_load():
        beside = world.consume(new)
        first = world.hand_over(old, late, to=beside)
    world.judge(new, calm_url, first, beside.end())


@over_rabbitmq
def test_a_report_that_runs_for_long_holds_up_the_upgrade_and_not_the_fleet(
    world: World, releases: dict[str, Release], calm_url: str
) -> None:
    """The migration needs a lock that a reader has. Who waits for it keeps everybody else waiting, so it never waits long."""
    new, old = releases["all with all"], world.begin(THIS)
    with psycopg.connect(world.url) as report, world.under_load():
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
    world.judge(new, calm_url, old.end())


def test_an_upgrade_that_gets_no_lock_says_so_and_changes_nothing(database_url: str) -> None:
    with psycopg.connect(database_url) as holder:
        holder.execute("LOCK TABLE schema_goes_on_with")
        with pytest.raises(DatabaseContention, match=r"locked within 0\.1 s, 50ms at a time; nothing was changed"):
            upgrade(f"{database_url}&options={quote('-c lock_timeout=50ms')}", patience_s=0.1)
    assert upgrade(database_url) == NEWEST
