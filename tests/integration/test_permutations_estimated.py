"""Any order of arrival for estimated orders: final basket, cancelling, refunds and delivery, shuffled, repeated, in batches.

What waits for what must make no difference in balances, in the money that is due back, or in what stands on each line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from hypothesis import strategies as st

from incentive_fleet.embedded.postgres import Postgres
from tests.integration.test_permutations import (
    CAMPAIGNS,
    WINDOW,
    aftermaths,
    arriving,
    moments,
    placings,
    prices,
    quantities,
)
from tests.permuting import Data, Ledger, Story, opened, run

OFFERS = f"""
[[campaign]]
id = "steps"
kind = "coupon"
code = "STEPS"
tiers = [{{ min_subtotal = 500, amount = 50 }}, {{ min_subtotal = 3000, rate_bps = 700 }}]
recheck_minimum = true
stacking = "stackable"
{WINDOW}
[[campaign]]
id = "kept-steps"
kind = "coupon"
code = "KEPT"
tiers = [{{ min_subtotal = 500, amount = 50 }}, {{ min_subtotal = 3000, rate_bps = 700 }}]
min_basket = 800
stacking = "stackable"
{WINDOW}
[[campaign]]
id = "three-for-two"
kind = "coupon"
auto = true
buy_get = {{ buy = 2, get = 1 }}
categories = ["fresh"]
stacking = "stackable"
{WINDOW}
[[campaign]]
id = "pair"
kind = "coupon"
auto = true
set_price = {{ units = 2, price = 300 }}
categories = ["other"]
stacking = "stackable"
{WINDOW}
[[campaign]]
id = "tips"
kind = "earn"
tiers = [{{ min_subtotal = 100, rate_bps = 300 }}]
line_kinds = ["goods", "tip"]
recheck_minimum = true
valid_days = 9
{WINDOW}
[credit]
line_kinds = ["goods", "fee"]
"""


@pytest.fixture(scope="module")
def ledger(postgres: Postgres, database_template: str) -> Iterator[Ledger]:
    with opened(postgres, database_template, CAMPAIGNS + OFFERS) as ledger:
        yield ledger


@st.composite
def picked(draw: st.DrawFn, lines: list[Data]) -> list[Data]:
    """Of each line nothing, as much, less, more, or at another price; a line that was not ordered, of any kind."""
    kept: list[Data] = []
    for line in lines:
        change = draw(st.sampled_from(["gone", "same", "same", "quantity", "price", "category"]))
        if change == "gone":
            continue
        changes: dict[str, Data] = {
            "quantity": {"quantity": draw(quantities)},
            "price": {"unit_price": draw(prices)},
            "category": {"category": "fresh"},
        }
        kept.append(line | changes.get(change, {}))
    if draw(st.booleans()):
        substitute = {"line_id": "new", "sku": "s", "quantity": draw(quantities), "unit_price": draw(prices)}
        kept.insert(draw(st.integers(0, len(kept))), substitute | draw(kinds))
    return kept


kinds = st.sampled_from([{}, {}, {"kind": "fee"}, {"kind": "deposit"}, {"kind": "tip"}, {"category": "other"}])


@st.composite
def estimated_stories(draw: st.DrawFn) -> Story:
    placed = draw(placings())
    placed["lines"] = [line | draw(kinds) for line in placed["lines"]]
    placed["coupons"] = draw(st.lists(st.sampled_from(["TENTH", "fresh", "STEPS", "KEPT", "ALONE"]), max_size=4))
    placed["estimated"] = draw(st.sampled_from([True] * 7 + [False]))
    facts = [("order-placed.v1", placed)]
    if draw(st.integers(0, 6)):
        final = {"finalized_at": draw(moments(0, 48)), "lines": draw(picked(placed["lines"]))}
        facts.append(("order-finalized.v1", final))
    facts += draw(aftermaths(2))
    if draw(st.integers(0, 3)) == 0:
        facts.append(("order-cancelled.v1", {"cancelled_at": draw(moments())}))
    return draw(arriving(facts))


def test_any_order_of_an_estimated_orders_facts_ends_alike(ledger: Ledger, say: Callable[[str], None]) -> None:
    run(ledger, estimated_stories(), 120, say)


@pytest.mark.chaos
def test_any_order_of_an_estimated_orders_facts_ends_alike_5000_times(
    ledger: Ledger, say: Callable[[str], None]
) -> None:
    run(ledger, estimated_stories(), 5_000, say)
