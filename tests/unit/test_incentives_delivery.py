"""Delivery completed (rules 7): vesting, undelivered units, and making good what came late."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from incentive_fleet.ledger.batch import Verdict
from tests.domain import World, day, delivered, line, placed, refunded, terms


def test_what_is_left_of_each_earning_vests_as_a_lot_of_its_own() -> None:
    world = World(terms("earn", "e1", rate_bps=1_000, valid_days=10), terms("earn", "e2", amount=7))
    world.take(placed("o1", line(quantity=2)), delivered(at=day(1), missing={"a": 1}))
    assert world.kinds() == [
        ("earn", 200),
        ("earn", 7),
        ("earn_cancel", 100),
        ("earn_cancel", 4),
        ("vest", 100),
        ("vest", 3),
    ]
    assert world.lots() == [(1, 100), (2, 3)]
    assert [lot.expires_at for lot in world.wallet().lots.values()] == [day(11), None]
    assert world.balance("pending:ann") == 0


def test_nothing_vests_of_an_order_that_did_not_come() -> None:
    world = World(terms("earn", "e", rate_bps=1_000))
    world.take(placed("o1"), delivered(missing={"a": 1}), refunded("r1"))
    assert world.kinds() == [("earn", 100), ("earn_cancel", 100)]
    assert world.wallet().lots == {}


def test_a_vesting_settles_a_debt_out_of_its_own_lot() -> None:
    world = World(terms("earn", "e", rate_bps=1_000))
    world.take(placed("o1"), delivered(), placed("o2", credit=100), refunded(order="o1"))
    assert world.balance("debt:ann") == 100
    world.take(placed("o3", line(unit_price=1_500)), delivered("o3"))
    assert world.kinds("o3")[-2:] == [("vest", 150), ("debt_settlement", 100)]
    assert world.lots() == [(2, 50)]


def test_undelivered_units_of_a_line_that_the_order_lacks_are_an_anomaly() -> None:
    world = World()
    world.take(placed("o1"), delivered(missing={"x": 1, "a": 2}))
    assert world.working.writes.anomalies == {("o1", "unknown-line", "x"), ("o1", "exceeds-gross", "a")}


def test_an_order_is_delivered_once() -> None:
    world = World(terms("make_good", "m", amount=5))
    late = delivered(at=day(5), promised=day(1))
    assert world.take(placed(), late, late, delivered(at=day(6), promised=day(1))) == [
        Verdict.APPLIED,
        Verdict.APPLIED,
        Verdict.DUPLICATE,
        Verdict.CONFLICT,
    ]
    assert world.balance("wallet:ann") == 5


@pytest.mark.parametrize(
    ("keys", "minutes_late", "amount"),
    [
        ({"amount": 5}, 0, 0),
        ({"amount": 5}, 1, 5),
        ({"amount": 5, "grace_minutes": 60}, 60, 0),
        ({"amount": 5, "grace_minutes": 60}, 61, 5),
        ({"rate_bps": 500}, 1, 50),
        ({"rate_bps": 500, "max_amount": 20}, 1, 20),
        ({"amount": 5, "budget": 4}, 1, 0),
        ({"amount": 5, "budget": 5}, 1, 5),
        ({"amount": 5, "starts_at": day(3)}, 1, 0),
        ({"amount": 5, "ends_at": day(1)}, 1, 0),
    ],
)
def test_a_late_delivery_is_made_good(keys: dict[str, Any], minutes_late: int, amount: int) -> None:
    world = World(terms("make_good", "m", valid_days=3, **keys), terms("coupon", "k", code="K", amount=400))
    world.take(placed(coupons=["K"]), delivered(at=day(1) + timedelta(minutes=minutes_late), promised=day(1)))
    assert world.balance("wallet:ann") == amount, "a rate is taken of the gross, before incentives"
    assert [lot.expires_at for lot in world.wallet().lots.values()] == [
        day(4) + timedelta(minutes=minutes_late) for _ in range(bool(amount))
    ]


def test_a_make_good_over_budget_is_told_in_the_outcome() -> None:
    world = World(terms("make_good", "m", amount=5, budget=4))
    world.take(placed(), delivered(at=day(2), promised=day(1)))
    assert world.outcome()["made_good"] == [
        {"campaign_id": "m", "amount": 0, "expires_at": None, "refusal": "budget-exhausted"}
    ]


def test_a_delivery_without_a_promise_is_never_late_and_a_refund_does_not_take_making_good_back() -> None:
    world = World(terms("make_good", "m", amount=5))
    world.take(placed("o1"), delivered("o1", at=day(900)))
    assert world.balance("wallet:ann") == 0
    world.take(placed("o2"), delivered("o2", at=day(2), promised=day(1)), refunded(order="o2", at=day(3)))
    assert world.balance("wallet:ann") == 5
