"""Delivery completed: what is left of the earned credit vests, and a late delivery is made good (rules 7)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from incentive_fleet.events.models import DeliveryCompleted
from incentive_fleet.incentives.accounts import Kind
from incentive_fleet.incentives.booking import Book, LotTerms, open_lot
from incentive_fleet.incentives.campaigns import Campaign, CampaignSet
from incentive_fleet.incentives.outcomes import Effect, NewCredit
from incentive_fleet.incentives.refusals import RefusalCode
from incentive_fleet.incentives.reversal import reverse
from incentive_fleet.incentives.running_totals import Progress, VestedEarning, note_delivery


def deliver(delivery: DeliveryCompleted, progress: Progress, campaigns: CampaignSet, book: Book) -> Effect:
    """Reverse undelivered units, vest the rest, make good a late delivery; the totals move on."""
    decision, totals = progress.counts, progress.totals
    late = _late(delivery, campaigns.making_good.get(decision.currency, ()))
    fall = note_delivery(progress, delivery)
    effect = reverse(progress, fall, book)
    goods = decision.goods(decision.gross) if late else 0
    for earn, gone in zip(decision.earned, fall.due.earned, strict=True):
        left, lot_no = earn.amount - gone, 0
        if left:
            expires_at = _after(delivery.delivered_at, earn.valid_days)
            lot_no = open_lot(book, Kind.VEST, left, LotTerms(earn.campaign_id, expires_at, earn.reissue_days)).lot_no
            effect.vested.append(NewCredit(earn.campaign_id, left, expires_at))
        totals.vested.append(VestedEarning(earn.campaign_id, lot_no, gone))
    for campaign in late:
        amount = campaign.value_of(goods)
        if amount == 0:
            continue
        if not book.usage.affords(campaign, amount):
            effect.made_good.append(NewCredit(campaign.id, 0, None, RefusalCode.BUDGET_EXHAUSTED))
            continue
        expires_at = _after(delivery.delivered_at, campaign.valid_days)
        open_lot(book, Kind.MAKE_GOOD, amount, LotTerms(campaign.id, expires_at, campaign.reissue_days))
        effect.made_good.append(NewCredit(campaign.id, amount, expires_at))
    totals.delivered_at = delivery.delivered_at
    return effect


def _late(delivery: DeliveryCompleted, campaigns: Sequence[Campaign]) -> list[Campaign]:
    """The campaigns that make good a delivery as late as this one."""
    at, promised = delivery.delivered_at, delivery.promised_by
    if promised is None:
        return []
    return [one for one in campaigns if at > promised + timedelta(minutes=one.grace_minutes) and one.holds(at)]


def _after(moment: datetime, days: int | None) -> datetime | None:
    return None if days is None else moment + timedelta(days=days)
