"""Many at once for what only some can have: a budget's rest when baskets grow, and a customer's first order."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

from incentive_fleet.events.models import EventData
from incentive_fleet.ledger.balances import read_balances
from incentive_fleet.ledger.session import Session
from incentive_fleet.ledger.verify import verify
from tests.domain import estimated, finalized, line, placed, terms
from tests.small_world import apply, load

THREADS = 12


def at_once(url: str, facts: Iterable[EventData]) -> None:
    """Each fact in a session of its own, so many side by side."""

    def one(fact: EventData) -> None:
        with closing(Session(url)) as own:
            apply(own, fact)

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(one, facts))


def told(session: Session, fact: str, worth: Callable[[dict[str, int]], int]) -> Counter[int]:
    """How many outcomes of this fact tell which worth of their first coupon."""
    rows = session.connection.execute("SELECT body FROM outbox WHERE fact = %s", (fact,)).fetchall()
    return Counter(worth(json.loads(body)["data"]["coupons"][0]) for (body,) in rows)


def test_baskets_that_grow_at_once_take_no_more_than_the_budgets_rest(session: Session, database_url: str) -> None:
    load(session, terms("coupon", "tenth", code="TENTH", rate_bps=1_000, budget=2_950))
    orders = [f"o{number}" for number in range(24)]
    apply(session, *(estimated(placed(order, customer=f"c-{order}", coupons=["TENTH"])) for order in orders))
    at_once(database_url, (finalized(order, line(unit_price=2_000)) for order in orders))
    assert told(session, "final-basket", lambda coupon: coupon["after"]) == {200: 5, 100: 19}
    assert read_balances(session.connection)["campaign:tenth|EUR"] == 2_900
    assert verify(session.connection).sound


def test_of_orders_placed_at_once_one_is_the_customers_first(session: Session, database_url: str) -> None:
    load(session, terms("coupon", "first", code="FIRST", amount=100, first_orders=1))
    at_once(database_url, (placed(f"o{number}", coupons=["FIRST"]) for number in range(24)))
    assert told(session, "placing", lambda coupon: coupon["discount"]) == {100: 1, 0: 23}
    assert verify(session.connection).sound
