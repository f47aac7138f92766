"""Many claimers of one thing, in several processes: a limit of L is used exactly L times, a budget is never overspent, a
wallet never below zero, and nobody deadlocks. What was retried is counted by Postgres and printed.
"""

from __future__ import annotations

import json
import multiprocessing
import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from incentive_fleet.embedded import sample_shop
from incentive_fleet.events.codec import decode
from incentive_fleet.incentives.campaign_file import parse_campaigns
from incentive_fleet.ledger.batch import Verdict, apply_events
from incentive_fleet.ledger.grants import Grant, grant
from incentive_fleet.ledger.session import Session
from incentive_fleet.ledger.terms import load_campaigns
from tests.shop import balances, calm_balances, faults, open_shop

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
PROCESSES = 4
ORDERS = 120
WINDOW = 'currency = "EUR"\nstarts_at = 2026-01-01T00:00:00Z\nends_at = 2027-01-01T00:00:00Z\n'
Bodies = list[bytes]
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Share:
    """What one process does: batches in the order given, from the moment that all are ready."""

    url: str
    batches: list[Bodies]


def claim(share: Share) -> int:
    """Apply the batches; how many events took effect here."""
    with closing(Session(share.url)) as session:
        session.connection.execute("SELECT 1")  # connected: from here on all claim at once
        gate().wait()
        return sum(
            verdict is Verdict.APPLIED
            for bodies in share.batches
            for verdict in apply_events(session, [decode(body) for body in bodies]).verdicts
        )


_gates: list[Any] = []


def enter(barrier: Any) -> None:
    """Each process of the pool is given the barrier that starts all at once."""
    _gates.append(barrier)


def gate() -> Any:
    return _gates[0]


@contextmanager
def claimers(parties: int = PROCESSES) -> Iterator[ProcessPoolExecutor]:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(parties, context, initializer=enter, initargs=(context.Barrier(parties),)) as pool:
        yield pool


@pytest.fixture(scope="module")
def pool() -> Iterator[ProcessPoolExecutor]:
    """Four processes, started once: a start costs more than the claims."""
    with claimers() as pool:
        yield pool


@contextmanager
def counted(url: str, what: str, say: Say) -> Iterator[None]:
    """Print what Postgres counted meanwhile; no deadlock is allowed."""
    before = _counters(url)
    yield
    deadlocks, rollbacks = (after - was for after, was in zip(_counters(url), before, strict=True))
    say(f"{what}: {deadlocks} deadlocks, {rollbacks} transactions rolled back and tried again")
    assert deadlocks == 0


def _counters(url: str) -> tuple[int, int]:
    """Sessions report what they counted when they end; ours have ended by now."""
    with psycopg.connect(url, autocommit=True) as owner:
        others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        deadline = time.monotonic() + 10
        while owner.execute(others).fetchone() != (0,):
            assert time.monotonic() < deadline, "a session is still open"
        row = owner.execute(
            "SELECT deadlocks, xact_rollback FROM pg_stat_database WHERE datname = current_database()"
        ).fetchone()
    assert row is not None
    return int(row[0]), int(row[1])


def load(url: str, *tables: str) -> None:
    with closing(Session(url)) as session:
        load_campaigns(session.connection, parse_campaigns("\n".join(tables)))


def placed(number: int, customer: str, *, coupons: list[str] | None = None, credit: int = 0) -> bytes:
    order = f"order-{number}"
    data = {
        "order_id": order,
        "customer_id": customer,
        "currency": "EUR",
        "placed_at": NOON.isoformat(),
        "lines": [{"line_id": "1", "sku": "s", "quantity": 1, "unit_price": 1_000}],
        "coupons": coupons or [],
        "credit_requested": credit,
    }
    event = {"specversion": "1.0", "id": order, "source": "/claims", "type": "order-placed.v1"}
    return json.dumps(event | {"time": NOON.isoformat(), "subject": order, "data": data}).encode()


def dealt(bodies: Bodies, url: str, seed: int, *, everyone_all: bool = False) -> list[Share]:
    """A share for each process, shuffled and in batches of one to ten; or everything to everyone, each in its own order."""
    chance = random.Random(seed)
    shares = []
    for number in range(PROCESSES):
        mine = list(bodies) if everyone_all else bodies[number::PROCESSES]
        chance.shuffle(mine)
        batches = []
        while mine:
            size = chance.randint(1, 10)
            batches.append(mine[:size])
            mine = mine[size:]
        shares.append(Share(url, batches))
    return shares


def race(pool: ProcessPoolExecutor, shares: list[Share]) -> int:
    return sum(pool.map(claim, shares))


