"""What a placing's coupons ask of others' orders and of people's acts: limits, codes, audiences, first orders, holds.

It names what a batch needs and has the statements that read it; locking.py runs them after the locks that guard them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from psycopg import Connection

from incentive_fleet.incentives.campaigns import Campaign, CampaignSet, PooledCode, Usage
from incentive_fleet.ledger.columns import packed, packed_rows, unpacked

TEXTS: Final = unpacked()
READ_POOLS: Final = f"SELECT code, campaign_id FROM codes WHERE code = ANY({TEXTS})"
READ_CODES: Final = f"""
    SELECT code, campaign_id, customer_id, expires_at, revoked_at IS NOT NULL, order_id
    FROM codes WHERE code = ANY({TEXTS}) ORDER BY code
"""
LOCK_CODES: Final = f"{READ_CODES} FOR NO KEY UPDATE"
READ_MEMBERS: Final = f"""
    SELECT m.* FROM unnest({TEXTS}, {TEXTS}) AS k (audience, customer_id), LATERAL (
        SELECT audience, customer_id FROM audience_members
        WHERE audience = k.audience AND customer_id = k.customer_id OFFSET 0
    ) AS m
"""
READ_HELD: Final = f"SELECT customer_id FROM wallet_holds WHERE released_at IS NULL AND customer_id = ANY({TEXTS})"
# No further than any campaign asks: a customer may have thousands.
READ_COUNTING: Final = f"""
    SELECT k.customer_id, k.currency,
        (SELECT count(*) FROM (
            SELECT FROM decisions AS d WHERE d.customer_id = k.customer_id AND d.currency = k.currency AND d.counts
                AND NOT EXISTS (SELECT FROM counting_changes AS c WHERE c.order_id = d.order_id) LIMIT %s
        ) AS counted)
        + (SELECT count(*) FROM (
            SELECT FROM counting_changes AS c
            WHERE c.customer_id = k.customer_id AND c.currency = k.currency AND c.counts LIMIT %s
        ) AS changed)
    FROM unnest({TEXTS}, {TEXTS}) AS k (customer_id, currency)
"""


class CodeRow(NamedTuple):
    """The order that a code stands on now; None: on none."""

    code: str
    order_id: str | None


class CountingRow(NamedTuple):
    """An order that counts otherwise than when it was placed."""

    order_id: str
    customer_id: str
    currency: str
    counts: bool


@dataclass(slots=True)
class Conditions:
    """What has to be locked and read before a batch's coupons, credit and earnings can be decided."""

    limited: set[str] = field(default_factory=set)  # campaigns with a total or a budget
    counted: set[tuple[str, str]] = field(default_factory=set)  # (campaign, customer) with a limit each
    codes: set[str] = field(default_factory=set)  # of pools
    members: set[tuple[str, str]] = field(default_factory=set)  # (audience, customer)
    spenders: set[str] = field(default_factory=set)  # customers who ask for credit
    ordering: set[tuple[str, str]] = field(default_factory=set)  # (customer, currency) whose orders are counted
    orders_max: int = 0  # how far they are counted

    def ask(self, campaign: Campaign, customer_id: str) -> None:
        """Note what this campaign wants to know of this customer."""
        if campaign.is_limited:
            self.limited.add(campaign.id)
        if campaign.per_customer is not None:
            self.counted.add((campaign.id, customer_id))
        for audience in (campaign.audience, campaign.not_audience):
            if audience is not None:
                self.members.add((audience, customer_id))
        if campaign.first_orders is not None:
            self.ordering.add((customer_id, campaign.currency))
            self.orders_max = max(self.orders_max, campaign.first_orders)


def read_pools(connection: Connection[Any], codes: Iterable[str], campaigns: CampaignSet) -> dict[str, Campaign]:
    """The campaigns of those codes that a pool holds; which campaign a code belongs to never changes."""
    named = sorted(codes)
    if not named:
        return {}
    rows = connection.execute(READ_POOLS, (packed(named),)).fetchall()
    return {code: campaigns.by_id[campaign_id] for code, campaign_id in rows if campaign_id in campaigns.by_id}


def send(connection: Connection[Any], asked: Conditions, codes: str = LOCK_CODES) -> Mapping[str, Any]:
    """Send what is asked, in the caller's pipeline and after its locks; `received` takes the answers."""
    cursors: dict[str, Any] = {}
    if asked.codes:
        cursors["codes"] = connection.execute(codes, (packed(sorted(asked.codes)),))
    if asked.members:
        cursors["members"] = connection.execute(READ_MEMBERS, packed_rows(sorted(asked.members)))
    if asked.spenders:
        cursors["held"] = connection.execute(READ_HELD, (packed(sorted(asked.spenders)),))
    if asked.ordering:
        most = asked.orders_max
        cursors["counting"] = connection.execute(READ_COUNTING, [most, most, *packed_rows(sorted(asked.ordering))])
    return cursors


def received(cursors: Mapping[str, Any], usage: Usage) -> None:
    """Put the answers into the usage that decisions read."""
    rows = {name: cursor.fetchall() for name, cursor in cursors.items()}
    usage.codes = {code: PooledCode(*terms) for code, *terms in rows.get("codes", ())}
    usage.members = {(audience, customer_id) for audience, customer_id in rows.get("members", ())}
    usage.held = {customer_id for (customer_id,) in rows.get("held", ())}
    usage.counting = {(customer, currency): int(count) for customer, currency, count in rows.get("counting", ())}
