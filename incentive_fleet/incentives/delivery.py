"""Delivery completed: what is left of the earned credit vests, and a late delivery is made good (SPEC 7)."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from incentive_fleet.events.models import DeliveryCompleted
from incentive_fleet.incentives.campaigns import CampaignSet, Usage
from incentive_fleet.incentives.decision import Decision
from incentive_fleet.incentives.posting import Cause, Posting, campaign_account, pending_account
from incentive_fleet.incentives.progress import Progress, Vested, reversed_of
from incentive_fleet.incentives.wallet import Wallet, open_lot


@dataclass(slots=True)
class Settlement:
    """What a delivery brought: (campaign_id, amount, expires_at) rows, and make-goods refused as (campaign_id, reason)."""

    vested: list[tuple[str, int, datetime | None]] = field(default_factory=list)
    made_good: list[tuple[str, int, datetime | None]] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)


def settle(
    delivery: DeliveryCompleted,
    decision: Decision,
    progress: Progress,
    cause: Cause,
    campaigns: CampaignSet,
    wallet: Wallet,
    usage: Usage,
    postings: list[Posting],
) -> Settlement:
    """Vest and make good, after the undelivered units were reversed. Marks the order as delivered."""
    settlement = Settlement()
    _vest(decision, progress, cause, wallet, postings, settlement)
    progress.delivered_at = delivery.delivered_at
    if delivery.promised_by is not None:
        _make_good(delivery, delivery.promised_by, decision, cause, campaigns, wallet, usage, postings, settlement)
    return settlement


def _vest(
    decision: Decision,
    progress: Progress,
    cause: Cause,
    wallet: Wallet,
    postings: list[Posting],
    settlement: Settlement,
) -> None:
    gone = progress.reversed_value(decision.gross)
    for earn in decision.earned:
        reversed_before = reversed_of(earn.shares, decision.gross, gone)
        left = earn.amount - reversed_before
        lot_no = 0
        if left:
            expires_at = _after(cause.happened_at, earn.valid_days)
            lot_no = open_lot(
                wallet,
                "vest",
                pending_account(decision.customer_id),
                left,
                cause,
                postings,
                campaign_id=earn.campaign_id,
                expires_at=expires_at,
                reissue_days=earn.reissue_days,
            ).lot_no
            settlement.vested.append((earn.campaign_id, left, expires_at))
        progress.vested.append(Vested(earn.campaign_id, lot_no, reversed_before))


def _make_good(
    delivery: DeliveryCompleted,
    promised_by: datetime,
    decision: Decision,
    cause: Cause,
    campaigns: CampaignSet,
    wallet: Wallet,
    usage: Usage,
    postings: list[Posting],
    settlement: Settlement,
) -> None:
    for campaign in campaigns.making_good.get(decision.currency, ()):
        late = delivery.delivered_at > promised_by + timedelta(minutes=campaign.grace_minutes)
        if not late or not campaign.holds(delivery.delivered_at):
            continue
        amount = campaign.value_of(sum(decision.gross))
        if amount == 0:
            continue
        if not usage.affords(campaign, amount):
            settlement.refused.append((campaign.id, "budget-exhausted"))
            continue
        usage.spend(campaign.id, amount)
        expires_at = _after(delivery.delivered_at, campaign.valid_days)
        open_lot(
            wallet,
            "make_good",
            campaign_account(campaign.id),
            amount,
            cause,
            postings,
            campaign_id=campaign.id,
            expires_at=expires_at,
            reissue_days=campaign.reissue_days,
        )
        settlement.made_good.append((campaign.id, amount, expires_at))


def _after(moment: datetime, days: int | None) -> datetime | None:
    return None if days is None else moment + timedelta(days=days)
