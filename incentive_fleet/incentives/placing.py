"""Order placed: which coupons, how much credit, what is earned (rules 5)."""

from __future__ import annotations

from collections.abc import Iterator

from incentive_fleet.events.models import OrderPlaced
from incentive_fleet.incentives.accounts import Kind
from incentive_fleet.incentives.basket import Basket, Reward
from incentive_fleet.incentives.booking import Book
from incentive_fleet.incentives.campaigns import Campaign, CampaignSet, PooledCode, Usage
from incentive_fleet.incentives.credit import burn
from incentive_fleet.incentives.decision import CouponShare, CreditShare, Decision, EarnShare, Refusal
from incentive_fleet.incentives.refusals import RefusalCode


def normal_codes(codes: tuple[str, ...]) -> list[str]:
    """Coupon codes upper-cased, repeats dropped, in the order listed (rules 5.1)."""
    return list(dict.fromkeys([code.upper() for code in codes])) if codes else []


def place(order: OrderPlaced, campaigns: CampaignSet, book: Book) -> Decision:
    """Decide a placing and book it."""
    basket = Basket.of(order.lines)
    coupons, refused = _apply_coupons(order, campaigns, basket, book)
    credit = _apply_credit(order, campaigns, basket, book)
    earned, unaffordable = _earn(order, campaigns, basket, book)
    return Decision(
        customer_id=order.customer_id,
        currency=order.currency,
        line_ids=[line.line_id for line in order.lines],
        unit_prices=[line.unit_price for line in order.lines],
        gross=basket.gross,
        coupons=coupons,
        credit=credit,
        earned=earned,
        refusals=refused + unaffordable,
        not_goods=basket.not_goods(),
        estimated=bool(order.estimated),
    )


def _apply_coupons(
    order: OrderPlaced, campaigns: CampaignSet, basket: Basket, book: Book
) -> tuple[list[CouponShare], list[Refusal]]:
    accepted: list[CouponShare] = []
    refused: list[Refusal] = []
    taken: list[Campaign] = []
    for code, campaign in _asked(order, campaigns, book.usage):
        found = _judge_coupon(order, code, campaign, taken, basket, book.usage)
        if isinstance(found, RefusalCode):
            if code is not None:  # an automatic coupon that is refused leaves no trace
                refused.append(_refusal(code, campaign, found))
            continue
        assert campaign is not None, "what is unknown was refused"
        taken.append(campaign)
        accepted.append(_accept(order, code, campaign, found, basket, book))
    return accepted, refused


def _asked(order: OrderPlaced, campaigns: CampaignSet, usage: Usage) -> Iterator[tuple[str | None, Campaign | None]]:
    """Codes with their campaigns, in the order listed, and after them the automatic coupons, by campaign id."""
    for code in normal_codes(order.coupons):
        pooled = usage.codes.get(code)
        yield code, campaigns.by_id.get(pooled.campaign_id) if pooled else campaigns.by_code.get(code)
    for campaign in campaigns.automatic.get(order.currency, ()):
        yield None, campaign


def _judge_coupon(
    order: OrderPlaced,
    code: str | None,
    campaign: Campaign | None,
    taken: list[Campaign],
    basket: Basket,
    usage: Usage,
) -> Reward | RefusalCode:
    """The discount, or the first reason that refuses the coupon; `taken` are the coupons accepted before it."""
    if campaign is None:
        return RefusalCode.UNKNOWN_COUPON
    pooled = usage.codes.get(code) if code is not None else None
    refusal = _not_for_this_order(order, campaign, pooled, usage) or _not_beside(campaign, taken)
    if refusal is not None:
        return refusal
    lines = basket.eligible(campaign)
    if basket.misses_minimum(campaign, lines):
        return RefusalCode.BELOW_MINIMUM
    discount = basket.discount(campaign, lines)
    if discount.amount == 0:
        return RefusalCode.NO_DISCOUNT
    return _used_up(order, campaign, pooled, discount.amount, usage) or discount


