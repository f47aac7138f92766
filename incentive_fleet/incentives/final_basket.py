"""The final basket of an estimated order: what the placing promised, applied again to what was picked (rules 12).

It adds no incentive and refuses none anew. What stands on the order moves by the difference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from incentive_fleet.events.models import OrderFinalized
from incentive_fleet.incentives.accounts import Kind
from incentive_fleet.incentives.basket import Basket, Reward
from incentive_fleet.incentives.booking import Book
from incentive_fleet.incentives.campaigns import Campaign, CampaignSet
from incentive_fleet.incentives.credit import Burn, give_back
from incentive_fleet.incentives.decision import CouponShare, CreditShare, Decision, EarnShare
from incentive_fleet.incentives.refusals import RefusalCode


@dataclass(slots=True)
class Adjustment:
    """What a final basket changed: the campaigns whose redemption it ended, and credit that went back to the wallet."""

    released: list[str] = field(default_factory=list)
    credit_returned: int = 0


def finalize(
    final: OrderFinalized, placed: Decision, campaigns: CampaignSet, book: Book, *, stands: bool
) -> tuple[Decision, Adjustment]:
    """The final basket's decision, and what it changed. Unless anything `stands`, nothing is booked: all was reversed before."""
    basket = Basket.of(final.lines)
    adjustment = Adjustment()
    coupons = [_again(one, basket, campaigns, book, stands) for one in placed.coupons]
    credit = _credit(placed.credit, basket, campaigns)
    earned = [_earn_again(one, basket, campaigns, book, stands) for one in placed.earned]
    if stands:
        for was, coupon in zip(placed.coupons, coupons, strict=True):
            _book_coupon(was, coupon, book, adjustment)
        adjustment.credit_returned = placed.credit.applied - credit.applied
        if adjustment.credit_returned:
            give_back(book, placed.credit.burned, 0, adjustment.credit_returned)
        for earn_was, earn in zip(placed.earned, earned, strict=True):
            _book_earning(earn_was, earn, book)
    decision = Decision(
        customer_id=placed.customer_id,
        currency=placed.currency,
        line_ids=[line.line_id for line in final.lines],
        unit_prices=[line.unit_price for line in final.lines],
        gross=basket.gross,
        coupons=coupons,
        credit=credit,
        earned=earned,
        refusals=[],
        not_goods=basket.not_goods(),
        all_reversed=not stands,
    )
    return decision, adjustment


def _again(was: CouponShare, basket: Basket, campaigns: CampaignSet, book: Book, stands: bool) -> CouponShare:
    campaign = campaigns.versions[(was.campaign_id, was.version)]
    reward = _reward(campaign, basket, was.tier, basket.discount)
    amount, limit = _within_budget(was.campaign_id, was.discount, reward, campaigns, book, stands)
    shares = basket.pay(amount, reward.lines)
    return CouponShare(was.campaign_id, was.version, was.code, amount, shares, reward.tier, was.pooled, limit)


def _earn_again(was: EarnShare, basket: Basket, campaigns: CampaignSet, book: Book, stands: bool) -> EarnShare:
    campaign = campaigns.versions[(was.campaign_id, was.version)]
    reward = _reward(campaign, basket, was.tier, basket.earning)
    amount, limit = _within_budget(was.campaign_id, was.amount, reward, campaigns, book, stands)
    shares = basket.share(amount, reward.lines)
    terms = was.valid_days, was.reissue_days, reward.tier, limit
    return EarnShare(was.campaign_id, was.version, amount, shares, *terms)


def _reward(
    campaign: Campaign,
    basket: Basket,
    reached: int | None,
    give: Callable[[Campaign, list[int], int | None], Reward],
) -> Reward:
    """What the placing reached stays reached, unless the campaign asks again."""
    lines = basket.eligible(campaign)
    if not campaign.recheck_minimum:
        return give(campaign, lines, reached)
    return Reward(0, lines, missed=True) if basket.misses_minimum(campaign, lines) else give(campaign, lines, None)


def _within_budget(
    campaign_id: str, was: int, reward: Reward, campaigns: CampaignSet, book: Book, stands: bool
) -> tuple[int, RefusalCode | None]:
    """More than the placing gave only as far as today's budget bears it whole; and what kept it from being more, if anything."""
    if not reward.amount:
        none_left = reward.missed or not reward.lines
        return 0, RefusalCode.BELOW_MINIMUM if none_left else RefusalCode.NO_DISCOUNT
    if reward.amount <= was:
        return reward.amount, None
    fits = book.usage.affords(campaigns.by_id[campaign_id], reward.amount, was if stands else 0)
    return (reward.amount, None) if fits else (was, RefusalCode.BUDGET_EXHAUSTED)


def _credit(was: CreditShare, basket: Basket, campaigns: CampaignSet) -> CreditShare:
    if not was.requested:
        return CreditShare()
    lines = basket.payable_by_credit(campaigns.credit_versions[was.version])
    applied = min(was.applied, basket.payable_of(lines))
    shares = basket.pay(applied, lines) if applied else []
    burned = _first(was.burned, applied)
    return CreditShare(was.requested, applied, was.shortfall, shares, burned, was.version, was.refusal)


def _first(burned: Sequence[Burn], amount: int) -> list[Burn]:
    """The burns that stay when the last ones went back."""
    kept: list[Burn] = []
    for one in burned:
        piece = min(one.amount, amount)
        if piece:
            kept.append(Burn(one.lot_no, piece))
        amount -= piece
    return kept


def _book_coupon(was: CouponShare, coupon: CouponShare, book: Book, adjustment: Adjustment) -> None:
    more = coupon.discount - was.discount
    if more > 0:
        book.book(Kind.COUPON, more, campaign_id=was.campaign_id)
    elif more < 0:
        book.book(Kind.COUPON_REVERSAL, -more, campaign_id=was.campaign_id)
    if coupon.discount == 0:
        book.usage.release(was.campaign_id, book.wallet.customer_id, was.code)
        adjustment.released.append(was.campaign_id)


def _book_earning(was: EarnShare, earn: EarnShare, book: Book) -> None:
    more = earn.amount - was.amount
    if more > 0:
        book.book(Kind.EARN, more, campaign_id=was.campaign_id)
    elif more < 0:
        book.book(Kind.EARN_CANCEL, -more, campaign_id=was.campaign_id)
