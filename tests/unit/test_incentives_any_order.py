"""Any order, any repeats (rules 2.4): the balances of all accounts end equal; and what no history may ever break."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from incentive_fleet.events.models import EventData, OrderPlaced
from tests.domain import World, back, day, delivered, line, placed, refunded, terms

TERMS = (
    terms("coupon", "k1", code="K1", rate_bps=1_234, stacking="stackable"),
    terms("coupon", "k2", code="K2", amount=333, stacking="stackable", categories=["x"]),
    terms("earn", "e1", rate_bps=777, valid_days=20),
    terms("earn", "e2", amount=45, categories=["x"], reissue_days=3),
    terms("make_good", "m", rate_bps=250, valid_days=9),
)
LINE_IDS = ("a", "b", "c", "d")


# Strategies are made once: making one costs more than drawing from it.
UNITS, PRICES, CATEGORIES = st.integers(1, 5), st.integers(0, 2_000), st.sampled_from([None, "x", "y"])
COUPONS = st.lists(st.sampled_from(["K1", "K2", "NO"]), unique=True)
PROMISES = st.none() | st.just(day(0.5))
CURRENCIES = st.sampled_from(["EUR"] * 9 + ["USD"])
REASONS = st.sampled_from(["returned", "returned", "undelivered", "goodwill"])
NAMES = [LINE_IDS[:count] for count in (1, 2, 3, 4)]
NAME = {names: st.sampled_from(names) for names in (*NAMES, *((*names, "unknown") for names in NAMES))}
MISSING = {names: st.dictionaries(NAME[names], st.integers(1, 3), max_size=2) for names in NAMES}


@st.composite
def _pieces(draw: st.DrawFn, names: tuple[str, ...]) -> dict[str, Any]:
    reason = draw(REASONS)
    name = draw(NAME[*names, "unknown"] if draw(st.integers(0, 9)) == 0 else NAME[names])
    if draw(st.booleans()):
        piece: dict[str, Any] = back(name, quantity=draw(st.integers(1, 4)), reason=reason)
        return piece
    by_amount: dict[str, Any] = back(name, amount=draw(st.integers(1, 4_000)), reason=reason)
    return by_amount


PIECES = {names: st.lists(_pieces(names), min_size=1, max_size=3) for names in NAMES}


@st.composite
def orders(draw: st.DrawFn, order: str = "o1") -> list[EventData]:
    """The facts of one order: a placing, maybe a delivery, up to four refunds, some of them larger than the order."""
    names = LINE_IDS[: draw(st.integers(1, 4))]
    lines = [line(name, draw(UNITS), draw(PRICES), draw(CATEGORIES)) for name in names]
    facts: list[EventData] = [placed(order, *lines, coupons=draw(COUPONS), credit=draw(st.integers(0, 3_000)))]
    if draw(st.booleans()):
        missing = draw(MISSING[names])
        facts.append(delivered(order, at=day(draw(st.integers(1, 3))), promised=draw(PROMISES), missing=missing))
    for number in range(draw(st.integers(0, 4))):
        whole = draw(st.integers(0, 5)) == 0
        currency = draw(CURRENCIES)
        pieces = [] if whole else draw(PIECES[names])
        at = day(draw(st.integers(0, 4)))
        facts.append(refunded(f"r{number}", *pieces, order=order, currency=currency, at=at))
    return facts


@st.composite
def shuffled_and_repeated(draw: st.DrawFn) -> tuple[list[EventData], list[EventData]]:
    facts = draw(orders())
    repeats = draw(st.lists(st.sampled_from(facts), max_size=4))
    return facts, draw(st.permutations(facts + repeats))


def _world(credit: int = 2_000) -> World:
    world = World(*TERMS)
    world.give(credit // 2, until=day(6))
    world.give(credit - credit // 2, until=day(300))
    return world


@settings(max_examples=400)
@given(shuffled_and_repeated(), st.integers(2, 4_000))
def test_any_order_and_repetition_of_an_orders_facts_ends_equal(
    histories: tuple[list[EventData], list[EventData]], credit: int
) -> None:
    in_order, as_it_came = _world(credit), _world(credit)
    in_order.take(*histories[0])
    as_it_came.take(*histories[1])
    assert as_it_came.balances == in_order.balances
    assert as_it_came.working.writes.anomalies == in_order.working.writes.anomalies
    assert len(as_it_came.working.writes.outcomes) == len(histories[0])
    as_it_came.assert_sound()


@settings(max_examples=300)
@given(facts=orders(), parts=st.lists(st.integers(1, 6), min_size=1, max_size=6), late=st.booleans())
def test_partial_refunds_meet_the_full_one_to_the_minor_unit(
    facts: list[EventData], parts: list[int], late: bool
) -> None:
    placing = facts[0]
    assert isinstance(placing, OrderPlaced)
    at_once, in_parts = _world(), _world()
    for world in (at_once, in_parts):
        world.take(placing, *([delivered()] if late else []))
    at_once.take(refunded("all"))
    for number, amount in enumerate(parts):
        pieces = [back(entry.line_id, amount=amount * 97) for entry in placing.lines]
        in_parts.take(refunded(f"r{number}", *pieces))
        in_parts.assert_sound()
    in_parts.take(refunded("rest"))
    assert in_parts.balances == at_once.balances
    assert in_parts.balance("order:o1") == 0
    assert in_parts.balance("campaign:k1") == in_parts.balance("campaign:e1") == 0


@settings(max_examples=200)
@given(
    first=orders("o1"),
    second=orders("o2"),
    third=orders("o3"),
    data=st.data(),
)
def test_no_history_breaks_what_must_always_hold(
    first: list[EventData], second: list[EventData], third: list[EventData], data: st.DataObject
) -> None:
    """Several orders of one customer mixed, with expiry runs and grants taken back in between."""
    world = _world(300)
    grant = world.give(200, until=day(8))
    for fact in data.draw(st.permutations(first + second + third)):
        world.take(fact)
        world.assert_sound()
        act = data.draw(st.integers(0, 9))
        if act == 0:
            world.sweep(day(data.draw(st.integers(0, 40))))
        elif act == 1:
            world.take_back(grant)
        world.assert_sound()
    for order in ("o1", "o2", "o3"):
        applied = sum(amount for kind, amount in world.kinds(order) if kind in ("coupon", "credit"))
        undone = sum(amount for kind, amount in world.kinds(order) if kind in ("coupon_reversal", "credit_return"))
        assert applied - undone == world.balance(f"order:{order}")
        earned = sum(amount for kind, amount in world.kinds(order) if kind == "earn")
        fell = sum(
            amount for kind, amount in world.kinds(order) if kind in ("earn_cancel", "clawback", "clawback_debt")
        )
        assert fell <= earned, "never more reversed than applied"
