"""Refunds and undelivered units (rules 6): in parts, in full, too often, too late, and after the credit was spent."""

from __future__ import annotations

import pytest

from incentive_fleet.incentives.booking import Burn
from incentive_fleet.ledger.batch import Verdict
from tests.domain import World, back, day, delivered, line, placed, refunded, terms

COUPON = terms("coupon", "k", code="K", amount=100, total=1)
EARN = terms("earn", "e", rate_bps=1_000, valid_days=60)


def test_a_part_goes_back_in_proportion_and_the_rest_with_the_last() -> None:
    world = World(COUPON)
    world.give(101)
    world.take(placed("o1", line(quantity=3, unit_price=333), coupons=["K"], credit=101))
    world.take(refunded("r1", back()))
    assert world.kinds()[2:] == [("coupon_reversal", 33), ("credit_return", 34)], "33.3 down, 33.7 up"
    world.take(refunded("r2", back()))
    assert world.kinds()[4:] == [("coupon_reversal", 34), ("credit_return", 33)], "66.7 and 67.3 in all"
    world.take(refunded("r3", back()))
    assert world.kinds()[6:] == [("coupon_reversal", 33), ("credit_return", 34)]
    assert world.balances == {"campaign:gift": 101, "wallet:ann": 101}


def test_the_second_refund_reverses_the_order_and_not_the_first_refund() -> None:
    world = World(EARN)
    world.give(500)
    world.take(placed("o1", line(quantity=2), credit=500), refunded("r1", back()), refunded("r2", back()))
    assert world.balance("wallet:ann") == 500
    assert world.balance("order:o1") == world.balance("pending:ann") == 0


def test_a_refund_by_amount_counts_the_gross_value() -> None:
    world = World(COUPON)
    world.take(placed(coupons=["K"]), refunded("r1", back(amount=250), back(amount=250)))
    assert world.kinds()[-1] == ("coupon_reversal", 50)


def test_a_redemption_is_released_once_with_the_last_of_its_discount() -> None:
    world = World(COUPON)
    world.take(placed("o1", line(quantity=2), coupons=["K"]), refunded("r1", back()))
    assert world.working.writes.released == []
    world.take(refunded("r2", back()), refunded("r3", back()), refunded("r4"))
    assert [(campaign, order) for campaign, _, order, _ in world.working.writes.released] == [("k", "o1")]
    assert world.working.usage.live["k"] == 0


def test_goodwill_reverses_nothing_and_is_no_anomaly() -> None:
    world = World(COUPON)
    world.take(placed(coupons=["K"]), refunded("r1", back(quantity=50, reason="goodwill")))
    assert world.kinds() == [("coupon", 100)]
    assert world.working.writes.anomalies == set()


def test_undelivered_units_are_not_reversed_twice_by_the_refund_for_them() -> None:
    world = World(COUPON)
    world.take(placed("o1", line(quantity=4, unit_price=250), coupons=["K"]))
    world.take(delivered(missing={"a": 1}), refunded("r1", back(quantity=1, reason="undelivered")))
    assert world.balance("order:o1") == 75
    world.take(refunded("r2", back(quantity=1)))
    assert world.balance("order:o1") == 50
    assert world.working.writes.anomalies == set()


@pytest.mark.parametrize(
    ("refund", "reason", "subject"),
    [
        (refunded("r1", back(quantity=2)), "exceeds-gross", "a"),
        (refunded("r1", back(amount=1_001)), "exceeds-gross", "a"),
        (refunded("r1", back(amount=600), back(amount=600, reason="undelivered")), "exceeds-gross", "a"),
        (refunded("r1", back("zzz")), "unknown-line", "zzz"),
        (refunded("r1", currency="USD"), "wrong-currency", "refund:r1"),
    ],
)
def test_what_cannot_be_is_kept_as_a_fact_and_shown_as_an_anomaly(refund: object, reason: str, subject: str) -> None:
    world = World(COUPON)
    world.take(placed(coupons=["K"]), refund)  # type: ignore[arg-type]
    assert world.working.writes.anomalies == {("o1", reason, subject)}
    assert world.balance("order:o1") == (0 if reason == "exceeds-gross" else 100), "the excess has no effect"
    assert len(world.working.writes.outcomes) == 2


def test_a_refund_of_everything_after_parts_is_no_anomaly() -> None:
    world = World(COUPON)
    world.take(placed(coupons=["K"]), refunded("r1", back()), refunded("r2"), refunded("r3"))
    assert world.working.writes.anomalies == set()
    assert world.balances == {}


def test_credit_returns_to_the_lots_last_burned_first() -> None:
    world = World()
    for amount, until in ((300, 90), (300, 100), (300, 110)):
        world.give(amount, until=day(until))
    world.take(placed("o1", line(quantity=9, unit_price=100), credit=800))
    assert world.decision().credit.burned == [Burn(1, 300), Burn(2, 300), Burn(3, 200)]
    world.take(refunded("r1", back(quantity=3)))
    assert world.lots() == [(2, 67), (3, 300)]
    world.take(refunded("r2"))
    assert world.lots() == [(1, 300), (2, 300), (3, 300)]


@pytest.mark.parametrize(
    ("until", "reissued"), [(12 - 1e-6, True), (12, True), (12 + 1e-6, False)], ids=["before", "at", "after"]
)
def test_a_lot_that_expires_within_its_reissue_days_is_reissued(until: float, reissued: bool) -> None:
    world = World()
    world.give(300, until=day(until), reissue=10)
    world.take(placed(credit=300), refunded(at=day(2)))
    if not reissued:
        assert world.lots() == [(1, 300)]
        return
    lot = world.wallet().lots[2]
    assert world.lots() == [(2, 300)]
    assert (lot.campaign_id, lot.expires_at, lot.reissue_days) == ("gift", day(12), 10)
    assert (lot.root_lot_no, lot.reissued_from) == (1, 1)


