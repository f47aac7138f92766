"""Campaigns: what each spent of its budget, its redemptions by day, why it was refused, its terms by version."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from incentive_fleet.console.pages.charts import bars
from incentive_fleet.console.pages.shell import asked, page
from incentive_fleet.console.premises import premises_of, visitor_of
from incentive_fleet.console.visitors import Work
from incentive_fleet.errors import Refused
from incentive_fleet.ledger.campaign_reports import (
    RedemptionDay,
    campaign_versions,
    list_campaigns,
    redemptions_by_day,
    refusals_by_reason,
)

ROWS: Final = 50
DAYS: Final = 90  # charted, up to the last day with a redemption
DAYS_LISTED: Final = 31
VERSIONS_SHOWN: Final = 20


def routes() -> list[Route]:
    """Of these pages."""
    return [Route("/campaigns", listing), Route("/campaigns/{campaign:path}", show)]


def listing(request: Request) -> Response:
    """By id."""
    with premises_of(request).connections.to(Work.READ, visitor_of(request)) as connection:
        found = list_campaigns(connection, after=asked(request, "after"), limit=ROWS + 1)
    following = found[ROWS - 1]["campaign_id"] if len(found) > ROWS else None
    shown = {"campaigns": [_with_share(row) for row in found[:ROWS]], "following": following}
    return page(request, "campaigns.html", {**shown, "now": _now()})


def show(request: Request) -> Response:
    """One campaign."""
    id = request.path_params["campaign"]
    with premises_of(request).connections.to(Work.READ, visitor_of(request)) as connection:
        found = list_campaigns(connection, ids=[id], limit=1)
        if not found:
            raise Refused("not-found", f"there is no campaign {id!r}")
        versions = campaign_versions(connection, [id])[id]
        days = redemptions_by_day(connection, [id])[id]
        refusals = refusals_by_reason(connection, [id])[id]
    shown = {
        "campaign": _with_share(found[0]),
        "versions": versions[:VERSIONS_SHOWN],
        "days": days[:DAYS_LISTED],
        "chart": _charted(days),
        "charted": DAYS,
        "refusals": refusals,
        "now": _now(),
    }
    return page(request, "campaign.html", shown)


def _now() -> str:
    return datetime.now(UTC).isoformat()


def _with_share(row: dict[str, Any]) -> dict[str, Any]:
    """With how much of the budget is spent, in whole percent; None without a budget."""
    budget = row["terms"].get("budget")
    return row | {"budget": budget, "share": None if not budget else 100 * row["net_spend"] // budget}


def _charted(days: list[RedemptionDay]) -> Any:
    """One bar a day, days without a redemption included."""
    if not days:
        return None
    last = date.fromisoformat(days[0].day)
    counts = {one.day: one.redemptions for one in days}
    first = max(date.fromisoformat(days[-1].day), last - timedelta(days=DAYS - 1))
    return bars([counts.get((first + timedelta(days=n)).isoformat(), 0) for n in range((last - first).days + 1)])