def one(url: str, query: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute(query.encode()).fetchone()
    assert row is not None
    return int(row[0])


@pytest.mark.parametrize("everyone_all", [False, True], ids=["each order once", "each order by everyone"])
def test_a_coupon_of_limit_l_is_redeemed_exactly_l_times(
    database_url: str, pool: ProcessPoolExecutor, everyone_all: bool, say: Say
) -> None:
    load(database_url, f'[[campaign]]\nid = "c"\nkind = "coupon"\ncode = "C"\namount = 100\ntotal = 37\n{WINDOW}')
    bodies = [placed(number, f"customer-{number % 50}", coupons=["C"]) for number in range(ORDERS)]
    with counted(database_url, f"coupon, {'overlapping' if everyone_all else 'disjoint'}", say):
        assert race(pool, dealt(bodies, database_url, 1, everyone_all=everyone_all)) == ORDERS
    assert one(database_url, "SELECT count(*) FROM redemptions WHERE released_at IS NULL") == 37
    assert balances(database_url)["campaign:c|EUR"] == 3_700
    assert faults(database_url) == {}


def test_a_coupon_once_per_customer_is_redeemed_once_by_each(
    database_url: str, pool: ProcessPoolExecutor, say: Say
) -> None:
    terms = f'[[campaign]]\nid = "c"\nkind = "coupon"\ncode = "C"\namount = 100\nper_customer = 1\n{WINDOW}'
    load(database_url, terms)
    bodies = [placed(number, f"customer-{number % 9}", coupons=["C"]) for number in range(ORDERS)]
    with counted(database_url, "per customer", say):
        assert race(pool, dealt(bodies, database_url, 2)) == ORDERS
    assert one(database_url, "SELECT count(*) FROM redemptions") == 9
    assert faults(database_url) == {}


def test_a_budget_is_never_overspent_and_used_as_far_as_it_goes(
    database_url: str, pool: ProcessPoolExecutor, say: Say
) -> None:
    coupon = f'[[campaign]]\nid = "c"\nkind = "coupon"\ncode = "C"\nrate_bps = 777\nbudget = 2000\n{WINDOW}'
    earn = f'[[campaign]]\nid = "e"\nkind = "earn"\nrate_bps = 300\nbudget = 1000\n{WINDOW}'
    load(database_url, coupon, earn)
    bodies = [placed(number, f"customer-{number}", coupons=["C"]) for number in range(ORDERS)]
    with counted(database_url, "budget", say):
        assert race(pool, dealt(bodies, database_url, 3)) == ORDERS
    ended = balances(database_url)
    discount, earned = 78, 28  # half_up(1000 * 7.77 %), half_up((1000 - 78) * 3 %)
    assert ended["campaign:c|EUR"] == 2_000 // discount * discount
    # After the coupon's budget is used up, an order earns on all of its value: 30. Either way less than one is left.
    assert 1_000 - 30 < ended["campaign:e|EUR"] <= 1_000
    assert earned < 30
    assert faults(database_url) == {}


def test_a_wallet_is_spent_to_the_last_unit_and_never_below(
    database_url: str, pool: ProcessPoolExecutor, say: Say
) -> None:
    load(database_url, f'[[campaign]]\nid = "g"\nkind = "grant"\n{WINDOW}')
    with closing(Session(database_url)) as session:
        gifts = [Grant(f"k{number}", "ann", "EUR", 1_111, "g", None) for number in range(9)]
        grant(session, gifts, NOON - timedelta(days=1))
    bodies = [placed(number, "ann", credit=123) for number in range(ORDERS)]
    with counted(database_url, "wallet", say):
        assert race(pool, dealt(bodies, database_url, 4)) == ORDERS
    ended = balances(database_url)
    assert "wallet:ann|EUR" not in ended
    assert sum(amount for account, amount in ended.items() if account.startswith("order:")) == 9_999
    assert faults(database_url) == {}


def test_shuffled_overlapping_batches_never_deadlock(database_url: str, pool: ProcessPoolExecutor, say: Say) -> None:
    shop = sample_shop.Shop(150, seed=5, customers=12, refunds=0.4)
    bodies = [body for _, body in sample_shop.events(shop)]
    open_shop(database_url, shop)
    with counted(database_url, f"{len(bodies)} events by each of {PROCESSES}", say):
        race(pool, dealt(bodies, database_url, 5, everyone_all=True))
    assert one(database_url, "SELECT count(*) FROM facts") == len(bodies)
    ended = balances(database_url)
    assert calm_balances(database_url, bodies) == ended  # all duplicates: nothing changes
    assert faults(database_url) == {}
