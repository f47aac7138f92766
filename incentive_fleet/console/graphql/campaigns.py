"""Campaigns: terms by version, spend against budget, redemptions by day, refusals by reason."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import strawberry
from strawberry.types import Info

from incentive_fleet.console.graphql.cursors import FIRST, checked_first, page_of, place_of
from incentive_fleet.console.graphql.reading import Asking, asking_of
from incentive_fleet.console.graphql.scalars import Document, Long, MinorUnits, Time, shows
from incentive_fleet.console.visitors import Work
from incentive_fleet.ledger import campaign_reports

LISTING: Final = "campaigns"


@strawberry.type(name="CampaignVersion", description="Terms as one load gave them.")
class CampaignVersionShown:
    version: int
    loaded_at: Time
    terms: Document


@strawberry.type(name="RedemptionDay", description="The orders of a day in UTC that redeemed the campaign.")
class RedemptionDayShown:
    day: str = strawberry.field(description="2026-01-31")
    redemptions: Long
    discount: MinorUnits = strawberry.field(description="As they were redeemed.")
    released: Long = strawberry.field(description="Of them, since then.")


@strawberry.type(name="ReasonCount", description="How often the campaign was refused for a reason of late.")
class ReasonCountShown:
    reason: str
    because: str
    times: Long
    since: Time = strawberry.field(
        description="When the oldest outcome was written that was counted; 20,000 at the most."
    )


@strawberry.type(name="Campaign")
class CampaignShown:
    campaign_id: str
    version: int
    terms: Document = strawberry.field(description="The current ones, as in the campaign file.")
    loaded_at: Time
    net_spend: MinorUnits
    live_redemptions: Long

    @shows(MinorUnits | None)
    def budget(self: Any) -> Any:
        """That net spend may reach; null: none."""
        return self["terms"].get("budget")

    @shows(list[CampaignVersionShown])
    async def versions(self: Any, info: Info[Any, Any]) -> Any:
        """All of them, the current one first."""
        return await asking_of(info).load(_versions_of, self["campaign_id"])

    @shows(list[RedemptionDayShown])
    async def redemptions_by_day(
        self: Any, info: Info[Any, Any], since: Time | None = None, until: Time | None = None
    ) -> Any:
        """The latest day first, within [since, until)."""
        return await asking_of(info).load(_days_of, self["campaign_id"], since, until)

    @shows(list[ReasonCountShown])
    async def refusals_by_reason(self: Any, info: Info[Any, Any]) -> Any:
        """The most frequent first, of what the latest outcomes say."""
        return await asking_of(info).load(_refusals_of, self["campaign_id"])


def campaigns(info: Info[Any, Any], first: int = FIRST, after: str | None = None) -> Any:
    """By id."""
    place = place_of(LISTING, after, (str,))
    behind = place[0] if place else ""
    limit = checked_first(first) + 1
    rows = asking_of(info).read(Work.READ, campaign_reports.list_campaigns, after=behind, limit=limit)
    return page_of(LISTING, rows, first, after, lambda row: (row["campaign_id"],))


async def campaign(info: Info[Any, Any], campaign_id: str) -> Any:
    """By its id; null when there is none."""
    return await asking_of(info).load(_campaigns_of, campaign_id)


def _campaigns_of(asking: Asking, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    rows = campaign_reports.list_campaigns(asking.reader(Work.READ), ids=ids)
    return {row["campaign_id"]: row for row in rows}


def _versions_of(asking: Asking, ids: Sequence[str]) -> dict[str, Any]:
    return dict(campaign_reports.campaign_versions(asking.reader(Work.READ), ids))


def _days_of(asking: Asking, ids: Sequence[str], since: datetime | None, until: datetime | None) -> dict[str, Any]:
    return dict(campaign_reports.redemptions_by_day(asking.reader(Work.READ), ids, since, until))


def _refusals_of(asking: Asking, ids: Sequence[str]) -> dict[str, Any]:
    return dict(campaign_reports.refusals_by_reason(asking.reader(Work.READ), ids))
