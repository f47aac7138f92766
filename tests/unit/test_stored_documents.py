"""Documents that the ledger keeps for ever: one of each format stays here, and every later release must read it.

A member that comes later gets its default; nothing is ever taken out of these tables.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from incentive_fleet.errors import UnknownFormat
from incentive_fleet.incentives.booking import Burn
from incentive_fleet.incentives.decision import CouponShare, CreditShare, Decision, EarnShare, Refusal
from incentive_fleet.incentives.refusals import RefusalCode
from incentive_fleet.incentives.running_totals import RunningTotals, VestedEarning
from tests.domain import day

DECISIONS: list[tuple[str, Decision]] = [
    (
        """{"format":1,"line_ids":["a","b"],"unit_prices":[500,250],"gross":[1000,500],
        "coupons":[{"campaign_id":"k","version":3,"code":"K","discount":150,"shares":[100,50]}],
        "credit":{"requested":900,"applied":300,"shortfall":600,"shares":[200,100],
                  "burned":[{"lot_no":2,"amount":250},{"lot_no":1,"amount":50}]},
        "earned":[{"campaign_id":"e","version":1,"amount":7,"shares":[5,2],"valid_days":null,"reissue_days":30}],
        "refusals":[{"code":"NO","campaign_id":null,"version":null,"reason":"unknown-coupon"}]}""",
        Decision(
            customer_id="ann",
            currency="EUR",
            line_ids=["a", "b"],
            unit_prices=[500, 250],
            gross=[1_000, 500],
            coupons=[CouponShare("k", 3, "K", 150, [100, 50])],
            credit=CreditShare(900, 300, 600, [200, 100], [Burn(2, 250), Burn(1, 50)]),
            earned=[EarnShare("e", 1, 7, [5, 2], None, 30)],
            refusals=[Refusal("NO", None, None, RefusalCode.UNKNOWN_COUPON)],
        ),
    ),
    (
        """{"format":1,"line_ids":["a"],"unit_prices":[500],"gross":[500]}""",
        Decision("ann", "EUR", ["a"], [500], [500], [], CreditShare(), [], []),
    ),
]
TOTALS: list[tuple[str, RunningTotals]] = [
    (
        """{"format":1,"outcomes":3,"undelivered":[250,0],"refunded_undelivered":[0,250],"returned":[500,0],
        "fully_refunded":true,"delivered_at":"2026-01-11T12:00:00+00:00",
        "vested":[{"campaign_id":"e","lot_no":4,"reversed_before":3,"clawed_back":2}]}""",
        RunningTotals(2, {0: 250}, {1: 250}, {0: 500}, True, False, day(1), [VestedEarning("e", 4, 3, 2)], 3),
    ),
    ("""{"format":1,"outcomes":2}""", RunningTotals(2, outcomes=2)),
]


@pytest.mark.parametrize(("stored", "decision"), DECISIONS, ids=["whole", "bare"])
def test_a_stored_decision_is_read_for_ever(stored: str, decision: Decision) -> None:
    assert Decision.from_json("ann", "EUR", json.loads(stored)) == decision


@pytest.mark.parametrize(("stored", "totals"), TOTALS, ids=["whole", "bare"])
def test_stored_totals_are_read_for_ever(stored: str, totals: RunningTotals) -> None:
    assert RunningTotals.from_json(json.loads(stored), lines=2) == totals


def test_what_this_release_writes_is_what_it_reads() -> None:
    for _, decision in DECISIONS:
        assert Decision.from_json("ann", "EUR", json.loads(decision.to_json())) == decision
    for _, totals in TOTALS:
        assert RunningTotals.from_json(json.loads(totals.to_json()), lines=2) == totals


def test_a_member_of_a_later_release_is_passed_over_and_a_later_format_is_not() -> None:
    decision: dict[str, Any] = json.loads(DECISIONS[0][0])
    assert Decision.from_json("ann", "EUR", decision | {"later": 1}) == DECISIONS[0][1]
    with pytest.raises(UnknownFormat, match="the decision has format 2, and this release reads 1"):
        Decision.from_json("ann", "EUR", decision | {"format": 2})
    with pytest.raises(UnknownFormat, match="running totals"):
        RunningTotals.from_json({"format": 2, "outcomes": 1}, lines=1)
