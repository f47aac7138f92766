"""Many at once for what only some can have: a code, a budget's rest when baskets grow, and a customer's first order."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from threading import Barrier
from typing import Any

from incentive_fleet.events.models import EventData
from incentive_fleet.ledger.balances import read_balances
from incentive_fleet.ledger.codes import PoolRow, load_codes, show_code
from incentive_fleet.ledger.session import Session
from incentive_fleet.ledger.verify import verify
from tests.domain import estimated, finalized, line, placed, refunded, terms
from tests.small_world import apply, load

CLAIMERS = 64
PATIENCE_S = 60


def at_once(url: str, facts: Sequence[EventData]) -> None:
    """Each fact in a session of its own, all of them connected before the first begins."""
    ready = Barrier(len(facts))

    def one(fact: EventData) -> None:
        with closing(Session(url)) as own:
            own.connection.execute("SELECT 1")
            ready.wait(PATIENCE_S)
            apply(own, fact)

    with ThreadPoolExecutor(len(facts)) as pool:
        list(pool.map(one, facts))


def told(session: Session, fact: str, worth: Callable[[dict[str, int]], int]) -> Counter[int]:
    """How many outcomes of this fact tell which worth of their first coupon."""
    rows = session.connection.execute("SELECT body FROM outbox WHERE fact = %s", (fact,)).fetchall()
    return Counter(worth(json.loads(body)["data"]["coupons"][0]) for (body,) in rows)


def outcome(session: Session, order: str, fact: str) -> dict[str, Any]:
    [(body,)] = session.connection.execute(
        "SELECT body FROM outbox WHERE order_id = %s AND fact = %s", (order, fact)
    ).fetchall()
    data: dict[str, Any] = json.loads(body)["data"]
    return data


def test_a_code_that_64_ask_for_gives_one_discount(session: Session, database_url: str) -> None:
    load(session, terms("coupon", "pool", codes="pool", amount=100, stacking="stackable", per_customer=9))
    load_codes(session.connection, [PoolRow(2, "pool", "ONLY", customer_id=None, expires_at=None)])
    at_once(database_url, [placed(f"o{number}", customer=f"c{number}", coupons=["only"]) for number in range(CLAIMERS)])
    assert told(session, "placing", lambda coupon: coupon["discount"]) == {100: 1, 0: CLAIMERS - 1}
    assert read_balances(session.connection)["campaign:pool|EUR"] == 100
    winner = str((show_code(session.connection, "ONLY") or {})["order_id"])
    assert outcome(session, winner, "placing")["coupons"][0]["discount"] == 100
    apply(session, refunded("r1", order=winner), placed("after", customer="zoe", coupons=["ONLY"]))
    assert outcome(session, "after", "placing")["coupons"][0]["discount"] == 100
    assert verify(session.connection).sound


def test_baskets_that_grow_at_once_take_no_more_than_the_budgets_rest(session: Session, database_url: str) -> None:
    load(session, terms("coupon", "tenth", code="TENTH", rate_bps=1_000, budget=CLAIMERS * 100 + 550))
    orders = [f"o{number}" for number in range(CLAIMERS)]
    apply(session, *(estimated(placed(order, customer=f"c-{order}", coupons=["TENTH"])) for order in orders))
    at_once(database_url, [finalized(order, line(unit_price=2_000)) for order in orders])
    assert told(session, "final-basket", lambda coupon: coupon["after"]) == {200: 5, 100: CLAIMERS - 5}
    assert read_balances(session.connection)["campaign:tenth|EUR"] == CLAIMERS * 100 + 500
    assert verify(session.connection).sound


def test_of_orders_placed_at_once_one_is_the_customers_first(session: Session, database_url: str) -> None:
    load(session, terms("coupon", "first", code="FIRST", amount=100, first_orders=1))
    at_once(database_url, [placed(f"o{number}", coupons=["FIRST"]) for number in range(CLAIMERS)])
    assert told(session, "placing", lambda coupon: coupon["discount"]) == {100: 1, 0: CLAIMERS - 1}
    assert verify(session.connection).sound
