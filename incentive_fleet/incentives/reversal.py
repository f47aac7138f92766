"""Refunds and undelivered units: reversing what was applied, by cumulative value (rules 6)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from incentive_fleet.incentives.accounts import Kind
from incentive_fleet.incentives.booking import Book, claw_back, give_back
from incentive_fleet.incentives.decision import CouponShare, Decision, EarnShare
from incentive_fleet.incentives.running_totals import Fall, RunningTotals, VestedEarning
from incentive_fleet.incentives.wallet import Wallet

Shared = TypeVar("Shared", CouponShare, EarnShare)


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
    delivered, coupons = totals.delivered_at is not None, _fallen(decision.coupons, fall)
    done, now = fall.of(decision.credit.shares) if decision.credit.applied else (0, 0)
    cancelled = [] if delivered else _fallen(decision.earned, fall)
    owed = _owed(decision.earned, totals.vested, fall, book.wallet) if delivered else []
    for coupon, amount in coupons:
        book.book(Kind.COUPON_REVERSAL, amount, campaign_id=coupon.campaign_id)
    give_back(book, decision.credit.burned, done, now - done)
    for earn, amount in cancelled:
        book.book(Kind.EARN_CANCEL, amount, campaign_id=earn.campaign_id)
    clawed_back = [_claw_back(vested, amount, book) for vested, amount in owed]
    released = _release([coupon for coupon, _ in coupons], fall, book)
    return Reversal(
        coupons=[CampaignReturn(coupon.campaign_id, amount) for coupon, amount in coupons],
        released=released,
        credit_returned=now - done,
        earn_cancelled=[CampaignReturn(earn.campaign_id, amount) for earn, amount in cancelled],
        clawed_back=clawed_back,
    )


def _fallen(shared: list[Shared], fall: Fall) -> list[tuple[Shared, int]]:
    """Those of which something falls, and how much."""
    fallen: list[tuple[Shared, int]] = []
    for one in shared:
        done, now = fall.of(one.shares)
        if now > done:
            fallen.append((one, now - done))
    return fallen


def _owed(
    earned: list[EarnShare], vestings: list[VestedEarning], fall: Fall, wallet: Wallet
) -> list[tuple[VestedEarning, int]]:
    """rules 6.5: max(0, reversed since vesting - expired of the vested lot and its reissues) in all, never given back."""
    owed: list[tuple[VestedEarning, int]] = []
    for earn, vested in zip(earned, vestings, strict=True):
        if vested.lot_no == 0:
            continue  # all of it had been reversed before the delivery: nothing vested, nothing is left to fall
        _, now = fall.of(earn.shares)
        amount = now - vested.reversed_before - wallet.lots[vested.lot_no].expired - vested.clawed_back
        if amount > 0:
            owed.append((vested, amount))
    return owed


def _claw_back(vested: VestedEarning, amount: int, book: Book) -> Clawback:
    vested.clawed_back += amount
    return Clawback(vested.campaign_id, amount, claw_back(book, vested.campaign_id, vested.lot_no, amount))


def _release(fallen: list[CouponShare], fall: Fall, book: Book) -> list[str]:
    """Of the coupons of which something stood a moment ago, those of which nothing does now."""
    released = [coupon for coupon in fallen if fall.of(coupon.shares)[1] == coupon.discount]
    for coupon in released:
        book.usage.release(coupon.campaign_id, book.wallet.customer_id, coupon.code)
    return [coupon.campaign_id for coupon in released]
