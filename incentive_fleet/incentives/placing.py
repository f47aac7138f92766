"""Order placed: which coupons, how much credit, what is earned (rules 5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from incentive_fleet.events.models import Line, OrderPlaced
from incentive_fleet.incentives.accounts import Kind
from incentive_fleet.incentives.booking import Book
from incentive_fleet.incentives.campaigns import Campaign, CampaignSet, Usage
from incentive_fleet.incentives.credit import burn
from incentive_fleet.incentives.decision import CouponShare, CreditShare, Decision, EarnShare, Refusal
from incentive_fleet.incentives.money import share
from incentive_fleet.incentives.refusals import RefusalCode


@dataclass(slots=True)
class Basket:
    """The order's lines as parallel lists, and what is still to pay for each after the incentives so far."""

    categories: list[str | None]
    gross: list[int]
    payable: list[int]

    @classmethod
    def of(cls, lines: Sequence[Line]) -> Basket:
        """A basket to which nothing was applied yet."""
        gross = [line.quantity * line.unit_price for line in lines]
        return cls([line.category for line in lines], gross, gross)

    def eligible(self, campaign: Campaign) -> list[int]:
        """The positions of the lines that the campaign covers; none where their gross misses its minimum."""
        only, never = campaign.categories, campaign.excluded_categories
        lines = [
            line
            for line, category in enumerate(self.categories)
            if category not in never and (not only or category in only)
        ]
        if campaign.min_subtotal and sum([self.gross[line] for line in lines]) < campaign.min_subtotal:
            return []
        return lines

    def payable_of(self, lines: list[int]) -> int:
        """What is still to pay for these lines."""
        return sum(self.payable if len(lines) == len(self.payable) else [self.payable[line] for line in lines])

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


@dataclass(frozen=True, slots=True)
class Discount:
    """What a coupon would give: an amount in minor units, and the lines that it is shared over."""

    campaign: Campaign
    amount: int
    lines: list[int]


def normal_codes(codes: tuple[str, ...]) -> list[str]:
    """Coupon codes upper-cased, repeats dropped, in the order listed (rules 5.1)."""
    return list(dict.fromkeys([code.upper() for code in codes])) if codes else []


def place(order: OrderPlaced, campaigns: CampaignSet, book: Book) -> Decision:
    """Decide a placing and book it."""
    basket = Basket.of(order.lines)
    coupons, refused = _apply_coupons(order, campaigns, basket, book) if order.coupons else ([], [])
    credit = _apply_credit(order, basket, book)
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
    )


def _apply_coupons(
    order: OrderPlaced, campaigns: CampaignSet, basket: Basket, book: Book
) -> tuple[list[CouponShare], list[Refusal]]:
    accepted: list[CouponShare] = []
    refused: list[Refusal] = []
    taken: list[Campaign] = []
    for code in normal_codes(order.coupons):
        campaign = campaigns.by_code.get(code)
        found = _judge_coupon(order, campaign, taken, basket, book.usage)
        if isinstance(found, RefusalCode):
            refused.append(_refusal(code, campaign, found))
            continue
        taken.append(found.campaign)
        accepted.append(_accept(order, code, found, basket, book))
    return accepted, refused


def _judge_coupon(
    order: OrderPlaced, campaign: Campaign | None, taken: list[Campaign], basket: Basket, usage: Usage
) -> Discount | RefusalCode:
    """The discount, or the first reason that refuses the coupon; `taken` are the coupons accepted before it."""
    if campaign is None:
        return RefusalCode.UNKNOWN_COUPON
    if campaign.currency != order.currency:
        return RefusalCode.WRONG_CURRENCY
    if not campaign.holds(order.placed_at):
        return RefusalCode.NOT_ACTIVE
    if taken and (campaign.exclusive or any(other.exclusive for other in taken)):
        return RefusalCode.NOT_STACKABLE
    lines = basket.eligible(campaign)
    if not lines:
        return RefusalCode.BELOW_MINIMUM
    payable = basket.payable_of(lines)
    amount = min(campaign.value_of(payable), payable)
    if amount == 0:
        return RefusalCode.NO_DISCOUNT
    if usage.at_customer_limit(campaign, order.customer_id):
        return RefusalCode.CUSTOMER_LIMIT
    if usage.at_total_limit(campaign):
        return RefusalCode.TOTAL_LIMIT
    if not usage.affords(campaign, amount):
        return RefusalCode.BUDGET_EXHAUSTED
    return Discount(campaign, amount, lines)


def _accept(order: OrderPlaced, code: str, discount: Discount, basket: Basket, book: Book) -> CouponShare:
    campaign, shares = discount.campaign, basket.share(discount.amount, discount.lines)
    basket.pay(shares)
    book.usage.redeem(campaign.id, order.customer_id)
    book.book(Kind.COUPON, discount.amount, campaign_id=campaign.id)
    return CouponShare(campaign.id, campaign.version, code, discount.amount, shares)


def _apply_credit(order: OrderPlaced, basket: Basket, book: Book) -> CreditShare:
    if order.credit_requested == 0:
        return CreditShare()
    wanted = min(order.credit_requested, sum(basket.payable))
    burned = burn(book, wanted, order.placed_at)
    applied = sum(one.amount for one in burned)
    shares = share(applied, basket.payable) if applied else []
    if applied:
        basket.pay(shares)
    return CreditShare(order.credit_requested, applied, wanted - applied, shares, burned)


def _earn(
    order: OrderPlaced, campaigns: CampaignSet, basket: Basket, book: Book
) -> tuple[list[EarnShare], list[Refusal]]:
    earned: list[EarnShare] = []
    refused: list[Refusal] = []
    for campaign in campaigns.earning.get(order.currency, ()):
        lines = basket.eligible(campaign) if campaign.holds(order.placed_at) else []
        payable = basket.payable_of(lines)
        amount = campaign.value_of(payable) if payable else 0
        if amount == 0:
            continue
        if not book.usage.affords(campaign, amount):
            refused.append(_refusal("", campaign, RefusalCode.BUDGET_EXHAUSTED))
            continue
        book.book(Kind.EARN, amount, campaign_id=campaign.id)
        shares, terms = basket.share(amount, lines), (campaign.valid_days, campaign.reissue_days)
        earned.append(EarnShare(campaign.id, campaign.version, amount, shares, *terms))
    return earned, refused


def _refusal(code: str, campaign: Campaign | None, reason: RefusalCode) -> Refusal:
    return Refusal(code, campaign.id if campaign else None, campaign.version if campaign else None, reason)