def test_credit_of_a_lot_that_never_expires_goes_back_into_it() -> None:
    world = World()
    world.give(300)
    world.take(placed(credit=300), refunded(at=day(4_000)))
    assert world.lots() == [(1, 300)]


def test_before_delivery_an_earning_is_cancelled_after_it_clawed_back() -> None:
    world = World(EARN)
    world.take(placed("o1", line(quantity=2)), refunded("r1", back()), delivered(), refunded("r2", back()))
    assert world.kinds() == [("earn", 200), ("earn_cancel", 100), ("vest", 100), ("clawback", 100)]
    assert world.balances == {}


def test_a_clawback_takes_the_vested_lot_first_then_the_others_in_burn_order() -> None:
    world = World(EARN)
    world.take(placed("o1", line(unit_price=10_000)), delivered())
    world.give(400, until=day(40))
    world.give(400, until=day(50))
    world.take(placed("o2", line(unit_price=1_300), credit=1_300))
    assert world.lots() == [(1, 500)], "lots that expire sooner went first"
    world.give(100, until=day(30))
    world.give(600, until=day(20))
    world.take(refunded(order="o1"))
    clawed = [(posting.lot_no, posting.amount) for posting in world.postings if posting.kind == "clawback"]
    assert clawed == [(1, 500), (5, 500)]
    assert world.lots() == [(4, 100), (5, 100)]


def test_what_the_wallet_lacks_becomes_a_debt_that_the_next_arrival_settles() -> None:
    world = World(EARN)
    world.take(placed("o1", line(unit_price=3_000)), delivered(), placed("o2", line(unit_price=200), credit=200))
    world.take(refunded(order="o1"))
    assert [p.kind for p in world.postings][-2:] == ["clawback", "clawback_debt"]
    assert world.balance("debt:ann") == 200
    world.assert_sound()
    world.give(150)
    assert (world.balance("debt:ann"), world.balance("wallet:ann")) == (50, 0)
    world.give(150)
    assert (world.balance("debt:ann"), world.balance("wallet:ann")) == (0, 100)
    world.assert_sound()


def test_credit_given_back_by_the_same_refund_settles_the_debt_of_its_clawback() -> None:
    world = World(EARN)
    world.give(1_000)
    world.take(placed("o1", line(unit_price=3_000), credit=1_000), delivered())
    world.take(placed("o2", credit=200), refunded(order="o1"))
    assert world.balance("wallet:ann") == 1_000 - 200
    assert world.balance("debt:ann") == 0


def test_what_expired_of_the_vested_lot_is_not_clawed_back_too() -> None:
    world = World(EARN)
    world.take(placed("o1", line(quantity=2, unit_price=1_000)), delivered(), placed("o2", credit=50, at=day(3)))
    assert world.sweep(day(70)) == 150
    world.take(refunded("r1", back(), at=day(71)))
    assert world.kinds()[-1] == ("expiry", 150), "100 fell, and 150 had gone to breakage already"
    world.take(refunded("r2", back(), at=day(72)))
    assert world.kinds()[-1] == ("clawback_debt", 50), "of 200 in all 150 had expired"
    world.assert_sound()


def test_what_expired_of_a_reissue_of_the_vested_lot_counts_as_well() -> None:
    world = World(EARN)
    world.take(placed("o1", line(unit_price=1_000)), delivered())
    world.take(placed("o2", credit=100, at=day(3)), refunded("r", order="o2", at=day(50)))
    assert world.lots() == [(2, 100)], "reissued: the vested lot ends at day 61"
    world.sweep(day(100))
    world.take(refunded("r1", at=day(101)))
    assert world.balances == {"breakage": 100, "campaign:e": 100}


def test_a_clawback_takes_lots_that_have_expired_and_were_not_swept() -> None:
    world = World(EARN)
    world.take(placed("o1"), delivered(), refunded("r1", at=day(500)))
    assert world.kinds()[-1] == ("clawback", 100)
    assert world.sweep(day(600)) == 0


def test_nothing_is_given_back_when_an_expiry_comes_after_a_clawback() -> None:
    world = World(EARN)
    world.take(placed("o1", line(quantity=2)), delivered(), refunded("r1", back()))
    world.sweep(day(100))
    world.take(refunded("r2", back(), at=day(101)))
    assert world.kinds()[-2:] == [("clawback", 100), ("expiry", 100)], "100 were clawed back before, 100 expired"
    assert world.balances == {"breakage": 100, "campaign:e": 100}


def test_a_refund_before_its_order_waits_and_takes_effect_with_it() -> None:
    world = World(COUPON, EARN)
    world.give(50)
    assert world.take(refunded("r1"), delivered()) == [Verdict.WAITING, Verdict.WAITING]
    assert world.balances == {"campaign:gift": 50, "wallet:ann": 50}
    world.take(placed(coupons=["K"], credit=50))
    kinds = [kind for kind, _ in world.kinds()]
    assert kinds == ["coupon", "credit", "earn", "vest", "coupon_reversal", "credit_return", "clawback"]
    assert world.balances == {"campaign:gift": 50, "wallet:ann": 50}
    assert [outcome.sequence for outcome in world.working.writes.outcomes] == [1, 2, 3]


def test_waiting_facts_of_one_moment_take_effect_delivery_first_then_by_refund_id() -> None:
    world = World(EARN)
    world.take(refunded("r2", back(), at=day(1)), refunded("r1", back(), at=day(1)), delivered(at=day(1)))
    world.take(placed("o1", line(quantity=2)))
    assert [posting.cause for posting in world.postings] == ["placing", "delivery", "refund:r1", "refund:r2"]
