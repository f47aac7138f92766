"""Refunds and undelivered units: reversing what was applied, by cumulative value (SPEC 6)."""

from __future__ import annotations

from dataclasses import dataclass, field

from incentive_fleet.incentives.campaigns import Usage
from incentive_fleet.incentives.decision import Decision
from incentive_fleet.incentives.posting import (
    Cause,
    Posting,
    campaign_account,
    order_account,
    pending_account,
    post,
)
from incentive_fleet.incentives.progress import Progress, reversed_of
from incentive_fleet.incentives.wallet import Wallet, claw_back, give_back


@dataclass(slots=True)
class Reversal:
    """What one fact reversed, in minor units: (campaign_id, amount) rows, and the redemptions that it released."""

    coupons: list[tuple[str, int]] = field(default_factory=list)
    released: list[str] = field(default_factory=list)
    credit_returned: int = 0
    earn_cancelled: list[tuple[str, int]] = field(default_factory=list)
    clawed_back: list[tuple[str, int, int]] = field(default_factory=list)  # (campaign_id, amount in all, of it debt)


def reverse(
    decision: Decision,
    progress: Progress,
    before: list[int],
    cause: Cause,
    wallet: Wallet,
    usage: Usage,
    postings: list[Posting],
) -> Reversal:
    """Post the difference between what `before` (R of each line until now) reversed and what the progress now asks.

    Coupons in the order they were applied, then credit, then earn by campaign id.
    """
    reversal = Reversal()
    gross, after = decision.gross, progress.reversed_value(decision.gross)
    if after == before:
        return reversal
    _reverse_coupons(decision, before, after, cause, usage, postings, reversal)
    credit = decision.credit
    if credit.applied:
        done = reversed_of(credit.shares, gross, before)
        reversal.credit_returned = reversed_of(credit.shares, gross, after) - done
        if reversal.credit_returned:
            give_back(wallet, credit.burned, done, reversal.credit_returned, cause, postings)
    for position, earn in enumerate(decision.earned):
        now = reversed_of(earn.shares, gross, after)
        if progress.delivered_at is None:
            _cancel(
                decision, earn.campaign_id, now - reversed_of(earn.shares, gross, before), cause, postings, reversal
            )
        else:
            _claw_back(progress, position, now, cause, wallet, postings, reversal)
    for campaign_id, amount in reversal.earn_cancelled:
        usage.spend(campaign_id, -amount)
    for campaign_id, amount, _ in reversal.clawed_back:
        usage.spend(campaign_id, -amount)
    return reversal


def _reverse_coupons(
    decision: Decision,
    before: list[int],
    after: list[int],
    cause: Cause,
    usage: Usage,
    postings: list[Posting],
    reversal: Reversal,
) -> None:
    assert cause.order_id is not None
    for coupon in decision.coupons:
        now = reversed_of(coupon.shares, decision.gross, after)
        amount = now - reversed_of(coupon.shares, decision.gross, before)
        if amount == 0:
            continue
        debit, credit = order_account(cause.order_id), campaign_account(coupon.campaign_id)
        postings.append(
            post(
                cause,
                "coupon_reversal",
                debit,
                credit,
                amount,
                currency=decision.currency,
                customer_id=decision.customer_id,
            )
        )
        usage.spend(coupon.campaign_id, -amount)
        reversal.coupons.append((coupon.campaign_id, amount))
        if now == coupon.discount:  # nothing of it stands, and something did a moment ago: released once
            usage.redeem(coupon.campaign_id, decision.customer_id, -1)
            reversal.released.append(coupon.campaign_id)


def _cancel(
    decision: Decision, campaign_id: str, amount: int, cause: Cause, postings: list[Posting], reversal: Reversal
) -> None:
    if amount:
        debit, credit = pending_account(decision.customer_id), campaign_account(campaign_id)
        postings.append(
            post(
                cause,
                "earn_cancel",
                debit,
                credit,
                amount,
                currency=decision.currency,
                customer_id=decision.customer_id,
            )
        )
        reversal.earn_cancelled.append((campaign_id, amount))


def _claw_back(
    progress: Progress,
    position: int,
    reversed_now: int,
    cause: Cause,
    wallet: Wallet,
    postings: list[Posting],
    reversal: Reversal,
) -> None:
    """SPEC 6: max(0, reversed since vesting - expired of the vested lot and its reissues) in all, never given back."""
    vested = progress.vested[position]
    if vested.lot_no == 0:
        return  # all of it had been reversed before the delivery: nothing vested, nothing is left to fall
    owed = reversed_now - vested.reversed_before - wallet.lots[vested.lot_no].expired
    amount = owed - vested.clawed_back
    if amount > 0:
        vested.clawed_back += amount
        debt = claw_back(wallet, vested.campaign_id, vested.lot_no, amount, cause, postings)
        reversal.clawed_back.append((vested.campaign_id, amount, debt))
