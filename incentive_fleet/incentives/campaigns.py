"""Campaign terms as plain values, and the set of them that a decision is made against. Reading the file is campaign_file's."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from incentive_fleet.incentives.money import FULL_RATE_BPS, half_up

Kind = Literal["coupon", "earn", "make_good", "grant"]
DEFAULT_REISSUE_DAYS = 30  # rules 6.4


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
    min_subtotal: int = 0
    categories: frozenset[str] = frozenset()
    excluded_categories: frozenset[str] = frozenset()
    per_customer: int | None = None
    total: int | None = None
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
        value = self.amount if self.amount is not None else half_up(base * (self.rate_bps or 0), FULL_RATE_BPS)
        return value if self.max_amount is None else min(value, self.max_amount)


@dataclass(frozen=True, slots=True)
class CampaignSet:
    """All current terms, arranged for deciding."""

    by_id: dict[str, Campaign] = field(default_factory=dict)
    by_code: dict[str, Campaign] = field(default_factory=dict)
    earning: dict[str, tuple[Campaign, ...]] = field(default_factory=dict)  # currency -> by campaign id
    making_good: dict[str, tuple[Campaign, ...]] = field(default_factory=dict)  # currency -> by campaign id

    @classmethod
    def of(cls, campaigns: Iterable[Campaign]) -> CampaignSet:
        ordered = sorted(campaigns, key=lambda campaign: campaign.id)
        return cls(
            by_id={campaign.id: campaign for campaign in ordered},
            by_code={campaign.code: campaign for campaign in ordered if campaign.code is not None},
            earning=_by_currency(ordered, "earn"),
            making_good=_by_currency(ordered, "make_good"),
        )


def _by_currency(ordered: list[Campaign], kind: Kind) -> dict[str, tuple[Campaign, ...]]:
    grouped: dict[str, list[Campaign]] = {}
    for campaign in ordered:
        if campaign.kind == kind:
            grouped.setdefault(campaign.currency, []).append(campaign)
    return {currency: tuple(group) for currency, group in grouped.items()}


@dataclass(slots=True)
class Usage:
    """What limited campaigns have been used for so far: a working copy, read under the campaigns' locks.

    `spent` is the net spend in minor units; `live` counts live redemptions of all customers, `live_by_customer` of one.
    """

    spent: dict[str, int] = field(default_factory=dict)
    live: dict[str, int] = field(default_factory=dict)
    live_by_customer: dict[tuple[str, str], int] = field(default_factory=dict)

    def affords(self, campaign: Campaign, amount: int) -> bool:
        """Whether the budget, if there is one, bears `amount` more."""
        return campaign.budget is None or self.spent.get(campaign.id, 0) + amount <= campaign.budget

    def at_customer_limit(self, campaign: Campaign, customer_id: str) -> bool:
        """Whether the customer has as many live redemptions as the campaign allows."""
        used = self.live_by_customer.get((campaign.id, customer_id), 0)
        return campaign.per_customer is not None and used >= campaign.per_customer

    def at_total_limit(self, campaign: Campaign) -> bool:
        """Whether all customers together have as many live redemptions as the campaign allows."""
        return campaign.total is not None and self.live.get(campaign.id, 0) >= campaign.total

    def spend(self, campaign_id: str, amount: int) -> None:
        """Count `amount` minor units (negative when they come back) as spent."""
        self.spent[campaign_id] = self.spent.get(campaign_id, 0) + amount

    def redeem(self, campaign_id: str, customer_id: str, count: int = 1) -> None:
        """Count a redemption as live, or with -1 as released."""
        self.live[campaign_id] = self.live.get(campaign_id, 0) + count
        key = (campaign_id, customer_id)
        self.live_by_customer[key] = self.live_by_customer.get(key, 0) + count
