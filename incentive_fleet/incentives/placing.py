"""Order placed: which coupons, how much credit, what is earned (SPEC 5)."""

from __future__ import annotations

from dataclasses import dataclass

from incentive_fleet.events.models import OrderPlaced
from incentive_fleet.incentives.campaigns import Campaign, CampaignSet, Usage
from incentive_fleet.incentives.decision import CouponShare, CreditShare, Decision, EarnShare, Refusal
from incentive_fleet.incentives.money import share
from incentive_fleet.incentives.posting import (
    Cause,
    Posting,
    campaign_account,
    order_account,
    pending_account,
    post,
)
from incentive_fleet.incentives.wallet import Wallet, burn


@dataclass(slots=True)
class Basket:
    """The order's lines as parallel lists, and what is still to pay for each after the incentives so far."""

    categories: list[str | None]
    gross: list[int]
    payable: list[int]

    def eligible(self, campaign: Campaign) -> list[int]:
        """The positions of the lines that the campaign covers."""
        only, never = campaign.categories, campaign.excluded_categories
        if only:
            return [line for line, category in enumerate(self.categories) if category in only and category not in never]
        return [line for line, category in enumerate(self.categories) if category not in never]

    def share(self, total: int, lines: list[int]) -> list[int]:
        """Share `total` over `lines` by payable, as a list over all lines."""
        if len(lines) == len(self.gross):
            return share(total, self.payable)
        parts = [0] * len(self.gross)
        for line, part in zip(lines, share(total, [self.payable[line] for line in lines]), strict=True):
            parts[line] = part
        return parts

    def pay(self, shares: list[int]) -> None:
        """Take an incentive's shares off what is still to pay."""
        self.payable = [payable - part for payable, part in zip(self.payable, shares, strict=True)]


def normal_codes(codes: tuple[str, ...]) -> list[str]:
    """Coupon codes upper-cased, repeats dropped, in the order listed (SPEC 5)."""
    return list(dict.fromkeys(code.upper() for code in codes))


def place(
    order: OrderPlaced,
    cause: Cause,
    campaigns: CampaignSet,
    wallet: Wallet,
    usage: Usage,
    postings: list[Posting],
) -> Decision:
    """Decide a placing; postings are appended, wallet and usage are the working copies that it changes."""
    gross = [line.quantity * line.unit_price for line in order.lines]
    basket = Basket([line.category for line in order.lines], gross, gross)
    refusals: list[Refusal] = []
    coupons = _apply_coupons(order, cause, campaigns, basket, usage, postings, refusals) if order.coupons else []
    credit = _apply_credit(order, cause, basket, wallet, postings)
    earned = _earn(order, cause, campaigns, basket, usage, postings, refusals)
    return Decision(
        customer_id=order.customer_id,
        currency=order.currency,
        line_ids=[line.line_id for line in order.lines],
        unit_prices=[line.unit_price for line in order.lines],
        gross=gross,
        coupons=coupons,
        credit=credit,
        earned=earned,
        refusals=refusals,
    )


def _apply_coupons(
    order: OrderPlaced,
    cause: Cause,
    campaigns: CampaignSet,
    basket: Basket,
    usage: Usage,
    postings: list[Posting],
    refusals: list[Refusal],
) -> list[CouponShare]:
    accepted: list[CouponShare] = []
    exclusive_taken = False
    for code in normal_codes(order.coupons):
        campaign = campaigns.by_code.get(code)
        result = _judge_coupon(order, campaign, basket, usage, bool(accepted), exclusive_taken)
        if isinstance(result, str) or campaign is None:
            refusals.append(_refusal(code, campaign, str(result)))
            continue
        discount, lines = result
        shares = basket.share(discount, lines)
        basket.pay(shares)
        usage.spend(campaign.id, discount)
        usage.redeem(campaign.id, order.customer_id)
        debit, credit = campaign_account(campaign.id), order_account(order.order_id)
        postings.append(
            post(cause, "coupon", debit, credit, discount, currency=order.currency, customer_id=order.customer_id)
        )
        accepted.append(CouponShare(campaign.id, campaign.version, code, discount, shares))
        exclusive_taken = exclusive_taken or campaign.exclusive
    return accepted


def _judge_coupon(
    order: OrderPlaced,
    campaign: Campaign | None,
    basket: Basket,
    usage: Usage,
    any_accepted: bool,
    exclusive_taken: bool,
) -> str | tuple[int, list[int]]:
    """The discount and its lines, or the first reason that refuses the coupon."""
    if campaign is None:
        return "unknown-coupon"
    if campaign.currency != order.currency:
        return "wrong-currency"
    if not campaign.holds(order.placed_at):
        return "not-active"
    if any_accepted and (exclusive_taken or campaign.exclusive):
        return "not-stackable"
    lines = basket.eligible(campaign)
    if not lines or sum(basket.gross[line] for line in lines) < campaign.min_subtotal:
        return "below-minimum"
    payable = sum(basket.payable[line] for line in lines)
    discount = min(campaign.value_of(payable), payable)
    if discount == 0:
        return "no-discount"
    if campaign.per_customer is not None:
        used = usage.live_by_customer.get((campaign.id, order.customer_id), 0)
        if used >= campaign.per_customer:
            return "customer-limit"
    if campaign.total is not None and usage.live.get(campaign.id, 0) >= campaign.total:
        return "total-limit"
    if not usage.affords(campaign, discount):
        return "budget-exhausted"
    return discount, lines


def _apply_credit(
    order: OrderPlaced, cause: Cause, basket: Basket, wallet: Wallet, postings: list[Posting]
) -> CreditShare:
    if order.credit_requested == 0:
        return CreditShare()
    wanted = min(order.credit_requested, sum(basket.payable))
    burned = burn(wallet, wanted, order.placed_at, cause, postings)
    applied = sum(amount for _, amount in burned)
    shares = share(applied, basket.payable) if applied else []
    if applied:
        basket.pay(shares)
    return CreditShare(order.credit_requested, applied, wanted - applied, shares, burned)


def _earn(
    order: OrderPlaced,
    cause: Cause,
    campaigns: CampaignSet,
    basket: Basket,
    usage: Usage,
    postings: list[Posting],
    refusals: list[Refusal],
) -> list[EarnShare]:
    earned: list[EarnShare] = []
    for campaign in campaigns.earning.get(order.currency, ()):
        if not campaign.holds(order.placed_at):
            continue
        lines = basket.eligible(campaign)
        if not lines or sum(basket.gross[line] for line in lines) < campaign.min_subtotal:
            continue
        payable = sum(basket.payable[line] for line in lines)
        amount = campaign.value_of(payable) if payable else 0
        if amount == 0:
            continue
        if not usage.affords(campaign, amount):
            refusals.append(_refusal("", campaign, "budget-exhausted"))
            continue
        usage.spend(campaign.id, amount)
        debit, credit = campaign_account(campaign.id), pending_account(order.customer_id)
        postings.append(
            post(cause, "earn", debit, credit, amount, currency=order.currency, customer_id=order.customer_id)
        )
        earned.append(
            EarnShare(
                campaign.id,
                campaign.version,
                amount,
                basket.share(amount, lines),
                campaign.valid_days,
                campaign.reissue_days,
            )
        )
    return earned


def _refusal(code: str, campaign: Campaign | None, reason: str) -> Refusal:
    return Refusal(code, campaign.id if campaign else None, campaign.version if campaign else None, reason)
