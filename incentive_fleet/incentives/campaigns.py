"""Campaign terms as plain values, and the set of them that a decision is made against. Reading the file is campaign_file's."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from incentive_fleet.events.models import GOODS
from incentive_fleet.incentives.money import FULL_RATE_BPS, value_of

Kind = Literal["coupon", "earn", "make_good", "grant"]
DEFAULT_REISSUE_DAYS = 30  # rules 6.4
GOODS_ONLY = frozenset({GOODS})


@dataclass(frozen=True, slots=True)
class Tier:
    """From this gross of the eligible lines on: an amount, or a rate of their payable."""

    min_subtotal: int
    rate_bps: int | None = None
    amount: int | None = None


@dataclass(frozen=True, slots=True)
class BuyGet:
    """Of every `buy` + `get` units the `get` cheapest of all are reduced by the rate."""

    buy: int
    get: int
    rate_bps: int = FULL_RATE_BPS
    max_sets: int | None = None


@dataclass(frozen=True, slots=True)
class SetPrice:
    """Every `units` units, dearest first, together for `price`."""

    units: int
    price: int
    max_sets: int | None = None


@dataclass(frozen=True, slots=True)
class Campaign:
    """One version of a campaign's terms (rules 9.2). Amounts in minor units, rates in basis points."""

    id: str
    kind: Kind
    currency: str
    starts_at: datetime
    ends_at: datetime
    version: int = 1
    budget: int | None = None
    code: str | None = None
    rate_bps: int | None = None
    amount: int | None = None
    max_amount: int | None = None
    tiers: tuple[Tier, ...] = ()
    buy_get: BuyGet | None = None
    set_price: SetPrice | None = None
    min_subtotal: int = 0
    min_basket: int = 0  # of the gross of all goods
    recheck_minimum: bool = False  # on the final basket
    line_kinds: frozenset[str] = GOODS_ONLY
    categories: frozenset[str] = frozenset()
    excluded_categories: frozenset[str] = frozenset()
    per_customer: int | None = None
    total: int | None = None
    first_orders: int | None = None  # refused to who has as many counting orders
    audience: str | None = None
    not_audience: str | None = None
    pooled: bool = False  # has codes of its own
    auto: bool = False  # needs no code
    exclusive: bool = True
    valid_days: int | None = None
    reissue_days: int = DEFAULT_REISSUE_DAYS
    grace_minutes: int = 0

    def holds(self, moment: datetime) -> bool:
        """Whether the campaign's window holds the moment: starts_at <= moment < ends_at (rules 1.2)."""
        return self.starts_at <= moment < self.ends_at

    @property
    def is_limited(self) -> bool:
        """Whether deciding needs the campaign's lock: a `total` or a `budget` is shared by all customers."""
        return self.total is not None or self.budget is not None

    def value_of(self, base: int) -> int:
        """The campaign's amount, or its rate of `base` rounded half up, at most `max_amount`."""
        value = value_of(self.rate_bps, self.amount, base)
        return value if self.max_amount is None else min(value, self.max_amount)


@dataclass(frozen=True, slots=True)
class CreditTerms:
    """Which lines credit pays: a version of the campaign file's [credit] table (rules 9)."""

    version: int = 0
    line_kinds: frozenset[str] | None = None  # None: all
    excluded_categories: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class CampaignSet:
    """All current terms, arranged for deciding."""

    by_id: dict[str, Campaign] = field(default_factory=dict)
    by_code: dict[str, Campaign] = field(default_factory=dict)
    earning: dict[str, tuple[Campaign, ...]] = field(default_factory=dict)  # currency -> by campaign id
    making_good: dict[str, tuple[Campaign, ...]] = field(default_factory=dict)  # currency -> by campaign id
    automatic: dict[str, tuple[Campaign, ...]] = field(default_factory=dict)  # currency -> by campaign id
    credit: CreditTerms = CreditTerms()
    # Terms that orders were placed under, which no load changes: read when an order's final basket asks for them.
    versions: dict[tuple[str, int], Campaign] = field(default_factory=dict)
    credit_versions: dict[int, CreditTerms] = field(default_factory=lambda: {0: CreditTerms()})

    @classmethod
    def of(cls, campaigns: Iterable[Campaign], credit: CreditTerms = CreditTerms()) -> CampaignSet:
        ordered = sorted(campaigns, key=lambda campaign: campaign.id)
        return cls(
            by_id={campaign.id: campaign for campaign in ordered},
            by_code={campaign.code: campaign for campaign in ordered if campaign.code is not None},
            earning=_by_currency(ordered, "earn"),
            making_good=_by_currency(ordered, "make_good"),
            automatic=_by_currency([campaign for campaign in ordered if campaign.auto], "coupon"),
            credit=credit,
            versions={(campaign.id, campaign.version): campaign for campaign in ordered},
            credit_versions={0: CreditTerms(), credit.version: credit},
        )


