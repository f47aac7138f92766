"""A grant that comes as an event (rules 8): the same act as by file or command, decided among a batch's other events. No I/O."""

from __future__ import annotations

from incentive_fleet.events.codec import Event
from incentive_fleet.events.models import CreditGrantRequested
from incentive_fleet.incentives.accounts import Kind
from incentive_fleet.incentives.booking import Book, Cause
from incentive_fleet.incentives.campaigns import CampaignSet
from incentive_fleet.incentives.credit import LotTerms, open_lot
from incentive_fleet.incentives.notices import granted
from incentive_fleet.ledger.rows import GrantRow
from incentive_fleet.ledger.telling import outbox_row
from incentive_fleet.ledger.working_set import WorkingSet


def hand_out(working: WorkingSet, campaigns: CampaignSet, event: Event, asked: CreditGrantRequested) -> str | None:
    """Book the grant; returns why it is refused instead, and then nothing is recorded."""
    campaign = campaigns.by_id.get(asked.campaign_id)
    if campaign is None or campaign.kind != "grant":
        return "unknown-campaign"
    if campaign.currency != asked.currency:
        return "wrong-currency"
    if not working.usage.affords(campaign, asked.amount):
        return "budget-exhausted"
    wallet = working.wallets[(asked.customer_id, asked.currency)]
    book = Book(Cause(event.fact, asked.requested_at, None), wallet, working.usage, working.writes.postings)
    lot = open_lot(book, Kind.GRANT, asked.amount, LotTerms(campaign.id, asked.expires_at, campaign.reissue_days))
    working.writes.grants.append(
        GrantRow(
            key=asked.grant_key,
            customer_id=asked.customer_id,
            currency=asked.currency,
            amount=asked.amount,
            campaign_id=campaign.id,
            expires_at=asked.expires_at,
            lot_no=lot.lot_no,
            granted_at=asked.requested_at,
        )
    )
    notice = granted(wallet, lot, asked.grant_key, asked.requested_at)
    working.writes.outcomes.append(outbox_row(notice, event.traceparent))
    return None
