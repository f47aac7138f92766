"""Order placed: which coupons, how much credit, what is earned (rules 5). It is decided in this order, and then booked."""

from __future__ import annotations

from collections.abc import Iterator

from incentive_fleet.events.models import OrderPlaced
from incentive_fleet.incentives.accounts import Kind
from incentive_fleet.incentives.basket import Basket, Reward
from incentive_fleet.incentives.booking import Book, burn
from incentive_fleet.incentives.campaigns import Campaign, CampaignSet, CreditTerms, PooledCode, Usage
from incentive_fleet.incentives.decision import CouponShare, CreditShare, Decision, EarnShare, Refusal
from incentive_fleet.incentives.refusals import RefusalCode


def normal_codes(codes: tuple[str, ...]) -> list[str]:
    """Coupon codes upper-cased, repeats dropped, in the order listed (rules 5.1)."""
    return list(dict.fromkeys([code.upper() for code in codes])) if codes else []


def place(order: OrderPlaced, campaigns: CampaignSet, book: Book) -> Decision:
    """Decide a placing and book it."""
    basket = Basket.of(order.lines)
    wanted = order.coupons or order.currency in campaigns.automatic
    coupons, refused = _coupons(order, campaigns, basket, book.usage) if wanted else ([], [])
    credit = _credit(order, campaigns.credit, basket, book)
    earned, unaffordable = _earnings(order, campaigns, basket, book.usage)
    for coupon in coupons:
        book.book(Kind.COUPON, coupon.discount, campaign_id=coupon.campaign_id)
    for one in credit.burned:
        book.book(Kind.CREDIT, one.amount, lot=book.wallet.lots[one.lot_no])
    for earning in earned:
        book.book(Kind.EARN, earning.amount, campaign_id=earning.campaign_id)
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
        not_goods=basket.not_goods,
        estimated=bool(order.estimated),
    )


def _coupons(
    order: OrderPlaced, campaigns: CampaignSet, basket: Basket, usage: Usage
) -> tuple[list[CouponShare], list[Refusal]]:
    accepted: list[CouponShare] = []
    refused: list[Refusal] = []
    taken: list[Campaign] = []
    for code, campaign, pooled in _asked(order, campaigns, usage):
        if campaign is None:
            refused.append(Refusal(code or "", None, None, RefusalCode.UNKNOWN_COUPON))
            continue
        refusal = _not_for_this_order(order, campaign, pooled, usage) or _not_beside(campaign, taken)
        found = refusal or _discount(order, campaign, pooled, basket, usage)
        if isinstance(found, Reward):
            taken.append(campaign)
            shares, tier = basket.pay(found.amount, found.lines), found.tier
            terms = campaign.id, campaign.version, code, found.amount, shares, tier
            accepted.append(CouponShare(*terms, pooled=pooled is not None))
        elif code is not None:  # an automatic coupon that is refused leaves no trace
            refused.append(Refusal(code, campaign.id, campaign.version, found))
    return accepted, refused


def _asked(
    order: OrderPlaced, campaigns: CampaignSet, usage: Usage
) -> Iterator[tuple[str | None, Campaign | None, PooledCode | None]]:
    """Codes with their campaigns and pools, in the order listed, and after them the automatic coupons, by campaign id."""
    for code in normal_codes(order.coupons):
        pooled = usage.codes.get(code)
        yield code, campaigns.by_id.get(pooled.campaign_id) if pooled else campaigns.by_code.get(code), pooled
    for campaign in campaigns.automatic.get(order.currency, ()):
        yield None, campaign, None


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
    if campaign.audience is not None and (campaign.audience, order.customer_id) not in usage.members:
        return RefusalCode.NOT_IN_AUDIENCE
    if campaign.not_audience is not None and (campaign.not_audience, order.customer_id) in usage.members:
        return RefusalCode.NOT_IN_AUDIENCE
    ordered = usage.counting.get((order.customer_id, order.currency), 0)
    if campaign.first_orders is not None and ordered >= campaign.first_orders:
        return RefusalCode.NOT_FIRST_ORDER
    return None


def _not_beside(campaign: Campaign, taken: list[Campaign]) -> RefusalCode | None:
    """Why the coupons accepted before it, `taken`, keep this one out."""
    if any(other.id == campaign.id for other in taken):
        return RefusalCode.SAME_CAMPAIGN
    if taken and (campaign.exclusive or any(other.exclusive for other in taken)):
        return RefusalCode.NOT_STACKABLE
    return None


def _discount(
    order: OrderPlaced, campaign: Campaign, pooled: PooledCode | None, basket: Basket, usage: Usage
) -> Reward | RefusalCode:
    """What the coupon takes off, or why it takes nothing off or is used up."""
    discount = basket.worth(campaign)
    if discount.missed:
        return RefusalCode.BELOW_MINIMUM
    if discount.amount == 0:
        return RefusalCode.NO_DISCOUNT
    if pooled is not None and pooled.order_id is not None:
        return RefusalCode.CODE_USED
    used = usage.live_by_customer.get((campaign.id, order.customer_id), 0)
    if campaign.per_customer is not None and used >= campaign.per_customer:
        return RefusalCode.CUSTOMER_LIMIT
    if campaign.total is not None and usage.live.get(campaign.id, 0) >= campaign.total:
        return RefusalCode.TOTAL_LIMIT
    return discount if usage.affords(campaign, discount.amount) else RefusalCode.BUDGET_EXHAUSTED


def _credit(order: OrderPlaced, terms: CreditTerms, basket: Basket, book: Book) -> CreditShare:
    if order.credit_requested == 0:
        return CreditShare()
    lines = basket.payable_by_credit(terms)
    wanted = min(order.credit_requested, basket.payable_of(lines))
    held = order.customer_id in book.usage.held
    burned = [] if held else burn(book.wallet, wanted, order.placed_at)
    applied = sum([one.amount for one in burned])
    shares = basket.pay(applied, lines) if applied else []
    refusal = RefusalCode.WALLET_HELD if held else None
    return CreditShare(order.credit_requested, applied, wanted - applied, shares, burned, terms.version, refusal)


def _earnings(
    order: OrderPlaced, campaigns: CampaignSet, basket: Basket, usage: Usage
) -> tuple[list[EarnShare], list[Refusal]]:
    earned: list[EarnShare] = []
    refused: list[Refusal] = []
    for campaign in campaigns.earning.get(order.currency, ()):
        if not campaign.holds(order.placed_at):
            continue
        reward = basket.worth(campaign)
        if reward.amount == 0:
            continue
        if not usage.affords(campaign, reward.amount):
            refused.append(Refusal("", campaign.id, campaign.version, RefusalCode.BUDGET_EXHAUSTED))
            continue
        shares, terms = basket.share(reward.amount, reward.lines), (campaign.valid_days, campaign.reissue_days)
        earned.append(EarnShare(campaign.id, campaign.version, reward.amount, shares, *terms, reward.tier))
    return earned, refused
