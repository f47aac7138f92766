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

from incentive_fleet.incentives.campaign_file import (
    CampaignFile,
    CampaignFileError,
    campaign_from_terms,
    credit_document,
    credit_from_terms,
)
from incentive_fleet.incentives.campaigns import Campaign, CampaignSet, CreditTerms
from incentive_fleet.ledger.connection import mapped_errors

TERMS_LOCK = 0x1CE_0002
AUTOMATIC_MAX = 50  # rules 9
VERSIONS_MAX = 100_000  # kept in memory
READ_VERSIONS = """
    SELECT v.campaign_id, v.version, v.terms
    FROM unnest(%s::text[], %s::int[]) AS k (campaign_id, version) JOIN campaign_versions AS v USING (campaign_id, version)
"""
Versions = tuple[set[tuple[str, int]], set[int]]  # of campaigns, of the [credit] table


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


def load_campaigns(connection: Connection[Any], file: CampaignFile) -> LoadSummary:
    """Store new versions of what differs; the others, and those not named, stay as they are. Idempotent.

    Raises CampaignFileError when a campaign would change its kind or currency, or take another campaign's code.
    """
    with mapped_errors(blameless=True), connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (TERMS_LOCK,))
        stored, campaigns = _stored(connection), file.campaigns
        changes = [
            (campaign, terms)
            for campaign, terms in campaigns
            if campaign.id not in stored or stored[campaign.id]["terms"] != terms
        ]
        _refuse_impossible(changes, stored, _pooled(connection, [campaign.code for campaign, _ in changes]))
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
        credit = _load_credit(connection, file.credit)
        if changes or credit:
            connection.execute("UPDATE campaign_revision SET revision = revision + 1")
    added = sum(campaign.id not in stored for campaign, _ in changes)
    return LoadSummary(added, len(changes) - added, len(campaigns) - len(changes))


def read_terms(connection: Connection[Any], revision: int) -> Terms:
    """The current set, read inside the caller's transaction under the shared terms lock."""
    rows = _stored(connection).values()
    campaigns = (campaign_from_terms(row["terms"], row["version"]) for row in rows)
    return Terms(revision, CampaignSet.of(campaigns, _credit_terms(connection)))


def read_versions(connection: Connection[Any], campaigns: CampaignSet, needed: Versions) -> None:
    """Put terms that orders were placed under beside the current ones; they never change, so once is enough."""
    of_campaigns, of_credit = needed[0] - campaigns.versions.keys(), needed[1] - campaigns.credit_versions.keys()
    if len(campaigns.versions) > VERSIONS_MAX:
        campaigns.versions.clear()
        campaigns.versions.update({(campaign.id, campaign.version): campaign for campaign in campaigns.by_id.values()})
        of_campaigns = needed[0] - campaigns.versions.keys()
    if of_campaigns:
        ids, numbers = zip(*sorted(of_campaigns), strict=True)
        for campaign_id, version, terms in connection.execute(READ_VERSIONS, (list(ids), list(numbers))).fetchall():
            campaigns.versions[(campaign_id, version)] = campaign_from_terms(terms, version)
    if of_credit:
        rows = connection.execute(
            "SELECT version, terms FROM credit_terms WHERE version = ANY(%s)", (list(of_credit),)
        ).fetchall()
        campaigns.credit_versions.update({version: credit_from_terms(terms, version) for version, terms in rows})


def _credit_terms(connection: Connection[Any]) -> CreditTerms:
    row = connection.execute("SELECT version, terms FROM credit_terms ORDER BY version DESC LIMIT 1").fetchone()
    return credit_from_terms(row[1], row[0]) if row else CreditTerms()


def _stored(connection: Connection[Any]) -> dict[str, dict[str, Any]]:
    with connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(
            "SELECT campaign_id, version, terms FROM campaigns JOIN campaign_versions USING (campaign_id, version)"
        ).fetchall()
    return {row["campaign_id"]: row for row in rows}


def _load_credit(connection: Connection[Any], terms: dict[str, Any] | None) -> bool:
    row = connection.execute("SELECT version, terms FROM credit_terms ORDER BY version DESC LIMIT 1").fetchone()
    version, current = row or (0, credit_document(CreditTerms()))
    if terms is None or terms == current:
        return False
    connection.execute("INSERT INTO credit_terms (version, terms) VALUES (%s, %s)", (version + 1, json.dumps(terms)))
    return True


def _pooled(connection: Connection[Any], codes: list[str | None]) -> dict[str, str]:
    """Those of the codes that a pool holds, with its campaign."""
    rows = connection.execute("SELECT code, campaign_id FROM codes WHERE code = ANY(%s)", (codes,)).fetchall()
    return dict(rows)


def _refuse_impossible(
    changes: list[tuple[Campaign, dict[str, Any]]], stored: dict[str, dict[str, Any]], pooled: dict[str, str]
) -> None:
    problems = _too_many_automatic(changes, stored)
    named = {campaign.id for campaign, _ in changes}
    codes = {row["terms"]["code"]: name for name, row in stored.items() if "code" in row["terms"] and name not in named}
    for campaign, terms in changes:
        was = stored.get(campaign.id, {}).get("terms", terms)
        problems += [
            f"campaign {campaign.id!r}: {key}: is {terms[key]!r}, was {was[key]!r}: it cannot change"
            for key in ("kind", "currency")
            if was[key] != terms[key]
        ]
        if campaign.kind == "coupon" and way_of_codes(was) != way_of_codes(terms):
            problems.append(
                f"campaign {campaign.id!r}: {way_of_codes(terms)}: was {way_of_codes(was)}: its way of codes cannot change"
            )
        if campaign.code in pooled:
            problems.append(
                f"campaign {campaign.id!r}: code: {campaign.code!r} is in the pool of campaign {pooled[campaign.code]!r}"
            )
        holder = codes.get(campaign.code or "")
        if holder:
            problems.append(f"campaign {campaign.id!r}: code: {campaign.code!r} belongs to campaign {holder!r}")
    if problems:
        raise CampaignFileError(problems)


def way_of_codes(terms: dict[str, Any]) -> str:
    """By which of its keys a coupon is asked for."""
    return next((key for key in ("codes", "auto") if key in terms), "code")


def _too_many_automatic(changes: list[tuple[Campaign, dict[str, Any]]], stored: dict[str, dict[str, Any]]) -> list[str]:
    """rules 9: at most 50 automatic coupons of a currency are active at any one time."""
    current = {name: campaign_from_terms(row["terms"], row["version"]) for name, row in stored.items()}
    current |= {campaign.id: campaign for campaign, _ in changes}
    changed = {campaign.currency for campaign, _ in changes if campaign.auto}
    problems = []
    for currency in sorted(changed):
        automatic = [one for one in current.values() if one.auto and one.currency == currency]
        most, moment = max((sum(other.holds(one.starts_at) for other in automatic), one.starts_at) for one in automatic)
        if most > AUTOMATIC_MAX:
            when = moment.isoformat()
            problems.append(
                f"auto: {most} automatic coupons in {currency} are active at {when}, more than {AUTOMATIC_MAX}"
            )
    return problems
