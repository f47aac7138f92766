"""Real baskets and the worlds of groceries over both brokers while workers die, where they lie beside the checkout.

The year runs under terms that never bind: shuffled and repeated it must end alike, and a part of the customers by themselves;
what is told of each fact is as expected when each order goes event by event. In the worlds limits and budgets bind, so each
goes event by event, all of them side by side.
"""

from __future__ import annotations

import gzip
import json
import random
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from incentive_fleet.ledger.outcome_export import outcomes
from incentive_fleet.ledger.session import Session
from tests.brokers_and_workers import SOURCES, Brokers, Source, environment_of
from tests.command import Ran, incentives
from tests.expectations import (
    BETWEEN,
    DATA,
    GROCERIES,
    PHASES,
    YEAR,
    counted_of_worlds,
    differing,
    expected,
    outcomes_of,
    wrong_notices_of_worlds,
    wrong_outcomes_of_the_year,
    wrong_outcomes_of_worlds,
    wrong_quotes_of_worlds,
)
from tests.killing import Killed, play_killing
from tests.shop import balances, faults
from tests.strands import Strands, overtaken, play_strands

BROKER_SETTINGS = {"sqs_visibility_s": 2}

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="the real data is not beside this checkout")

Say = Callable[[str], None]


def fleet_on(brokers: Brokers, sources: Sequence[Source], database_url: str, folder: Path) -> Killed:
    settings = brokers.settings.model_copy(update={"database_url": database_url})
    return Killed(brokers, sources, settings, folder / "log", random.Random(13))


@contextmanager
def running(killed: Killed) -> Iterator[None]:
    """The fleet runs, comes to rest, and leaves no process behind."""
    killed.fleet.start()
    try:
        yield
        killed.come_to_rest()
    finally:
        killed.clear_away()


def run(killed: Killed, *words: str | Path, code: int = 0) -> Ran:
    ran = incentives(*words, env=environment_of(killed.settings))
    assert ran.code == code, ran.err
    return ran


def published(killed: Killed) -> list[dict[str, Any]]:
    with closing(Session(killed.settings.need_database_url())) as session:
        return [json.loads(body) for body in outcomes(session.connection)]


def assert_nothing_is_left(killed: Killed) -> None:
    assert faults(killed.settings.need_database_url()) == {}
    for source in SOURCES:
        assert killed.brokers.left(source) == {}
        assert killed.brokers.letters(source) == []


def the_year(part: int) -> tuple[list[bytes], set[str]]:
    """The events of one of so many customers, and the names of their accounts and orders."""
    with gzip.open(DATA / f"{YEAR}.jsonl.gz") as lines:
        bodies = {line.rstrip(b"\n"): json.loads(line)["data"] for line in lines}
    ours = {
        f"{name}:{id_}"
        for data in bodies.values()
        if zlib.crc32(data.get("customer_id", "").encode()) % part == 0
        for name, id_ in (
            *((name, data["customer_id"]) for name in ("wallet", "pending", "debt") if "customer_id" in data),
            *([("order", data["order_id"])] if "customer_id" in data else ()),
        )
    }
    return [body for body, data in bodies.items() if part == 1 or f"order:{data['order_id']}" in ours], ours


def load_the_year(killed: Killed) -> None:
    run(killed, "campaigns", "load", DATA / f"{YEAR}-campaigns.toml")
    run(killed, "codes", "load", DATA / f"{YEAR}-codes.csv.gz")
    run(killed, "grants", "load", DATA / "online-retail-grants.csv.gz")


def assert_ends_as_the_year(killed: Killed, part: int, ours: set[str]) -> None:
    ended, wanted = (
        {key: value for key, value in found.items() if part == 1 or key.split("|")[0] in ours}
        for found in (
            balances(killed.settings.need_database_url()),
            expected(DATA / f"{YEAR}-expected.json.gz"),
        )
    )
    assert len(wanted) > 100
    assert differing(ended, wanted) == {}
    assert_nothing_is_left(killed)
    with psycopg.connect(killed.settings.need_database_url(), autocommit=True) as owner:
        assert owner.execute("SELECT reason, body FROM dead_letters LIMIT 1").fetchone() is None


def due_back(facts: Iterable[tuple[str, int]], ours: set[str], part: int) -> Counter[str]:
    """The money of each order that its outcomes made due: in sum the same, whatever came first."""
    sums: Counter[str] = Counter()
    for order, money in facts:
        if part == 1 or f"order:{order}" in ours:
            sums[order] += money
    return +sums


