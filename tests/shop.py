"""The sample shop in a database: what tests load before they consume, and the balances a calm run ends in."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime

from incentive_fleet.embedded import sample_shop
from incentive_fleet.events.codec import decode
from incentive_fleet.incentives.campaign_file import parse_campaigns
from incentive_fleet.ledger.balances import read_balances
from incentive_fleet.ledger.batch import apply_events
from incentive_fleet.ledger.codes import PoolRow, load_codes
from incentive_fleet.ledger.grants import Grant, grant
from incentive_fleet.ledger.session import Session
from incentive_fleet.ledger.terms import load_campaigns
from incentive_fleet.ledger.verify import verify

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def open_shop(url: str, shop: sample_shop.Shop, campaigns: str | None = None) -> None:
    """Load the shop's campaigns, or those that are given, its codes and opening balances."""
    with closing(Session(url)) as session:
        load_campaigns(session.connection, parse_campaigns(campaigns or sample_shop.campaigns(shop)))
        pool = enumerate(sample_shop.codes(shop), start=1)
        load_codes(session.connection, [PoolRow(line, *row, customer_id=None, expires_at=None) for line, row in pool])
        grant(session, [Grant(*row, expires_at=None) for row in sample_shop.grants(shop)], NOON)


def calm_balances(url: str, bodies: list[bytes]) -> dict[str, int]:
    """Apply each event once, in order, one batch after the other, and read the balances."""
    with closing(Session(url)) as session:
        for start in range(0, len(bodies), 500):
            apply_events(session, [decode(body) for body in bodies[start : start + 500]])
        return read_balances(session.connection)


def balances(url: str) -> dict[str, int]:
    """Every balance that is not zero."""
    with closing(Session(url)) as session:
        return read_balances(session.connection)


def faults(url: str) -> dict[str, object]:
    """What `ledger verify` finds wrong: empty when the ledger is sound."""
    with closing(Session(url)) as session:
        return {check.name: check.first for check in verify(session.connection).checks if check.faults}
