"""Real baskets and the worlds of groceries over both brokers while workers die, where they lie beside the checkout.

The year runs under terms that never bind: shuffled and repeated it must end alike, and a part of the customers by themselves.
In the worlds limits and budgets bind, so each goes event by event, all of them side by side.
"""

from __future__ import annotations

import gzip
import json
import random
import zlib
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest

from incentive_fleet.errors import Malformed
from incentive_fleet.events.codec import decode
from incentive_fleet.events.facts import fact_of, order_of
from tests.brokers_and_workers import SOURCES, Brokers, Source, environment_of
from tests.command import incentives
from tests.contract.brokers_under_test import eventually
from tests.integration.test_real_data import DATA, expected
from tests.killing import Killed, play_killing
from tests.shop import balances, faults

BROKER_SETTINGS = {"sqs_visibility_s": 2}

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="the real data is not beside this checkout")

STORED_WITHIN_S = 60.0  # an event of each world, and its worker killed perhaps
PHASES = ((1, "2025-01-31"), (2, "2025-03-02"), (3, "2025-07-20"))


def fleet_on(brokers: Brokers, sources: Sequence[Source], database_url: str, folder: Path) -> Killed:
    settings = brokers.settings.model_copy(update={"database_url": database_url})
    return Killed(brokers, sources, settings, folder / "log", random.Random(13))


def load(killed: Killed, *words: str | Path, code: int = 0) -> None:
    assert incentives(*words, env=environment_of(killed.settings)).code == code


def assert_nothing_is_left(killed: Killed) -> None:
    assert faults(killed.settings.need_database_url()) == {}
    for source in SOURCES:
        assert killed.brokers.left(source) == {}
        assert killed.brokers.letters(source) == []


def the_year(part: int) -> tuple[list[bytes], set[str]]:
    """The events of one of so many customers, and the names of their accounts and orders."""
    with gzip.open(DATA / "online-retail-final.jsonl.gz") as lines:
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


def ends_as_the_year(killed: Killed, part: int, kills: int) -> None:
    bodies, ours = the_year(part)
    load(killed, "campaigns", "load", DATA / "online-retail-final-campaigns.toml")
    load(killed, "codes", "load", DATA / "online-retail-final-codes.csv.gz")
    load(killed, "grants", "load", DATA / "online-retail-grants.csv.gz")
    play_killing(killed, bodies, kills)
    ended, wanted = (
        {key: value for key, value in found.items() if part == 1 or key.split("|")[0] in ours}
        for found in (
            balances(killed.settings.need_database_url()),
            expected(DATA / "online-retail-final-expected.json.gz"),
        )
    )
    assert len(wanted) > 100
    assert ended == wanted
    assert_nothing_is_left(killed)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("source", "part"), [("rabbitmq", 16), ("sqs", 48)], ids=SOURCES[::-1])
def test_baskets_of_some_customers_end_as_expected_over_a_broker_whose_workers_die(
    source: Source, part: int, brokers: Brokers, database_url: str, tmp_path: Path, say: Callable[[str], None]
) -> None:
    killed = fleet_on(brokers, [source], database_url, tmp_path)
    ends_as_the_year(killed, part, kills=4)
    say(f"{killed.kills} workers killed")


@pytest.mark.chaos
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("source", SOURCES)
def test_the_year_of_baskets_ends_as_expected_over_a_broker_whose_workers_die(
    source: Source, brokers: Brokers, database_url: str, tmp_path: Path, say: Callable[[str], None]
) -> None:
    killed = fleet_on(brokers, [source], database_url, tmp_path)
    ends_as_the_year(killed, 1, kills=40)
    say(f"{killed.kills} workers killed")