def shuffled_ends_as_the_year(killed: Killed, part: int, kills: int) -> None:
    bodies, ours = the_year(part)
    load_the_year(killed)
    play_killing(killed, bodies, kills)
    assert killed.kills >= kills - 2, "nearly every kill found a worker"
    assert_ends_as_the_year(killed, part, ours)
    told = ((data["order_id"], data["money_due_back"]) for data in outcomes_of(published(killed)))
    wanted = expected(DATA / f"{YEAR}-expected-outcomes.json.gz")
    should = ((key.rpartition("|")[0], numbers[0]) for key, numbers in wanted.items())
    assert differing(due_back(told, ours, part), due_back(should, ours, part)) == {}


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("source", "part"), [("rabbitmq", 16), ("sqs", 48)], ids=SOURCES[::-1])
def test_baskets_of_some_customers_end_as_expected_over_a_broker_whose_workers_die(
    source: Source, part: int, brokers: Brokers, database_url: str, tmp_path: Path, say: Say
) -> None:
    killed = fleet_on(brokers, [source], database_url, tmp_path)
    shuffled_ends_as_the_year(killed, part, kills=4)
    say(f"{killed.kills} workers killed")


@pytest.mark.chaos
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("source", SOURCES)
def test_the_year_of_baskets_shuffled_ends_as_expected_over_a_broker_whose_workers_die(
    source: Source, brokers: Brokers, database_url: str, tmp_path: Path, say: Say
) -> None:
    killed = fleet_on(brokers, [source], database_url, tmp_path)
    shuffled_ends_as_the_year(killed, 1, kills=40)
    say(f"{killed.kills} workers killed")


def order_of_the_year(body: bytes) -> str:
    return str(json.loads(body)["data"]["order_id"])


@pytest.mark.chaos
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("source", SOURCES)
def test_the_year_order_by_order_tells_the_expected_outcomes_over_a_broker_whose_workers_die(
    source: Source, brokers: Brokers, database_url: str, tmp_path: Path, say: Say
) -> None:
    killed = fleet_on(brokers, [source], database_url, tmp_path)
    load_the_year(killed)
    strands, (bodies, _) = Strands(order_of_the_year), the_year(1)
    strands.add(bodies)
    with running(killed):
        play_strands(killed, strands, kill_every=1_500)
    assert killed.kills >= 30
    assert_ends_as_the_year(killed, 1, set())
    assert wrong_outcomes_of_the_year(published(killed)) == {}
    say(f"{len(bodies)} events, {killed.kills} workers killed")


def world_of(body: bytes) -> str:
    """The currency that the ids of its events begin with."""
    return str(json.loads(body).get("subject"))[:3]


def load_the_worlds(killed: Killed) -> None:
    run(killed, "campaigns", "load", GROCERIES / "campaigns.toml")
    run(killed, "codes", "load", GROCERIES / "codes.csv")
    run(killed, "audiences", "load", GROCERIES / "audiences.csv")
    run(killed, "grants", "load", GROCERIES / "grants.csv", code=1)  # some rows are refused


def play_the_worlds(killed: Killed, kill_every: int) -> Strands:
    strands = Strands(world_of)
    for phase, until in PHASES:
        for step in BETWEEN.get(phase, ()):
            run(killed, *(GROCERIES / word if word.endswith((".csv", ".toml")) else word for word in step))
        with gzip.open(GROCERIES / f"phase-{phase}.jsonl.gz") as lines:
            strands.add(line.rstrip(b"\n") for line in lines)
        play_strands(killed, strands, kill_every)
        run(killed, "expire", "--as-of", f"{until}T00:00:00Z")
        run(killed, "remind", "--as-of", f"{until}T00:00:00Z", "--days", "14")
    return strands


def assert_rejected_as_the_worlds(database_url: str, strands: Strands) -> None:
    """Each message that the worlds refuse is a dead letter for its reason, and no other is one but what was overtaken."""
    wanted = sum(map(Counter, counted_of_worlds()), Counter[str]())
    del wanted["duplicate"]  # the brokers and the kills make more of them
    with psycopg.connect(database_url, autocommit=True) as owner:
        rows = owner.execute("SELECT reason, count(DISTINCT body) FROM dead_letters GROUP BY reason").fetchall()
        late = overtaken(strands, owner)
    found: Counter[str] = Counter()
    for reason, bodies in rows:
        found[reason if reason in wanted else "malformed"] += bodies
    assert found == wanted + Counter({"conflict": len(late)})


@pytest.mark.chaos
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("sources", [["rabbitmq"], ["sqs"], SOURCES], ids=["rabbitmq", "sqs", "both"])
def test_every_world_ends_as_expected_over_brokers_whose_workers_die(
    sources: Sequence[Source], brokers: Brokers, database_url: str, tmp_path: Path, say: Say
) -> None:
    killed = fleet_on(brokers, sources, database_url, tmp_path)
    load_the_worlds(killed)
    with running(killed):
        strands = play_the_worlds(killed, kill_every=300)
    assert killed.kills >= 20
    assert differing(balances(database_url), expected(GROCERIES / "expected.json.gz")) == {}
    assert_nothing_is_left(killed)
    told = published(killed)
    assert wrong_outcomes_of_worlds(told) == {}
    assert wrong_notices_of_worlds(told) == {}
    answers = run(killed, "quote", GROCERIES / "quotes.jsonl.gz").out.splitlines()
    assert wrong_quotes_of_worlds([json.loads(answer) for answer in answers]) == {}
    assert_rejected_as_the_worlds(database_url, strands)
    say(f"{strands.sent.total()} events, {killed.kills} workers killed")
