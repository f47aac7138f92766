"""Refunds, cancellings and undelivered units: reversing what was applied, by cumulative value (rules 6)."""

from __future__ import annotations

from collections.abc import Sequence

from incentive_fleet.incentives.accounts import Kind
from incentive_fleet.incentives.booking import Book, claw_back, give_back
from incentive_fleet.incentives.decision import CouponShare, Decision, EarnShare
from incentive_fleet.incentives.outcomes import CampaignReturn, Clawback, Effect
from incentive_fleet.incentives.running_totals import Fall, Progress, VestedEarning
from incentive_fleet.incentives.wallet import Wallet


def reverse(progress: Progress, fall: Fall, book: Book) -> Effect:
    """Book the difference between what had been reversed and what is to be reversed in all.

    Coupons in the order they were applied, then credit, then earn by campaign id.
    """
    if fall.after == fall.before:
        return Effect(fall)
    decision, delivered = progress.counts, progress.totals.delivered_at is not None
    coupons = _fallen(decision.coupons, fall.done.coupons, fall.due.coupons)
    returned = fall.due.credit - fall.done.credit
    cancelled = [] if delivered else _fallen(decision.earned, fall.done.earned, fall.due.earned)
    released = _released(decision, fall)
    owed = _owed(progress.totals.vested, fall.due.earned, book.wallet) if delivered else []
    for campaign_id, amount in coupons:
        book.book(Kind.COUPON_REVERSAL, amount, campaign_id=campaign_id)
    give_back(book, decision.credit.burned, fall.done.credit, returned)
    for campaign_id, amount in cancelled:
        book.book(Kind.EARN_CANCEL, amount, campaign_id=campaign_id)
    clawed_back: list[Clawback] = []
    for vested, amount in owed:
        vested.clawed_back += amount
        lacking = claw_back(book, vested.campaign_id, vested.lot_no, amount)
        clawed_back.append(Clawback(vested.campaign_id, amount, lacking))
    return Effect(fall, coupons, released, returned, cancelled, clawed_back)


def _fallen(shared: Sequence[CouponShare | EarnShare], done: list[int], due: list[int]) -> list[CampaignReturn]:
    """Of each incentive of which something falls, how much."""
    each = zip(shared, done, due, strict=True)
    return [CampaignReturn(one.campaign_id, now - before) for one, before, now in each if now > before]


def _owed(vestings: list[VestedEarning], due: list[int], wallet: Wallet) -> list[tuple[VestedEarning, int]]:
    """rules 6.5: max(0, reversed since vesting - expired of the vested lot and its reissues) in all, never given back."""
    owed: list[tuple[VestedEarning, int]] = []
    for vested, now in zip(vestings, due, strict=True):
        if vested.lot_no == 0:
            continue  # all of it had been reversed before the delivery: nothing vested, nothing is left to fall
        amount = now - vested.reversed_before - wallet.lots[vested.lot_no].expired - vested.clawed_back
        if amount > 0:
            owed.append((vested, amount))
    return owed


def _released(decision: Decision, fall: Fall) -> list[str]:
    """Of the coupons of which something stood a moment ago, those of which nothing does now."""
    each = zip(decision.coupons, fall.done.coupons, fall.due.coupons, strict=True)
    return [coupon.campaign_id for coupon, before, now in each if before < now == coupon.discount]
