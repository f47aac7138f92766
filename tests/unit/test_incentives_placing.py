"""What a placing gives (rules 5): every reason to refuse a coupon, in its order; discounts, credit and earnings."""

from __future__ import annotations

from typing import Any

import pytest

from incentive_fleet.incentives.booking import Burn
from tests.domain import World, day, line, placed, refunded, terms

# From the last reason of rules 5.1 to the first, each with terms that bring it about. A campaign is judged with the terms of
# its own step and of all steps before: it breaks every rule from its reason on, so the first that fits must win.
LADDER: list[tuple[str, dict[str, Any]]] = [
    ("budget-exhausted", {"budget": 1}),
    ("total-limit", {"total": 1}),
    ("customer-limit", {"per_customer": 1}),
    ("no-discount", {"rate_bps": 1}),
    ("below-minimum", {"min_subtotal": 1_001}),
    ("not-stackable", {"stacking": "exclusive"}),
    ("not-active", {"ends_at": day(-1)}),
    ("wrong-currency", {"currency": "USD"}),
]


@pytest.mark.parametrize("step", range(len(LADDER)), ids=[reason for reason, _ in LADDER])
def test_the_first_reason_that_fits_refuses_a_coupon(step: int) -> None:
    keys: dict[str, Any] = {"stacking": "stackable"}
    for _, more in LADDER[: step + 1]:
        keys |= more
    value = {} if "rate_bps" in keys else {"amount": 300}
    world = World(
        terms("coupon", "other", code="OTHER", amount=100, stacking="stackable"),
        terms("coupon", "judged", code="JUDGED", **value, **keys),
    )
    world.working.usage.redeem("judged", "ann")  # one use stands already, which the limits of 1 count
    world.take(placed("o1", line(unit_price=1_000), coupons=["OTHER", "JUDGED"]))
    assert [(refusal.code, refusal.reason) for refusal in world.decision().refusals] == [("JUDGED", LADDER[step][0])]
    assert [coupon.code for coupon in world.decision().coupons] == ["OTHER"]


def test_an_unknown_coupon_is_refused_and_the_others_are_not() -> None:
    world = World(terms("coupon", "k", code="GOOD", amount=100))
    world.take(placed(coupons=["WHAT", "good", "Good", "GOOD"]))
    assert [(r.code, r.campaign_id, r.reason) for r in world.decision().refusals] == [("WHAT", None, "unknown-coupon")]
    assert world.kinds() == [("coupon", 100)], "codes are upper-cased and repeats dropped"


@pytest.mark.parametrize(
    ("first", "second", "refused"),
    [
        ("stackable", "stackable", []),
        ("stackable", "exclusive", ["B"]),
        ("exclusive", "stackable", ["B"]),
        ("exclusive", "exclusive", ["B"]),
    ],
)
def test_stacking(first: str, second: str, refused: list[str]) -> None:
    world = World(
        terms("coupon", "a", code="A", amount=100, stacking=first),
        terms("coupon", "b", code="B", amount=100, stacking=second),
    )
    world.take(placed(coupons=["A", "B"]))
    assert [refusal.code for refusal in world.decision().refusals] == refused


def test_a_refused_coupon_does_not_stand_in_the_way_of_an_exclusive_one() -> None:
    world = World(
        terms("coupon", "a", code="A", amount=100, min_subtotal=5_000), terms("coupon", "b", code="B", amount=50)
    )
    world.take(placed(coupons=["A", "B"]))
    assert world.kinds() == [("coupon", 50)]


@pytest.mark.parametrize("when", [day(0), day(1)], ids=["start", "end"])
def test_a_window_holds_its_start_and_not_its_end(when: Any) -> None:
    world = World(terms("coupon", "k", code="K", amount=1, starts_at=day(0), ends_at=day(1)))
    world.take(placed(coupons=["K"], at=when))
    assert bool(world.kinds()) is (when == day(0))


def test_a_discount_of_zero_is_refused_and_uses_nothing_up() -> None:
    world = World(terms("coupon", "k", code="K", rate_bps=100, total=1, per_customer=1, budget=100))
    world.take(placed("o1", line(unit_price=49), coupons=["K"]))
    assert world.decision("o1").refusals[0].reason == "no-discount"
    assert world.working.writes.redemptions == []
    assert world.working.usage.live.get("k", 0) == 0
    world.take(placed("o2", line(unit_price=50), coupons=["K"]))
    assert world.kinds("o2") == [("coupon", 1)]


def test_a_discount_takes_no_more_than_is_left_to_pay_of_the_eligible_lines() -> None:
    world = World(
        terms("coupon", "big", code="BIG", amount=900, categories=["book"], stacking="stackable"),
        terms("coupon", "too", code="TOO", amount=900, categories=["book"], stacking="stackable"),
        terms("coupon", "none", code="NONE", amount=900, categories=["book"], stacking="stackable"),
    )
    world.take(placed("o1", line("a", category="book"), line("b", category="toy"), coupons=["BIG", "TOO", "NONE"]))
    assert world.kinds() == [("coupon", 900), ("coupon", 100)]
    assert [coupon.shares for coupon in world.decision().coupons] == [[900, 0], [100, 0]]
    assert world.decision().refusals[0].reason == "no-discount"


def test_a_rate_is_taken_of_what_is_left_to_pay_and_capped() -> None:
    world = World(
        terms("coupon", "a", code="A", amount=300, stacking="stackable"),
        terms("coupon", "b", code="B", rate_bps=5_000, stacking="stackable"),
        terms("coupon", "c", code="C", rate_bps=5_000, max_amount=7, stacking="stackable"),
    )
    world.take(placed(coupons=["A", "B", "C"]))
    assert world.kinds() == [("coupon", 300), ("coupon", 350), ("coupon", 7)]


