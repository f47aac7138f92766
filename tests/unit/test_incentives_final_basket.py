"""Final baskets, offers and what they leave standing (rules 5, 10 and 12): in any order of arrival, and by naive arithmetic."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from incentive_fleet.events.models import EventData
from incentive_fleet.incentives.basket import Units, buy_get_value, set_price_value
from incentive_fleet.incentives.campaigns import BuyGet, SetPrice
from incentive_fleet.incentives.money import half_up
from tests.domain import World, back, cancelled, day, delivered, estimated, finalized, line, placed, refunded, terms

TERMS = (
    terms("coupon", "tenth", code="TENTH", rate_bps=1_000, min_subtotal=500, stacking="stackable"),
    terms("coupon", "strict", code="STRICT", amount=120, min_basket=700, recheck_minimum=True, stacking="stackable"),
    terms(
        "coupon",
        "trio",
        auto=True,
        set_price={"units": 3, "price": 500},
        line_kinds=["goods", "fee"],
        stacking="stackable",
    ),
    terms(
        "earn",
        "tiers",
        tiers=[{"min_subtotal": 0, "rate_bps": 300}, {"min_subtotal": 900, "amount": 77}],
        valid_days=20,
    ),
    terms("make_good", "m", rate_bps=250, valid_days=9),
)
NAMES = ("a", "b", "c", "d")
LINES = st.lists(
    st.tuples(
        st.sampled_from(NAMES),
        st.integers(1, 4),
        st.integers(0, 900),
        st.sampled_from([None, None, "goods", "fee", "deposit", "tip"]),
    ),
    unique_by=lambda entry: entry[0],
    max_size=4,
)
PIECES = st.lists(
    st.tuples(st.sampled_from(NAMES), st.integers(1, 1_500), st.sampled_from(["returned", "undelivered", "goodwill"])),
    min_size=1,
    max_size=3,
)
DAYS = st.integers(0, 4)


def basket(entries: list[tuple[str, int, int, str | None]]) -> list[dict[str, Any]]:
    return [line(name, quantity, price, kind=kind) for name, quantity, price, kind in entries]


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[EventData], list[EventData]]:
    """The facts of one order, mostly estimated, and the same with repeats in another order."""
    lines = basket(draw(LINES.filter(bool)))
    placing = placed(
        "o1", *lines, coupons=draw(st.permutations(["TENTH", "STRICT"])), credit=draw(st.integers(0, 2_000))
    )
    facts: list[EventData] = [estimated(placing) if draw(st.integers(0, 4)) else placing]
    if draw(st.integers(0, 4)):
        facts.append(finalized("o1", *basket(draw(LINES)), at=day(draw(DAYS))))
    if draw(st.integers(0, 3)) == 0:
        facts.append(cancelled("o1", at=day(draw(DAYS))))
    if draw(st.booleans()):
        missing = dict.fromkeys(draw(st.lists(st.sampled_from(NAMES), unique=True, max_size=2)), 1)
        facts.append(delivered("o1", at=day(draw(DAYS)), promised=draw(st.none() | st.just(day(0.5))), missing=missing))
    for number in range(draw(st.integers(0, 3))):
        whole = draw(st.integers(0, 4)) == 0
        pieces = [] if whole else [back(name, amount=amount, reason=why) for name, amount, why in draw(PIECES)]
        facts.append(refunded(f"r{number}", *pieces, at=day(draw(DAYS))))
    return facts, draw(st.permutations([*facts, *draw(st.lists(st.sampled_from(facts), max_size=3))]))


def world_with_credit() -> World:
    world = World(*TERMS)
    world.give(600, until=day(6))
    world.give(600, until=day(300))
    return world


def told(world: World) -> list[dict[str, Any]]:
    return [json.loads(outcome.body)["data"] for outcome in world.working.writes.outcomes if outcome.order_id]


@settings(max_examples=400)
@given(histories())
def test_any_order_of_arrival_ends_equal_in_balances_lines_and_money(
    history: tuple[list[EventData], list[EventData]],
) -> None:
    in_order, as_it_came = world_with_credit(), world_with_credit()
    in_order.take(*history[0])
    as_it_came.take(*history[1])
    assert as_it_came.balances == in_order.balances
    assert as_it_came.working.writes.anomalies == in_order.working.writes.anomalies
    ends = []
    for world in (in_order, as_it_came):
        outcomes = told(world)
        ends.append((outcomes[-1]["lines"], sum(data["money_due_back"] for data in outcomes), len(outcomes)))
        assert all(data["money_due_back"] >= 0 for data in outcomes)
        standing = sum(one["discount"] + one["credit"] for one in outcomes[-1]["lines"])
        assert standing == world.balance("order:o1")
        world.assert_sound()
    assert ends[0] == ends[1]


@settings(max_examples=200)
@given(LINES.filter(bool), LINES, st.lists(st.integers(1, 400), max_size=6))
def test_partial_refunds_of_a_final_basket_meet_the_full_one_in_credit_and_in_money(
    first: list[tuple[str, int, int, str | None]], second: list[tuple[str, int, int, str | None]], parts: list[int]
) -> None:
    at_once, in_parts = world_with_credit(), world_with_credit()
    placing = placed("o1", *basket(first), coupons=["TENTH"], credit=500)
    for world in (at_once, in_parts):
        world.take(estimated(placing), finalized("o1", *basket(second)))
    for number, amount in enumerate(parts):
        pieces = [back(name, amount=amount) for name, *_ in second]
        if pieces:
            in_parts.take(refunded(f"r{number}", *pieces))
    for world in (at_once, in_parts):
        world.take(refunded("rest"))
    assert in_parts.balances == at_once.balances
    assert in_parts.balance("order:o1") == 0
    due = [sum(data["money_due_back"] for data in told(world)) for world in (at_once, in_parts)]
    assert due[0] == due[1]


UNITS = st.lists(st.builds(Units, st.integers(1, 50), st.integers(1, 6)), max_size=5)


@settings(max_examples=400)
@given(UNITS, st.integers(1, 4), st.integers(0, 120), st.none() | st.integers(1, 4))
def test_a_price_for_a_set_is_as_if_each_unit_stood_alone(
    units: list[Units], of: int, price: int, most: int | None
) -> None:
    prices = sorted((one.price for one in units for _ in range(one.count)), reverse=True)
    sets = len(prices) // of if most is None else min(most, len(prices) // of)
    naive = sum(max(0, sum(prices[number * of : (number + 1) * of]) - price) for number in range(sets))
    assert set_price_value(SetPrice(of, price, most), units) == naive


@settings(max_examples=400)
@given(UNITS, st.integers(1, 3), st.integers(1, 3), st.integers(1, 10_000), st.none() | st.integers(1, 4))
def test_buying_some_and_getting_some_is_as_if_each_unit_stood_alone(
    units: list[Units], buy: int, get: int, rate: int, most: int | None
) -> None:
    prices = sorted(one.price for one in units for _ in range(one.count))
    sets = len(prices) // (buy + get) if most is None else min(most, len(prices) // (buy + get))
    assert buy_get_value(BuyGet(buy, get, rate, most), units) == half_up(sum(prices[: sets * get]) * rate, 10_000)


@pytest.mark.parametrize("lines", [1, 2_000])
def test_sets_of_a_million_units_a_line_cost_a_step_a_line(lines: int) -> None:
    units = [Units(10 + number, 1_000_000) for number in range(lines)]
    value = set_price_value(SetPrice(1_000_000, 7), units)
    assert value == sum(1_000_000 * one.price - 7 for one in units)


def test_what_the_placing_reached_stays_reached_unless_the_campaign_asks_again() -> None:
    world = World(
        terms("coupon", "kept", code="KEPT", tiers=[{"min_subtotal": 1_000, "rate_bps": 1_000}], stacking="stackable"),
        terms(
            "coupon", "asked", code="ASKED", amount=50, min_subtotal=1_000, recheck_minimum=True, stacking="stackable"
        ),
    )
    world.take(estimated(placed("o1", line("a", 1, 1_000), coupons=["KEPT", "ASKED"])))
    world.take(finalized("o1", line("a", 1, 400)))
    assert Counter(world.kinds()) == Counter(
        [("coupon", 100), ("coupon", 50), ("coupon_reversal", 60), ("coupon_reversal", 50)]
    )
    assert [release[0] for release in world.working.writes.released] == ["asked"]
    [*_, outcome] = told(world)
    assert outcome["coupons"] == [
        {"code": "KEPT", "campaign_id": "kept", "before": 100, "after": 40, "released": False},
        {"code": "ASKED", "campaign_id": "asked", "before": 50, "after": 0, "released": True},
    ]


def test_a_higher_tier_counts_and_more_than_the_budget_bears_is_not_given() -> None:
    tiers = [{"min_subtotal": 500, "amount": 50}, {"min_subtotal": 1_500, "amount": 300}]
    for budget, after in ((300, 300), (299, 50)):
        world = World(terms("coupon", "k", code="K", tiers=tiers, budget=budget))
        world.take(estimated(placed("o1", line("a", 1, 600), coupons=["K"])), finalized("o1", line("a", 1, 1_600)))
        assert world.outcome()["coupons"][0]["after"] == after
        assert world.balance("campaign:k") == after


def test_a_redelivered_placing_with_a_field_that_came_later_is_a_conflict_and_with_its_default_a_duplicate() -> None:
    world = World()
    plain = placed("o1", line("a"))
    assert [verdict.value for verdict in world.take(plain, placed("o1", line("a", kind="goods")))] == [
        "applied",
        "duplicate",
    ]
    assert world.take(estimated(plain))[0].value == "conflict"
    assert world.take(placed("o1", line("a", kind="fee")))[0].value == "conflict"


def test_an_order_without_goods_never_counts_as_a_first_one_and_a_returned_one_counts_no_more() -> None:
    world = World(terms("coupon", "first", code="FIRST", amount=10, first_orders=1))
    world.take(placed("fees", line("a", kind="fee"), coupons=["FIRST"]))
    assert world.outcome("fees")["coupons"][0]["refusal"] == "below-minimum"
    world.take(placed("one", line("a"), coupons=["FIRST"]), placed("two", line("a"), coupons=["FIRST"]))
    assert world.outcome("two")["coupons"][0]["refusal"] == "not-first-order"
    world.take(refunded("r1", order="one"), refunded("r2", back("a"), order="two"))
    world.take(placed("three", line("a"), coupons=["FIRST"]))
    assert world.outcome("three")["coupons"][0]["discount"] == 10


@pytest.mark.parametrize(("lines", "told_lines"), [(500, 500), (2_000, None)])
def test_only_an_outcome_that_would_exceed_240_kib_leaves_its_lines_out(lines: int, told_lines: int | None) -> None:
    world = World(terms("coupon", "tenth", code="TENTH", rate_bps=1_000))
    basket = [line(f"{number:0150}", 1, 100) for number in range(lines)]
    world.take(placed("o1", *basket, coupons=["TENTH"]))
    [outcome] = [one for one in world.working.writes.outcomes if one.order_id]
    assert len(outcome.body.encode()) <= 240 * 1024
    data = json.loads(outcome.body)["data"]
    assert (len(data["lines"]) if data["lines"] is not None else None) == told_lines
    assert data["coupons"][0]["discount"] == lines * 10
