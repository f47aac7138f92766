"""What campaigns are and did: terms by version, net spend, redemptions by day, refusals by reason. Never writes.

Each function reads for any number of campaigns in one statement, and inside the caller's transaction where there is one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from psycopg import Connection
from psycopg.rows import dict_row

from incentive_fleet.events.times import format_time
from incentive_fleet.incentives.refusals import MEANINGS, RefusalCode
from incentive_fleet.ledger.connection import mapped_errors

ROWS_MAX: Final = 10_000  # of one listing
DAYS_MAX: Final = 3_660  # of one listing, which is ten years
LOOKED_BACK: Final = 20_000  # outcomes in which refusals are counted: the ledger has no index of them

READ: Final = """
    SELECT c.campaign_id, c.version, v.terms, v.loaded_at,
           coalesce((SELECT sum(balance) FROM balances b
                     WHERE b.account = 'campaign:' || c.campaign_id AND b.currency = c.currency), 0) AS net_spend,
           coalesce((SELECT sum(live) FROM redemption_counts r WHERE r.campaign_id = c.campaign_id), 0) AS live_redemptions
    FROM campaigns c JOIN campaign_versions v USING (campaign_id, version)
    WHERE c.campaign_id > %(after)s AND (%(ids)s::text[] IS NULL OR c.campaign_id = ANY(%(ids)s))
    ORDER BY c.campaign_id LIMIT %(limit)s
"""
READ_VERSIONS: Final = """
    SELECT campaign_id, version, loaded_at, terms FROM campaign_versions WHERE campaign_id = ANY(%s)
    ORDER BY campaign_id, version DESC
"""
READ_DAYS: Final = """
    SELECT campaign_id, (redeemed_at AT TIME ZONE 'UTC')::date::text AS day, count(*) AS redemptions, sum(discount) AS discount,
           count(*) FILTER (WHERE released_at IS NOT NULL) AS released
    FROM redemptions
    WHERE campaign_id = ANY(%(ids)s) AND (%(since)s::timestamptz IS NULL OR redeemed_at >= %(since)s)
      AND (%(until)s::timestamptz IS NULL OR redeemed_at < %(until)s)
    GROUP BY 1, 2 ORDER BY 1, 2 DESC
"""
READ_REFUSALS: Final = f"""
    WITH latest AS MATERIALIZED (
        SELECT type, body, created_at FROM outbox
        WHERE outbox_id > (SELECT coalesce(max(outbox_id), 0) FROM outbox) - {LOOKED_BACK}
    ), told AS (
        SELECT one ->> 'campaign_id' AS campaign_id, one ->> 'refusal' AS reason
        FROM latest, LATERAL (SELECT body::json -> 'data' AS data) AS read, LATERAL (
            SELECT json_array_elements(data -> 'coupons') UNION ALL SELECT json_array_elements(data -> 'earned')) AS each (one)
        WHERE type = 'incentives-applied.v1'
    )
    SELECT campaign_id, reason, count(*), (SELECT min(created_at) FROM latest)
    FROM told WHERE reason IS NOT NULL AND campaign_id = ANY(%s) GROUP BY 1, 2 ORDER BY 1, 3 DESC, 2
"""


@dataclass(frozen=True, slots=True)
class CampaignVersion:
    """Terms as one load gave them."""

    campaign_id: str
    version: int
    loaded_at: str  # RFC 3339 in UTC
    terms: dict[str, Any]


@dataclass(frozen=True, slots=True)
class RedemptionDay:
    """The redemptions of the orders that were placed on a day of UTC, by their own times."""

    day: str  # 2026-01-31
    redemptions: int
    discount: int  # minor units, as they were redeemed
    released: int  # of them, since then


@dataclass(frozen=True, slots=True)
class ReasonCount:
    """How often a campaign was refused for a reason, in the latest outcomes: those since `since`, 20,000 at the most."""

    reason: str
    because: str
    times: int
    since: str


def list_campaigns(
    connection: Connection[Any], *, after: str = "", limit: int = ROWS_MAX, ids: Sequence[str] | None = None
) -> list[dict[str, Any]]:
    """Campaigns with their current terms, net spend and live redemptions, by id, from behind `after` on; of `ids` alone.

    Raises TransientError.
    """
    with mapped_errors(blameless=True), connection.cursor(row_factory=dict_row) as cursor:
        named = None if ids is None else list(ids)
        rows = cursor.execute(READ, {"after": after, "ids": named, "limit": limit}).fetchall()
    whole = ("net_spend", "live_redemptions")  # sums may leave bigint, and come as decimals
    return [row | {name: int(row[name]) for name in whole} for row in rows]


def campaign_versions(connection: Connection[Any], ids: Sequence[str]) -> dict[str, list[CampaignVersion]]:
    """All versions of each campaign, the current one first. Raises TransientError."""
    found: dict[str, list[CampaignVersion]] = {id: [] for id in ids}
    with mapped_errors(blameless=True):
        rows = connection.execute(READ_VERSIONS, (list(ids),)).fetchall()
    for id, version, loaded_at, terms in rows:
        found[id].append(CampaignVersion(id, version, format_time(loaded_at), terms))
    return found


def redemptions_by_day(
    connection: Connection[Any], ids: Sequence[str], since: datetime | None = None, until: datetime | None = None
) -> dict[str, list[RedemptionDay]]:
    """The days on which each campaign was redeemed, the latest first, 3,660 at the most; those within [since, until).

    It reads all redemptions of these campaigns, so a large one takes seconds. Raises StatementTimedOut and TransientError.
    """
    found: dict[str, list[RedemptionDay]] = {id: [] for id in ids}
    with mapped_errors(blameless=True):
        rows = connection.execute(READ_DAYS, {"ids": list(ids), "since": since, "until": until}).fetchall()
    for id, day, redemptions, discount, released in rows:
        if len(found[id]) < DAYS_MAX:
            found[id].append(RedemptionDay(day, redemptions, int(discount), released))
    return found


def refusals_by_reason(connection: Connection[Any], ids: Sequence[str]) -> dict[str, list[ReasonCount]]:
    """Why each campaign was refused to customers of late, the most frequent reason first.

    Of what the latest 20,000 outcomes say. A code that no campaign knows is nobody's refusal. Raises TransientError.
    """
    found: dict[str, list[ReasonCount]] = {id: [] for id in ids}
    with mapped_errors(blameless=True):
        rows = connection.execute(READ_REFUSALS, (list(ids),)).fetchall()
    for id, reason, times, since in rows:
        found[id].append(ReasonCount(reason, MEANINGS[RefusalCode(reason)], times, format_time(since)))
    return found
