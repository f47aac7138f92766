"""Operators' acts beside consumers: expiry twice at once, and terms that are loaded while orders come in."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import closing
from datetime import datetime, timedelta
from threading import Barrier

import psycopg
import pytest

from incentive_fleet.incentives.campaign_file import parse_campaigns
from incentive_fleet.incentives.decision import Decision
from incentive_fleet.ledger import batch
from incentive_fleet.ledger.expiry import expire_lots
from incentive_fleet.ledger.grants import Grant, grant
from incentive_fleet.ledger.session import Session
from incentive_fleet.ledger.terms import load_campaigns
from tests.contract.brokers_under_test import eventually
from tests.integration import test_concurrency as racing
from tests.integration.test_concurrency import (
    NOON,
    WINDOW,
    Say,
    Share,
    claim,
    claimers,
    counted,
    dealt,
    gate,
    load,
    one,
    placed,
)
from tests.shop import balances, faults


@pytest.fixture(scope="module")
def pool() -> Iterator[ProcessPoolExecutor]:
    """Four processes, started once."""
    with claimers() as pool:
        yield pool


def sweep(share: tuple[str, int]) -> int:
    """Run the expiry so many times; the minor units that it moved."""
    url, times = share
    as_of = NOON + timedelta(days=30)
    with closing(Session(url)) as session:
        session.connection.execute("SELECT 1")
        gate().wait()
        return sum(expire_lots(session, as_of, timedelta(hours=24)).moved.get("EUR", 0) for _ in range(times))


def gifts_of(customers: int, expires_at: datetime) -> list[Grant]:
    """Two lots each: one that expires, and one that never does."""
    return [
        Grant(f"{kind}-{number}", f"customer-{number}", "EUR", 1_000, "g", expires_at if kind == "short" else None)
        for number in range(customers)
        for kind in ("short", "long")
    ]


def test_expiry_twice_at_once_beside_consumers_moves_each_lot_once(
    database_url: str, pool: ProcessPoolExecutor, say: Say
) -> None:
    load(database_url, f'[[campaign]]\nid = "g"\nkind = "grant"\n{WINDOW}')
    with closing(Session(database_url)) as session:
        grant(session, gifts_of(60, NOON + timedelta(days=1)), NOON - timedelta(days=1))
    bodies = [placed(number, f"customer-{number}", credit=300) for number in range(60)]
    shares = dealt(bodies, database_url, 6, everyone_all=True)[:2]
    with counted(database_url, "expiry beside consumers", say):
        swept = [pool.submit(sweep, (database_url, 5)) for _ in range(2)]
        claimed = [pool.submit(claim, share) for share in shares]
        assert sum(future.result() for future in claimed) == 60
        moved = sum(future.result() for future in swept)
    ended = balances(database_url)
    # Whoever was first, sweep or order: each order burned 300 of the one lot or of the other.
    assert moved == ended["breakage|EUR"]
    assert 60 * 700 <= moved <= 60 * 1_000
    wallets = sum(amount for account, amount in ended.items() if account.startswith("wallet:"))
    assert wallets + moved == 60 * 2_000 - 60 * 300
    assert faults(database_url) == {}


def load_midway(share: tuple[str, str, int]) -> int:
    """Load terms as soon as so many orders are in; how many campaigns changed."""
    url, terms, after = share
    with closing(Session(url)) as session:
        connection = session.connection
        gate().wait()
        while connection.execute("SELECT count(*) >= %s FROM decisions", (after,)).fetchone() != (True,):
            pass
        return load_campaigns(connection, parse_campaigns(terms)).changed


def redemptions_by_version(url: str) -> Counter[int]:
    """How many coupons were accepted under each version of the terms."""
    with psycopg.connect(url) as connection:
        rows = connection.execute("SELECT decision FROM decisions").fetchall()
    decisions = [Decision.from_json("", "EUR", row[0]) for row in rows]
    return Counter(coupon.version for decision in decisions for coupon in decision.coupons)


def test_a_total_that_is_loaded_beside_consumers_holds_from_its_load_on(
    database_url: str, pool: ProcessPoolExecutor, say: Say
) -> None:
    terms = f'[[campaign]]\nid = "c"\nkind = "coupon"\ncode = "C"\namount = 100\n{WINDOW}'
    load(database_url, terms)
    bodies = [placed(number, f"customer-{number}", coupons=["C"]) for number in range(400)]
    shares = dealt(bodies, database_url, 7)
    shares[0] = Share(database_url, shares[0].batches + shares[3].batches)
    with counted(database_url, "load beside consumers", say):
        loaded = pool.submit(load_midway, (database_url, terms + "total = 150\n", 60))
        claimed = [pool.submit(claim, share) for share in shares[:3]]
        assert sum(future.result() for future in claimed) == 400
        assert loaded.result() == 1
    accepted = redemptions_by_version(database_url)
    say(f"redemptions by version of the terms: {accepted[1]} without the total, {accepted[2]} under it")
    assert accepted[1] + accepted[2] == max(150, accepted[1])
    assert faults(database_url) == {}


def test_a_load_waits_for_what_was_decided_without_its_limit(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch that read the old terms commits before new ones are in, so nobody counts without seeing it."""
    terms = f'[[campaign]]\nid = "c"\nkind = "coupon"\ncode = "C"\namount = 100\n{WINDOW}'
    load(database_url, terms)
    decided, go_on = threading.Event(), threading.Event()

    def pause(step: str) -> None:
        if step == "before-commit":
            decided.set()
            assert go_on.wait(20)

    monkeypatch.setattr(batch, "failpoint", pause)
    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    alone = Share(database_url, [[placed(1, "ann", coupons=["C"])]])
    with ThreadPoolExecutor(2) as threads, monkeypatch.context() as without_gate:
        without_gate.setattr(racing, "gate", lambda: Barrier(1))
        try:
            claimed = threads.submit(claim, alone)
            assert decided.wait(20)
            loaded = threads.submit(load, database_url, terms + "total = 1\n")
            eventually(lambda: one(database_url, waiting) == 1)
            assert not loaded.done()
        finally:
            go_on.set()
        assert claimed.result() == 1
        loaded.result()
        assert threads.submit(claim, Share(database_url, [[placed(2, "bob", coupons=["C"])]])).result() == 1
    assert one(database_url, "SELECT count(*) FROM redemptions") == 1


def test_who_waited_for_a_wallet_sees_what_its_holder_booked(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock and the read of a wallet are one statement: balance and lot number must be those of after the wait."""
    load(database_url, f'[[campaign]]\nid = "g"\nkind = "grant"\n{WINDOW}')
    monkeypatch.setattr(racing, "gate", lambda: Barrier(1))
    waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
    with closing(Session(database_url)) as session, ThreadPoolExecutor(1) as threads:
        grant(session, [Grant("k1", "ann", "EUR", 100, "g", None)], NOON - timedelta(days=1))
        with session.connection.transaction():
            grant(session, [Grant("k2", "ann", "EUR", 50, "g", None)], NOON - timedelta(days=1))
            claimed = threads.submit(claim, Share(database_url, [[placed(1, "ann", credit=120)]]))
            eventually(lambda: one(database_url, waiting) == 1)
        assert claimed.result(20) == 1
    assert balances(database_url)["order:order-1|EUR"] == 120
    assert one(database_url, "SELECT body::json -> 'data' ->> 'wallet_balance' FROM outbox WHERE order_id <> ''") == 30
    assert one(database_url, "SELECT last_lot_no FROM wallets") == 2
    assert faults(database_url) == {}
