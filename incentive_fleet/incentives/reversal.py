"""Refunds and undelivered units: reversing what was applied, by cumulative value (rules 6)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from incentive_fleet.incentives.accounts import Kind
from incentive_fleet.incentives.booking import Book
from incentive_fleet.incentives.credit import claw_back, give_back
from incentive_fleet.incentives.decision import CouponShare, CreditShare, Decision, EarnShare
from incentive_fleet.incentives.running_totals import Fall, RunningTotals, VestedEarning


class CampaignReturn(NamedTuple):
    """An amount that went back to its campaign, in minor units."""

    campaign_id: str
    amount: int


class Clawback(NamedTuple):
    """Vested credit taken back, in minor units: `amount` in all, of which `debt` the wallet could not cover."""

    campaign_id: str
    amount: int
    debt: int


@dataclass(slots=True)
class Reversal:
    """What one fact reversed. `released` are the campaigns whose redemption on the order ended with it."""

    coupons: list[CampaignReturn] = field(default_factory=list)
    released: list[str] = field(default_factory=list)
    credit_returned: int = 0
    earn_cancelled: list[CampaignReturn] = field(default_factory=list)
    clawed_back: list[Clawback] = field(default_factory=list)


def reverse(decision: Decision, totals: RunningTotals, fall: Fall, book: Book) -> Reversal:
    """Book the difference between what had been reversed and what is to be reversed in all.

    Coupons in the order they were applied, then credit, then earn by campaign id.
    """
    if fall.after == fall.before:
        return Reversal()
    coupons, released = _reverse_coupons(decision.coupons, fall, book)
    returned = _return_credit(decision.credit, fall, book)
    if totals.delivered_at is None:
        cancelled, clawed_back = _cancel_earnings(decision.earned, fall, book), []
    else:
        cancelled, clawed_back = [], _claw_back(decision.earned, totals.vested, fall, book)
    return Reversal(coupons, released, returned, cancelled, clawed_back)


def _reverse_coupons(coupons: list[CouponShare], fall: Fall, book: Book) -> tuple[list[CampaignReturn], list[str]]:
    """What falls of each coupon, and those that are released: something of them stood a moment ago, and nothing does now."""
    fallen: list[CampaignReturn] = []
    released: list[str] = []
    for coupon in coupons:
        done, now = fall.of(coupon.shares)
        if now == done:
            continue
        book.book(Kind.COUPON_REVERSAL, now - done, campaign_id=coupon.campaign_id)
        fallen.append(CampaignReturn(coupon.campaign_id, now - done))
        if now == coupon.discount:
            book.usage.release(coupon.campaign_id, book.wallet.customer_id, coupon.code)
            released.append(coupon.campaign_id)
    return fallen, released


def _return_credit(credit: CreditShare, fall: Fall, book: Book) -> int:
    if not credit.applied:
        return 0
    done, now = fall.of(credit.shares)
    if now > done:
        give_back(book, credit.burned, done, now - done)
    return now - done


def _cancel_earnings(earned: list[EarnShare], fall: Fall, book: Book) -> list[CampaignReturn]:
    cancelled: list[CampaignReturn] = []
    for earn in earned:
        done, now = fall.of(earn.shares)
        if now > done:
            book.book(Kind.EARN_CANCEL, now - done, campaign_id=earn.campaign_id)
            cancelled.append(CampaignReturn(earn.campaign_id, now - done))
    return cancelled


def _claw_back(earned: list[EarnShare], vestings: list[VestedEarning], fall: Fall, book: Book) -> list[Clawback]:
    """rules 6.5: max(0, reversed since vesting - expired of the vested lot and its reissues) in all, never given back."""
    taken: list[Clawback] = []
    for earn, vested in zip(earned, vestings, strict=True):
        if vested.lot_no == 0:
            continue  # all of it had been reversed before the delivery: nothing vested, nothing is left to fall
        _, now = fall.of(earn.shares)
        owed = now - vested.reversed_before - book.wallet.lots[vested.lot_no].expired
        amount = owed - vested.clawed_back
        if amount > 0:
            vested.clawed_back += amount
            debt = claw_back(book, vested.campaign_id, vested.lot_no, amount)
            taken.append(Clawback(vested.campaign_id, amount, debt))
    return taken