def _not_for_this_order(
    order: OrderPlaced, campaign: Campaign, pooled: PooledCode | None, usage: Usage
) -> RefusalCode | None:
    if campaign.currency != order.currency:
        return RefusalCode.WRONG_CURRENCY
    if not campaign.holds(order.placed_at):
        return RefusalCode.NOT_ACTIVE
    if pooled is not None:
        if pooled.customer_id not in (None, order.customer_id):
            return RefusalCode.NOT_YOUR_CODE
        if pooled.expires_at is not None and pooled.expires_at <= order.placed_at:
            return RefusalCode.CODE_EXPIRED
        if pooled.revoked:
            return RefusalCode.CODE_REVOKED
    if not usage.fits_audience(campaign, order.customer_id):
        return RefusalCode.NOT_IN_AUDIENCE
    ordered = usage.counting.get((order.customer_id, order.currency), 0)
    if campaign.first_orders is not None and ordered >= campaign.first_orders:
        return RefusalCode.NOT_FIRST_ORDER
    return None


def _not_beside(campaign: Campaign, taken: list[Campaign]) -> RefusalCode | None:
    if any(other.id == campaign.id for other in taken):
        return RefusalCode.SAME_CAMPAIGN
    if taken and (campaign.exclusive or any(other.exclusive for other in taken)):
        return RefusalCode.NOT_STACKABLE
    return None


def _used_up(
    order: OrderPlaced, campaign: Campaign, pooled: PooledCode | None, amount: int, usage: Usage
) -> RefusalCode | None:
    if pooled is not None and pooled.order_id is not None:
        return RefusalCode.CODE_USED
    if usage.at_customer_limit(campaign, order.customer_id):
        return RefusalCode.CUSTOMER_LIMIT
    if usage.at_total_limit(campaign):
        return RefusalCode.TOTAL_LIMIT
    return None if usage.affords(campaign, amount) else RefusalCode.BUDGET_EXHAUSTED


def _accept(
    order: OrderPlaced, code: str | None, campaign: Campaign, discount: Reward, basket: Basket, book: Book
) -> CouponShare:
    shares = basket.share(discount.amount, discount.lines)
    basket.pay(shares)
    usage = book.usage
    usage.redeem(campaign.id, order.customer_id)
    pooled = usage.codes.get(code) if code is not None else None
    if pooled is not None:
        pooled.order_id = order.order_id
    book.book(Kind.COUPON, discount.amount, campaign_id=campaign.id)
    return CouponShare(
        campaign.id, campaign.version, code, discount.amount, shares, discount.tier, pooled=pooled is not None
    )


def _apply_credit(order: OrderPlaced, campaigns: CampaignSet, basket: Basket, book: Book) -> CreditShare:
    if order.credit_requested == 0:
        return CreditShare()
    terms = campaigns.credit
    lines = basket.payable_by_credit(terms)
    wanted = min(order.credit_requested, basket.payable_of(lines))
    held = order.customer_id in book.usage.held
    burned = [] if held else burn(book, wanted, order.placed_at)
    applied = sum(one.amount for one in burned)
    shares = basket.share(applied, lines) if applied else []
    if applied:
        basket.pay(shares)
    refusal = RefusalCode.WALLET_HELD if held else None
    return CreditShare(order.credit_requested, applied, wanted - applied, shares, burned, terms.version, refusal)


def _earn(
    order: OrderPlaced, campaigns: CampaignSet, basket: Basket, book: Book
) -> tuple[list[EarnShare], list[Refusal]]:
    earned: list[EarnShare] = []
    refused: list[Refusal] = []
    for campaign in campaigns.earning.get(order.currency, ()):
        if not campaign.holds(order.placed_at):
            continue
        lines = basket.eligible(campaign)
        if basket.misses_minimum(campaign, lines):
            continue
        reward = basket.earning(campaign, lines)
        if reward.amount == 0:
            continue
        if not book.usage.affords(campaign, reward.amount):
            refused.append(_refusal("", campaign, RefusalCode.BUDGET_EXHAUSTED))
            continue
        book.book(Kind.EARN, reward.amount, campaign_id=campaign.id)
        shares, terms = basket.share(reward.amount, lines), (campaign.valid_days, campaign.reissue_days)
        earned.append(EarnShare(campaign.id, campaign.version, reward.amount, shares, *terms, reward.tier))
    return earned, refused


def _refusal(code: str, campaign: Campaign | None, reason: RefusalCode) -> Refusal:
    return Refusal(code, campaign.id if campaign else None, campaign.version if campaign else None, reason)
