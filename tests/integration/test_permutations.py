"""Any order of arrival: one order's facts, shuffled, repeated, split over batches and encodings, end in equal balances.

Each example runs against the real database under fresh ids: once calmly, in the order of its times, and once as it comes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
from hypothesis import strategies as st

from incentive_fleet.embedded.postgres import Postgres
from tests.permuting import NOON, Data, Ledger, Story, opened, run

WINDOW = 'currency = "EUR"\nstarts_at = 2020-01-01T00:00:00Z\nends_at = 2099-01-01T00:00:00Z\n'
CAMPAIGNS = f"""
[[campaign]]
id = "tenth"
kind = "coupon"
code = "TENTH"
rate_bps = 1000
stacking = "stackable"
{WINDOW}
[[campaign]]
id = "fresh"
kind = "coupon"
code = "FRESH"
amount = 777
categories = ["fresh"]
stacking = "stackable"
{WINDOW}
[[campaign]]
id = "alone"
kind = "coupon"
code = "ALONE"
rate_bps = 3333
max_amount = 5000
{WINDOW}
[[campaign]]
id = "back"
kind = "earn"
rate_bps = 250
valid_days = 20
{WINDOW}
[[campaign]]
id = "back-fresh"
kind = "earn"
amount = 333
min_subtotal = 1000
categories = ["fresh"]
{WINDOW}
[[campaign]]
id = "sorry"
kind = "make_good"
rate_bps = 500
max_amount = 900
grace_minutes = 10
valid_days = 5
reissue_days = 3
{WINDOW}
[[campaign]]
id = "gift"
kind = "grant"
reissue_days = 10
{WINDOW}
"""


@pytest.fixture(scope="module")
def ledger(postgres: Postgres, database_template: str) -> Iterator[Ledger]:
    with opened(postgres, database_template, CAMPAIGNS) as ledger:
        yield ledger


def moments(least_h: int = 0, most_h: int = 24 * 40) -> st.SearchStrategy[str]:
    hours = st.integers(least_h, most_h)
    return hours.map(lambda count: (NOON + timedelta(hours=count)).isoformat())


line_ids = st.sampled_from(["1", "2", "3", "4"])
# Mostly everyday sizes; sometimes the bounds of rules 2.1, which must not overflow anything.
quantities = st.one_of(st.integers(1, 5), st.sampled_from([1_000_000]))
prices = st.one_of(st.integers(0, 3_000), st.sampled_from([0, 1, 200_000_000]))


@st.composite
def placings(draw: st.DrawFn) -> Data:
    count = draw(st.integers(1, 4))
    lines = [
        {"line_id": str(number), "sku": "s", "quantity": draw(quantities), "unit_price": draw(prices)}
        for number in range(1, count + 1)
    ]
    for line in lines:
        if category := draw(st.sampled_from([None, "fresh", "other"])):
            line["category"] = category
    return {
        "currency": "EUR",
        "placed_at": NOON.isoformat(),
        "lines": lines,
        "coupons": draw(st.lists(st.sampled_from(["TENTH", "fresh", "ALONE", "NOSUCH"]), max_size=4)),
        "credit_requested": draw(st.sampled_from([0, 0, 1, 700, 5_000, 10**12])),
    }


@st.composite
def refunds(draw: st.DrawFn) -> Data:
    data: Data = {"currency": draw(st.sampled_from(["EUR"] * 9 + ["USD"])), "refunded_at": draw(moments())}
    if draw(st.integers(0, 3)):
        data["lines"] = draw(st.lists(refund_lines(), min_size=1, max_size=3))
    return data


@st.composite
def refund_lines(draw: st.DrawFn) -> Data:
    measure = draw(st.sampled_from(["quantity", "amount"]))
    value = draw(st.integers(1, 4) if measure == "quantity" else st.sampled_from([1, 99, 500, 10**6]))
    reason = draw(st.sampled_from([None, "returned", "undelivered", "goodwill"]))
    return {"line_id": draw(line_ids), measure: value} | ({"reason": reason} if reason else {})


@st.composite
def deliveries(draw: st.DrawFn) -> Data:
    data: Data = {"delivered_at": draw(moments(1, 24 * 20))}
    if draw(st.booleans()):
        data["promised_by"] = draw(moments(0, 48))
    missing = draw(st.lists(st.tuples(line_ids, st.integers(1, 4)), max_size=2))
    if missing:
        data["undelivered"] = [{"line_id": line_id, "quantity": quantity} for line_id, quantity in missing]
    return data


@st.composite
def stories(draw: st.DrawFn) -> Story:
    return draw(arriving([("order-placed.v1", draw(placings())), *draw(aftermaths(3))]))


@st.composite
def aftermaths(draw: st.DrawFn, refunds_max: int) -> list[tuple[str, Data]]:
    """Refunds and perhaps a delivery, by their times."""
    refunded = draw(st.lists(refunds(), max_size=refunds_max))
    delivered = draw(st.one_of(st.none(), deliveries()))
    later = [("order-refunded.v1", data, data["refunded_at"]) for data in refunded]
    later += [("delivery-completed.v1", delivered, delivered["delivered_at"])] if delivered else []
    later.sort(key=lambda entry: (entry[2], entry[0]))  # ties: the delivery first
    return [(kind, data) for kind, data, _ in later]


@st.composite
def arriving(draw: st.DrawFn, facts: list[tuple[str, Data]]) -> Story:
    """These facts with an opening balance, in an order of arrival, in batches."""
    repeats = draw(st.lists(st.sampled_from(range(len(facts))), max_size=5))
    order = draw(st.permutations([*range(len(facts)), *repeats]))
    arrivals = [(position, draw(st.booleans())) for position in order]
    batches = draw(st.lists(st.integers(1, 6), min_size=1, max_size=4))
    opening = st.tuples(st.sampled_from([1, 600, 50_000, 10**12]), st.sampled_from([None, 0, 5, 60]))
    return Story(draw(st.lists(opening, max_size=2)), facts, arrivals, batches)


def test_any_order_and_any_repetition_end_in_the_same_balances(ledger: Ledger, say: Callable[[str], None]) -> None:
    run(ledger, stories(), 300, say)


@pytest.mark.chaos
def test_any_order_and_any_repetition_end_in_the_same_balances_5000_times(
    ledger: Ledger, say: Callable[[str], None]
) -> None:
    run(ledger, stories(), 5_000, say)