def _by_currency(ordered: list[Campaign], kind: Kind) -> dict[str, tuple[Campaign, ...]]:
    grouped: dict[str, list[Campaign]] = {}
    for campaign in ordered:
        if campaign.kind == kind:
            grouped.setdefault(campaign.currency, []).append(campaign)
    return {currency: tuple(group) for currency, group in grouped.items()}


@dataclass(slots=True)
class PooledCode:
    """One code of a campaign's pool; `order_id` is that of its live redemption."""

    campaign_id: str
    customer_id: str | None = None  # whom it is bound to
    expires_at: datetime | None = None
    revoked: bool = False
    order_id: str | None = None


@dataclass(slots=True)
class Usage:
    """What a decision asks of others' orders and of people's acts: a working copy, read under the locks that guard it.

    `spent` is the net spend of limited campaigns in minor units; `live` counts live redemptions of all customers,
    `live_by_customer` of one; `counting` the orders that count for first_orders, by customer and currency.
    """

    spent: dict[str, int] = field(default_factory=dict)
    live: dict[str, int] = field(default_factory=dict)
    live_by_customer: dict[tuple[str, str], int] = field(default_factory=dict)
    counting: dict[tuple[str, str], int] = field(default_factory=dict)
    codes: dict[str, PooledCode] = field(default_factory=dict)  # those that the batch's orders name
    members: set[tuple[str, str]] = field(default_factory=set)  # (audience, customer)
    held: set[str] = field(default_factory=set)  # customers whose credit is on hold

    def affords(self, campaign: Campaign, amount: int, standing: int = 0) -> bool:
        """Whether the budget, if there is one, bears `amount` in place of what of it is `standing`."""
        return campaign.budget is None or self.spent.get(campaign.id, 0) - standing + amount <= campaign.budget

    def spend(self, campaign_id: str, amount: int) -> None:
        """Count `amount` minor units (negative when they come back) as spent."""
        self.spent[campaign_id] = self.spent.get(campaign_id, 0) + amount

    def redeem(self, campaign_id: str, customer_id: str, code: str | None = None, order_id: str | None = None) -> None:
        """Count a redemption as live; a `code` of a pool stands on the order from now on."""
        self._redeemed(campaign_id, customer_id, 1)
        if code is not None:
            self.codes[code].order_id = order_id

    def release(self, campaign_id: str, customer_id: str, code: str | None = None) -> None:
        """Count a redemption as released; a `code` of a pool can be used again."""
        self._redeemed(campaign_id, customer_id, -1)
        if code is not None and code in self.codes:
            self.codes[code].order_id = None

    def count(self, customer_id: str, currency: str, more: int) -> None:
        """Count `more` orders of the customer, or fewer, for first_orders."""
        key = (customer_id, currency)
        self.counting[key] = self.counting.get(key, 0) + more

    def _redeemed(self, campaign_id: str, customer_id: str, more: int) -> None:
        self.live[campaign_id] = self.live.get(campaign_id, 0) + more
        key = (campaign_id, customer_id)
        self.live_by_customer[key] = self.live_by_customer.get(key, 0) + more