@pytest.mark.parametrize(
    ("keys", "category", "eligible"),
    [
        ({}, None, True),
        ({"categories": ["x"]}, None, False),
        ({"categories": ["x"]}, "x", True),
        ({"categories": ["x"]}, "X", False),
        ({"excluded_categories": ["x"]}, "x", False),
        ({"excluded_categories": ["x"]}, None, True),
        ({"categories": ["x"], "excluded_categories": ["x"]}, "x", False),
    ],
)
def test_eligible_lines(keys: dict[str, Any], category: str | None, eligible: bool) -> None:
    world = World(terms("coupon", "k", code="K", amount=1, **keys))
    world.take(placed("o1", line(category=category), coupons=["K"]))
    assert [r.reason for r in world.decision().refusals] == ([] if eligible else ["below-minimum"])


def test_limits_count_live_redemptions_only() -> None:
    world = World(terms("coupon", "k", code="K", amount=10, total=2, per_customer=1))
    world.take(placed("o1", customer="ann", coupons=["K"]), placed("o2", customer="ann", coupons=["K"]))
    assert world.decision("o2").refusals[0].reason == "customer-limit"
    world.take(placed("o3", customer="bob", coupons=["K"]), placed("o4", customer="eve", coupons=["K"]))
    assert world.decision("o4").refusals[0].reason == "total-limit"
    world.take(refunded(order="o1"), placed("o5", customer="ann", coupons=["K"]))
    assert world.kinds("o5") == [("coupon", 10)], "the refund released the first one"


def test_a_budget_bears_its_last_unit_and_is_given_back_by_reversals() -> None:
    world = World(terms("coupon", "k", code="K", amount=50, budget=100))
    world.take(placed("o1", coupons=["K"]), placed("o2", coupons=["K"]), placed("o3", coupons=["K"]))
    assert world.balance("campaign:k") == 100
    assert world.decision("o3").refusals[0].reason == "budget-exhausted"
    world.take(refunded(order="o1"), placed("o4", coupons=["K"]))
    assert world.kinds("o4") == [("coupon", 50)]


def test_credit_is_what_is_asked_what_is_to_pay_or_what_is_there() -> None:
    world = World()
    world.give(700)
    world.take(placed("o1", credit=100), placed("o2", line(unit_price=50), credit=400), placed("o3", credit=900))
    applied = [(world.decision(o).credit.applied, world.decision(o).credit.shortfall) for o in ("o1", "o2", "o3")]
    assert applied == [(100, 0), (50, 0), (550, 350)], "what could not be used on a cheap order is no shortfall"
    assert world.balance("wallet:ann") == 0


def test_an_expired_lot_is_not_spendable_swept_or_not_and_a_later_one_counts() -> None:
    world = World()
    world.give(100, until=day(5))
    world.give(100, until=day(5.1))
    world.take(placed("o1", credit=500, at=day(5)), placed("o2", credit=500, at=day(-100)))
    assert world.decision("o1").credit.burned == [Burn(2, 100)]
    assert world.decision("o2").credit.burned == [Burn(1, 100)], "what is booked first decides, not what happened first"


def test_earning_is_on_what_is_paid_by_campaign_id() -> None:
    world = World(
        terms("earn", "e2", amount=5, min_subtotal=1_000),
        terms("earn", "e1", rate_bps=1_000, max_amount=80),
        terms("earn", "e3", amount=5, min_subtotal=1_001),
        terms("earn", "e4", amount=5, categories=["book"]),
        terms("coupon", "k", code="K", amount=300),
    )
    world.give(100)
    world.take(placed(coupons=["K"], credit=100))
    assert world.kinds() == [("coupon", 300), ("credit", 100), ("earn", 60), ("earn", 5)]
    assert [earn.campaign_id for earn in world.decision().earned] == ["e1", "e2"]
    assert world.balance("pending:ann") == 65


def test_nothing_is_earned_on_an_order_that_credit_paid_for() -> None:
    world = World(terms("earn", "e", amount=5))
    world.give(1_000)
    world.take(placed(credit=1_000))
    assert world.decision().earned == []


def test_an_earning_over_budget_is_skipped_with_its_reason() -> None:
    world = World(terms("earn", "e", amount=5, budget=9))
    world.take(placed("o1"), placed("o2"))
    assert [(r.code, r.campaign_id, r.reason) for r in world.decision("o2").refusals] == [("", "e", "budget-exhausted")]


def test_the_outcome_names_every_coupon_and_what_stands() -> None:
    world = World(terms("coupon", "k", code="K", amount=300))
    world.take(placed(coupons=["K", "X"], credit=5))
    assert world.outcome() == {
        "order_id": "o1",
        "customer_id": "ann",
        "currency": "EUR",
        "sequence": 1,
        "cause": {"source": "/shop", "id": "o1/OrderPlaced", "type": "order-placed.v1", "fact": "placing"},
        "coupons": [
            {"code": "K", "campaign_id": "k", "discount": 300, "refusal": None},
            {"code": "X", "campaign_id": None, "discount": 0, "refusal": "unknown-coupon"},
        ],
        "credit": {"requested": 5, "applied": 0, "shortfall": 5, "refusal": None},
        "earned": [],
        "lines": [{"line_id": "a", "gross": 1_000, "discount": 300, "credit": 0, "payable": 700}],
        "money_due_back": 0,
        "wallet_balance": 0,
        "debt": 0,
    }
