"""What a grant is, by whatever way it comes, and a grant that comes as an event among a batch's others (rules 8). No I/O."""

from __future__ import annotations

from datetime import datetime

from incentive_fleet.events.codec import Event
from incentive_fleet.events.models import CreditGrantRequested
from incentive_fleet.incentives.accounts import Kind
from incentive_fleet.incentives.booking import Book, Cause, LotTerms, open_lot
from incentive_fleet.incentives.campaigns import Campaign, CampaignSet
from incentive_fleet.incentives.notices import granted
from incentive_fleet.ledger.rows import GrantRow, OutcomeRow
from incentive_fleet.ledger.telling import notice_row
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
    row, notice = give(book, campaign, asked.grant_key, asked.amount, asked.expires_at, event.traceparent)
    working.writes.grants.append(row)
    working.writes.outcomes.append(notice)
    return None


def give(
    book: Book, campaign: Campaign, key: str, amount: int, expires_at: datetime | None, traceparent: str | None = None
) -> tuple[GrantRow, OutcomeRow]:
    """Book a grant that nothing refuses; returns its row and its notice."""
    wallet, moment = book.wallet, book.cause.happened_at
    lot = open_lot(book, Kind.GRANT, amount, LotTerms(campaign.id, expires_at, campaign.reissue_days))
    row = GrantRow(
        key=key,
        customer_id=wallet.customer_id,
        currency=wallet.currency,
        amount=amount,
        campaign_id=campaign.id,
        expires_at=expires_at,
        lot_no=lot.lot_no,
        granted_at=moment,
    )
    return row, notice_row(granted(wallet, lot, key, moment), traceparent)
