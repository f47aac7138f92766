"""The final basket of an estimated order: what the placing promised, applied again to what was picked (rules 12).

It adds no incentive and refuses none anew. What stands on the order moves by the difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from incentive_fleet.events.models import OrderFinalized
from incentive_fleet.incentives.accounts import Kind
from incentive_fleet.incentives.basket import Basket, Reward
from incentive_fleet.incentives.booking import Book, Burn, give_back
from incentive_fleet.incentives.campaigns import CampaignSet, CreditTerms, Usage
from incentive_fleet.incentives.decision import CouponShare, CreditShare, Decision, EarnShare
from incentive_fleet.incentives.outcomes import Effect
from incentive_fleet.incentives.refusals import RefusalCode
from incentive_fleet.incentives.running_totals import Progress, note_final_basket


def finalize(final: OrderFinalized, progress: Progress, campaigns: CampaignSet, book: Book) -> Effect:
    """Settle an estimated order by what was picked; the basket that counts is the final one from now on.

    Nothing is booked where everything was reversed before. Where no final basket is awaited it has no effect at all.
    """
    placed, stands = progress.placed, not (progress.totals.fully_refunded or progress.totals.cancelled)
    decision = _decide(final, placed, campaigns, book.usage, stands) if progress.awaits_final else None
    effect = Effect(note_final_basket(progress, decision, book.cause.name))
    if decision is None or not stands:
        return effect
    for was, coupon in zip(placed.coupons, decision.coupons, strict=True):
        book.difference(coupon.discount - was.discount, Kind.COUPON, Kind.COUPON_REVERSAL, was.campaign_id)
    effect.released = [coupon.campaign_id for coupon in decision.coupons if coupon.discount == 0]
    effect.credit_returned = placed.credit.applied - decision.credit.applied
    give_back(book, placed.credit.burned, 0, effect.credit_returned)
    for earned, earn in zip(placed.earned, decision.earned, strict=True):
        book.difference(earn.amount - earned.amount, Kind.EARN, Kind.EARN_CANCEL, earned.campaign_id)
    return effect


def _decide(final: OrderFinalized, placed: Decision, campaigns: CampaignSet, usage: Usage, stands: bool) -> Decision:
    basket = Basket.of(final.lines)
    coupons: list[CouponShare] = []
    for coupon in placed.coupons:
        reward, limit = _worth(coupon, coupon.discount, basket, campaigns, usage, stands)
        shares = basket.pay(reward.amount, reward.lines)
        coupons.append(replace(coupon, discount=reward.amount, shares=shares, tier=reward.tier, limit=limit))
    credit = _credit(placed.credit, basket, campaigns.credit_versions[placed.credit.version])
    earned: list[EarnShare] = []
    for earn in placed.earned:
        reward, limit = _worth(earn, earn.amount, basket, campaigns, usage, stands)
        shares = basket.share(reward.amount, reward.lines)
        earned.append(replace(earn, amount=reward.amount, shares=shares, tier=reward.tier, limit=limit))
    return Decision(
        customer_id=placed.customer_id,
        currency=placed.currency,
        line_ids=[line.line_id for line in final.lines],
        unit_prices=[line.unit_price for line in final.lines],
        gross=basket.gross,
        coupons=coupons,
        credit=credit,
        earned=earned,
        refusals=[],
        not_goods=basket.not_goods,
        all_reversed=not stands,
    )


def _worth(
    was: CouponShare | EarnShare, given: int, basket: Basket, campaigns: CampaignSet, usage: Usage, stands: bool
) -> tuple[Reward, RefusalCode | None]:
    """What an incentive is worth now, and what kept it from being worth more, if anything.

    What the placing reached stays reached, unless the campaign asks again. More than the placing has `given` is given
    only as far as today's budget bears it whole.
    """
    campaign = campaigns.versions[(was.campaign_id, was.version)]
    asks_again = campaign.recheck_minimum
    reward = basket.worth(campaign, None if asks_again else was.tier, minimum=asks_again)
    if reward.amount == 0:
        return reward, RefusalCode.BELOW_MINIMUM if reward.missed else RefusalCode.NO_DISCOUNT
    if reward.amount <= given:
        return reward, None
    if usage.affords(campaigns.by_id[was.campaign_id], reward.amount, given if stands else 0):
        return reward, None
    return reward._replace(amount=given), RefusalCode.BUDGET_EXHAUSTED


def _credit(was: CreditShare, basket: Basket, terms: CreditTerms) -> CreditShare:
    """As much of the placing's credit as the lines still take; what was burned last goes back first."""
    if not was.requested:
        return was
    lines = basket.payable_by_credit(terms)
    applied = min(was.applied, basket.payable_of(lines))
    shares = basket.pay(applied, lines) if applied else []
    return replace(was, applied=applied, shares=shares, burned=_first(was.burned, applied))


def _first(burned: Sequence[Burn], amount: int) -> list[Burn]:
    """The burns that stay when the last ones went back."""
    kept: list[Burn] = []
    for one in burned:
        piece = min(one.amount, amount)
        if piece:
            kept.append(Burn(one.lot_no, piece))
        amount -= piece
    return kept
