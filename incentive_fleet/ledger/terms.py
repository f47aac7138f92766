"""Campaign terms in the database: loading them, all or nothing, and reading the current set.

Every batch holds the terms lock shared, a load holds it alone. So when a load gives a campaign a limit that it did not
have, no transaction that decided without the limit is still on its way.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from psycopg import Connection
from psycopg.rows import dict_row

from incentive_fleet.incentives.campaign_file import CampaignFileError, campaign_from_terms
from incentive_fleet.incentives.campaigns import Campaign, CampaignSet
from incentive_fleet.ledger.connection import mapped_errors

TERMS_LOCK = 0x1CE_0002


@dataclass(slots=True)
class Terms:
    """The campaign set that a process has in memory, and the revision it was read at."""

    revision: int = -1
    campaigns: CampaignSet = field(default_factory=CampaignSet)


@dataclass(frozen=True, slots=True)
class LoadSummary:
    """How many campaigns a load added, gave a new version, or found as they were."""

    added: int
    changed: int
    unchanged: int


def load_campaigns(connection: Connection[Any], campaigns: list[tuple[Campaign, dict[str, Any]]]) -> LoadSummary:
    """Store new versions of the campaigns that differ; the others, and those not named, stay as they are. Idempotent.

    Raises CampaignFileError when a campaign would change its kind or currency, or take another campaign's code.
    """
    with mapped_errors(blameless=True), connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (TERMS_LOCK,))
        stored = _stored(connection)
        changes = [
            (campaign, terms)
            for campaign, terms in campaigns
            if campaign.id not in stored or stored[campaign.id]["terms"] != terms
        ]
        _refuse_impossible(changes, stored)
        for campaign, terms in changes:
            version = stored[campaign.id]["version"] + 1 if campaign.id in stored else 1
            connection.execute(
                "INSERT INTO campaign_versions (campaign_id, version, terms) VALUES (%s, %s, %s)",
                (campaign.id, version, json.dumps(terms)),
            )
            connection.execute(
                "INSERT INTO campaigns (campaign_id, kind, currency, code, version) VALUES (%s, %s, %s, %s, %s)"
                " ON CONFLICT (campaign_id) DO UPDATE SET code = excluded.code, version = excluded.version",
                (campaign.id, campaign.kind, campaign.currency, campaign.code, version),
            )
        if changes:
            connection.execute("UPDATE campaign_revision SET revision = revision + 1")
    added = sum(campaign.id not in stored for campaign, _ in changes)
    return LoadSummary(added, len(changes) - added, len(campaigns) - len(changes))


def read_terms(connection: Connection[Any], revision: int) -> Terms:
    """The current set, read inside the caller's transaction under the shared terms lock."""
    rows = _stored(connection).values()
    return Terms(revision, CampaignSet.of(campaign_from_terms(row["terms"], row["version"]) for row in rows))


def list_campaigns(connection: Connection[Any]) -> list[dict[str, Any]]:
    """Every campaign with its current terms, net spend and live redemptions, by id."""
    with mapped_errors(blameless=True), connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(
            """
            SELECT c.campaign_id, c.version, v.terms, v.loaded_at,
                   coalesce((SELECT sum(balance) FROM balances b
                             WHERE b.account = 'campaign:' || c.campaign_id AND b.currency = c.currency), 0) AS net_spend,
                   coalesce((SELECT sum(live) FROM redemption_counts r WHERE r.campaign_id = c.campaign_id), 0)
                       AS live_redemptions
            FROM campaigns c JOIN campaign_versions v USING (campaign_id, version) ORDER BY c.campaign_id
            """
        ).fetchall()
    whole = ("net_spend", "live_redemptions")  # sums may leave bigint, and come as decimals
    return [row | {name: int(row[name]) for name in whole} for row in rows]


def _stored(connection: Connection[Any]) -> dict[str, dict[str, Any]]:
    with connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(
            "SELECT campaign_id, version, terms FROM campaigns JOIN campaign_versions USING (campaign_id, version)"
        ).fetchall()
    return {row["campaign_id"]: row for row in rows}


def _refuse_impossible(changes: list[tuple[Campaign, dict[str, Any]]], stored: dict[str, dict[str, Any]]) -> None:
    problems = []
    named = {campaign.id for campaign, _ in changes}
    codes = {row["terms"]["code"]: name for name, row in stored.items() if "code" in row["terms"] and name not in named}
    for campaign, terms in changes:
        was = stored.get(campaign.id, {}).get("terms", terms)
        problems += [
            f"campaign {campaign.id!r}: {key}: is {terms[key]!r}, was {was[key]!r}: it cannot change"
            for key in ("kind", "currency")
            if was[key] != terms[key]
        ]
        holder = codes.get(campaign.code or "")
        if holder:
            problems.append(f"campaign {campaign.id!r}: code: {campaign.code!r} belongs to campaign {holder!r}")
    if problems:
        raise CampaignFileError(problems)
