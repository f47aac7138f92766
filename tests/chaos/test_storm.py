"""Fault runs: a short storm in every test run, and a long one behind `make chaos`. See storm.py and faults.py.

CHAOS_SEED and CHAOS_SECONDS change the long one; the seed is printed with its table.
"""

from __future__ import annotations

import gzip
import json
import os
import random
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from incentive_fleet.embedded import sample_shop
from incentive_fleet.embedded.postgres import SOCKET_NAME, Postgres
from incentive_fleet.embedded.rabbitmq import RabbitMQ
from incentive_fleet.incentives.campaign_file import parse_campaigns
from incentive_fleet.ledger.code_file import read_codes
from incentive_fleet.ledger.codes import load_codes
from incentive_fleet.ledger.grant_file import read_grants
from incentive_fleet.ledger.grants import Grant, grant
from incentive_fleet.ledger.session import Session
from incentive_fleet.ledger.terms import load_campaigns
from tests.brokers_and_workers import Brokers, settings_of
from tests.chaos.faults import Fleet, Site
from tests.chaos.faulty_proxy import FaultyProxy
from tests.chaos.storm import Plan, Storm, judge, report
from tests.parts import ROOT, fresh_database, wait_until_registered
from tests.shop import NOON, calm_balances, open_shop

SEED = int(os.environ.get("CHAOS_SEED", "20260401"))
SECONDS = float(os.environ.get("CHAOS_SECONDS", "600"))
FAULTS_LEAST = 100  # of the long run of ten minutes
DATA = ROOT.parent / "shared" / "data"


@dataclass(frozen=True, slots=True)
class StormWorld:
    """Everything a storm needs, ready: topology, an empty ledger, proxies, and a fleet that was not started yet."""

    brokers: Brokers
    site: Site
    url: str  # of the ledger
    spare_url: str  # of another empty one, for the calm run


@pytest.fixture(scope="module")
def own_rabbitmq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMQ]:
    node = RabbitMQ(tmp_path_factory.mktemp("storm") / "rabbitmq")
    try:
        node.start()
        yield node
    finally:
        node.kill()


@pytest.fixture
def storm_world(
    own_postgres: Postgres, own_template: str, own_rabbitmq: RabbitMQ, localstack: Any, tmp_path: Path
) -> Iterator[StormWorld]:
    direct = settings_of(
        f"t{uuid.uuid4().hex[:8]}", rabbitmq_url=own_rabbitmq.url, aws_endpoint_url=localstack.endpoint_url
    )
    brokers = Brokers(direct)
    brokers.apply()
    wait_until_registered(own_rabbitmq, *brokers.rabbitmq_names())
    with (
        fresh_database(own_postgres, own_template) as url,
        fresh_database(own_postgres, own_template) as spare_url,
    ):
        sockets = parse_qs(urlsplit(url).query)["host"][0]
        proxies = {
            "Postgres": FaultyProxy(sockets + SOCKET_NAME),
            "RabbitMQ": FaultyProxy(("127.0.0.1", own_rabbitmq.record.ports["amqp"])),
            "SQS": FaultyProxy(("127.0.0.1", urlsplit(localstack.endpoint_url).port or 0)),
        }
        database = urlsplit(url).path[1:]
        wired = direct.model_copy(
            update={
                "database_url": f"postgresql://postgres@127.0.0.1:{proxies['Postgres'].port}/{database}",
                "rabbitmq_url": f"amqp://guest:guest@127.0.0.1:{proxies['RabbitMQ'].port}/%2F",
                "aws_endpoint_url": f"http://127.0.0.1:{proxies['SQS'].port}",
                "batch_size": 50,  # so that a fault finds a batch to hit, and not all of the stream in one
                "prefetch": 100,
            }
        )
        fleet = Fleet(wired, tmp_path / "fleet.log")
        site = Site(own_postgres, own_rabbitmq, database, proxies, fleet, random.Random(SEED + 2))
        try:
            yield StormWorld(brokers, site, url, spare_url)
        finally:
            site.clear_away()
            for proxy in proxies.values():
                proxy.close()
            brokers.close()


def weather(
    storm_world: StormWorld, plan: Plan, bodies: list[bytes], calm: dict[str, int], say: Callable[[str], None]
) -> None:
    """Run a storm and fail with everything that it left wrong; the table is printed either way."""
    storm = Storm(plan, storm_world.site, storm_world.brokers, bodies, storm_world.url)
    try:
        storm.run()
        wrong = judge(storm, calm)
    finally:
        say(report(storm))
    assert not wrong, "\n".join(wrong)


@pytest.mark.timeout(150)
def test_a_short_storm_changes_nothing(storm_world: StormWorld, say: Callable[[str], None]) -> None:
    shop = sample_shop.Shop(200, seed=SEED, refunds=0.3, groceries=0.6)
    bodies = [body for _, body in sample_shop.events(shop)]
    for url in (storm_world.url, storm_world.spare_url):
        open_shop(url, shop)
    calm = calm_balances(storm_world.spare_url, bodies)
    weather(storm_world, Plan(SEED, 18, faults_least=14, gap_s=(0.1, 0.7), poison=45, conflicts=5), bodies, calm, say)


@pytest.mark.chaos
@pytest.mark.parametrize("year", ["online-retail", "online-retail-final"])
def test_a_long_storm_changes_nothing(storm_world: StormWorld, say: Callable[[str], None], year: str) -> None:
    final = 0.85 if year.endswith("final") else 0.0
    bodies, calm = _retail(storm_world, year) if DATA.exists() else _generated(storm_world, final)
    least = round(FAULTS_LEAST * SECONDS / 600)
    plan = Plan(SEED, SECONDS, faults_least=least, gap_s=(0.2, 2.5), poison=900, conflicts=100)
    weather(storm_world, plan, bodies, calm, say)


def _generated(storm_world: StormWorld, groceries: float) -> tuple[list[bytes], dict[str, int]]:
    shop = sample_shop.Shop(10_000, seed=SEED, refunds=0.3, groceries=groceries)
    bodies = [body for _, body in sample_shop.events(shop)]
    for url in (storm_world.url, storm_world.spare_url):
        open_shop(url, shop)
    return bodies, calm_balances(storm_world.spare_url, bodies)


def _retail(storm_world: StormWorld, year: str) -> tuple[list[bytes], dict[str, int]]:
    """A roomy stream of real orders that lies beside the project."""
    with gzip.open(DATA / f"{year}.jsonl.gz") as lines:
        bodies = [line.rstrip(b"\n") for line in lines]
    rows = [row.grant for row in read_grants(DATA / "online-retail-grants.csv.gz")]
    grants = [row for row in rows if isinstance(row, Grant)]
    assert len(grants) == len(rows)
    terms = parse_campaigns((DATA / f"{year}-campaigns.toml").read_text())
    codes = DATA / f"{year}-codes.csv.gz"
    for url in (storm_world.url, storm_world.spare_url):
        with closing(Session(url)) as session:
            load_campaigns(session.connection, terms)
            load_codes(session.connection, read_codes(codes) if codes.exists() else ())
            grant(session, grants, NOON)
    calm = calm_balances(storm_world.spare_url, bodies)
    expected = json.loads(gzip.decompress((DATA / f"{year}-expected.json.gz").read_bytes()))
    assert calm == expected, "also without any fault the balances must be those that lie beside the orders"
    return bodies, calm