@dataclass(slots=True)
class Worlds:
    """The worlds of a phase, side by side: of each the events that are left, and the one that is under way."""

    left: dict[str, deque[bytes]] = field(default_factory=dict)
    under_way: dict[str, bytes] = field(default_factory=dict)
    sent: Counter[bytes] = field(default_factory=Counter)

    def add(self, path: Path) -> None:
        with gzip.open(path) as lines:
            for line in lines:
                body = line.rstrip(b"\n")
                self.left.setdefault(world_of(body), deque()).append(body)

    def next(self) -> dict[str, bytes]:
        """One more event of each world of which none is under way."""
        started = {world: self.left[world].popleft() for world in list(self.left) if world not in self.under_way}
        self.left = {world: bodies for world, bodies in self.left.items() if bodies}
        self.under_way |= started
        self.sent.update(started.values())
        return started

    def settle(self, owner: psycopg.Connection[Any]) -> None:
        """What is a fact, a grant or a dead letter by now is not under way any more."""
        facts = dict(owner.execute("SELECT order_id || ' ' || fact, 1 FROM facts").fetchall())
        facts |= dict(owner.execute("SELECT ' grant:' || key, 1 FROM grants").fetchall())
        letters = {
            bytes(body): int(seen)
            for body, seen in owner.execute("SELECT body, sum(times_seen) FROM dead_letters GROUP BY body").fetchall()
        }
        self.under_way = {
            world: body
            for world, body in self.under_way.items()
            if identity_of(body) not in facts and letters.get(body, 0) < self.sent[body]
        }


def world_of(body: bytes) -> str:
    """The currency that the ids of its events begin with."""
    return str(json.loads(body).get("subject"))[:3]


def identity_of(body: bytes) -> str:
    try:
        data = decode(body).data
    except Malformed:
        return ""
    return f"{order_of(data)} {fact_of(data)[0]}"


def play_worlds(killed: Killed, worlds: Worlds, kill_every: int) -> None:
    """Event by event of each world, each by any broker, until none is left; a worker dies now and then."""
    alive = 0
    with psycopg.connect(killed.settings.need_database_url(), autocommit=True) as owner:
        while worlds.left or worlds.under_way:
            started = list(worlds.next().values())
            for number, source in enumerate(SOURCES):
                killed.brokers.publish(source, started[number :: len(SOURCES)])
            alive += len(started)
            if alive >= kill_every:
                killed.kill()
                alive = 0
            eventually(partial(some_are_done, killed, worlds, owner, len(worlds.under_way)), STORED_WITHIN_S)


def some_are_done(killed: Killed, worlds: Worlds, owner: psycopg.Connection[Any], before: int) -> bool:
    killed.fleet.running()
    worlds.settle(owner)
    return len(worlds.under_way) < before


def ends_as_the_worlds(killed: Killed, kill_every: int) -> None:
    worlds, folder = Worlds(), DATA / "conformance-2"
    load(killed, "campaigns", "load", folder / "campaigns.toml")
    load(killed, "codes", "load", folder / "codes.csv")
    load(killed, "audiences", "load", folder / "audiences.csv")
    load(killed, "grants", "load", folder / "grants.csv", code=1)  # some rows are refused
    killed.fleet.start()
    try:
        for phase, until in PHASES:
            if phase == 2:
                load(killed, "campaigns", "load", folder / "campaigns-2.toml")
                load(killed, "codes", "revoke", folder / "revoked.csv", "--reason", "leaked")
                load(killed, "audiences", "load", folder / "audiences-2.csv")
                load(killed, "wallets", "hold", "h1", "--reason", "dispute")
            if phase == 3:
                load(killed, "wallets", "release", "h1", "--reason", "settled")
            worlds.add(folder / f"phase-{phase}.jsonl.gz")
            play_worlds(killed, worlds, kill_every)
            load(killed, "expire", "--as-of", f"{until}T00:00:00Z")
            load(killed, "remind", "--as-of", f"{until}T00:00:00Z", "--days", "14")
        killed.come_to_rest()
    finally:
        killed.clear_away()
    ended = balances(killed.settings.need_database_url())
    wanted = expected(folder / "expected.json.gz")
    assert ended == wanted
    assert_nothing_is_left(killed)


@pytest.mark.chaos
@pytest.mark.timeout(1800)
def test_every_world_ends_as_expected_over_both_brokers_whose_workers_die(
    brokers: Brokers, database_url: str, tmp_path: Path, say: Callable[[str], None]
) -> None:
    killed = fleet_on(brokers, SOURCES, database_url, tmp_path)
    ends_as_the_worlds(killed, kill_every=500)
    say(f"{killed.kills} workers killed")
