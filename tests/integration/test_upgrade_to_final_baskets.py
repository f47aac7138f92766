"""The release before final baskets, taken out of the history, beside this one: topology, schema, code, then the producers.

In the order of docs/deploy/upgrade.md, with orders coming in all the time: no message is lost and none is a dead letter.
"""

from __future__ import annotations

import csv
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from incentive_fleet.embedded import sample_shop
from incentive_fleet.embedded.postgres import Postgres
from tests.parts import ROOT, fresh_database
from tests.releases import THIS, Release
from tests.rolling import World, opened
from tests.shop import open_shop

CAME_WITH = "incentive_fleet/ledger/migrations/versions/0003_final_baskets.sql"
GROCERIES = sample_shop.Shop(3_000, seed=30, refunds=0.3, groceries=0.85)  # the same shop, as it orders later
BEFORE = sample_shop.Shop(3_000, seed=29, refunds=0.3, name="before", customers=GROCERIES.customer_count)

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.skipif(not (ROOT / ".git").exists(), reason="the history is not in this checkout"),
]


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Release:
    """The last release that knew no final basket."""
    folder = tmp_path_factory.mktemp("before")
    named = ["git", "-C", str(ROOT), "log", "--diff-filter=A", "--format=%H^", "--", CAME_WITH]
    commit = subprocess.run(named, capture_output=True, text=True, check=True).stdout.split()[-1]
    packed = subprocess.run(
        ["git", "-C", str(ROOT), "archive", commit, "incentive_fleet"], capture_output=True, check=True
    )
    subprocess.run(["tar", "-x", "-C", str(folder)], input=packed.stdout, check=True)
    assert not (folder / CAME_WITH).exists()
    return Release({"PYTHONPATH": str(folder), "PYTHONSAFEPATH": "1"})


@pytest.fixture
def calm_url(postgres: Postgres, database_template: str) -> Iterator[str]:
    with fresh_database(postgres, database_template) as url:
        open_shop(url, BEFORE)
        open_shop(url, GROCERIES)
        yield url


@pytest.fixture(params=["rabbitmq", "sqs"])
def world(request: pytest.FixtureRequest, empty_database_url: str, tmp_path: Path, before: Release) -> Iterator[World]:
    """As the release before has set it up: its schema, its queues, its terms."""
    events = (body for _, body in sample_shop.events(BEFORE))
    (tmp_path / "campaigns.toml").write_text(sample_shop.CAMPAIGNS)
    with (tmp_path / "grants.csv").open("w", newline="") as file:
        csv.writer(file).writerow(("key", "customer_id", "currency", "amount", "campaign_id", "expires_at"))
        csv.writer(file).writerows((*row, "") for row in sample_shop.grants(BEFORE))
    with opened(request.param, request.getfixturevalue, empty_database_url, tmp_path, events) as made:
        made.apply(before, "db", "upgrade")
        made.apply(before, "topology", "apply")
        made.apply(before, "campaigns", "load", tmp_path / "campaigns.toml")
        made.apply(before, "grants", "load", tmp_path / "grants.csv")
        yield made


def test_a_running_system_is_moved_without_a_lost_message_or_a_dead_letter(
    world: World, before: Release, calm_url: str
) -> None:
    old = world.begin(before)
    with world.under_load():
        world.apply(THIS, "topology", "apply")
        world.goes_on()
        world.apply(THIS, "db", "upgrade")
        world.goes_on()
        world.meet_the_schema_anew()  # the release before meets the new schema
        world.goes_on()
        beside = world.consume(THIS)
        first = world.hand_over(old, to=beside)
    open_shop(world.url, GROCERIES)
    world.events = (body for _, body in sample_shop.events(GROCERIES))
    with world.under_load():
        world.goes_on()
        world.goes_on()
    assert world.one("SELECT count(*) FROM final_baskets") > 0
    world.judge(THIS, calm_url, first, beside.end())
