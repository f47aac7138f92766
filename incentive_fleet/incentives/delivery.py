"""Delivery completed: what is left of the earned credit vests, and a late delivery is made good (rules 7)."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NamedTuple

from incentive_fleet.events.models import DeliveryCompleted
from incentive_fleet.incentives.accounts import Kind
from incentive_fleet.incentives.booking import Book, LotTerms, open_lot
from incentive_fleet.incentives.campaigns import CampaignSet
from incentive_fleet.incentives.decision import Decision
from incentive_fleet.incentives.refusals import RefusalCode
from incentive_fleet.incentives.running_totals import Fall, VestedEarning, reversed_of


class NewCredit(NamedTuple):
    """Credit that a delivery brought under one campaign, in minor units; with a `refusal` it brought none."""

    campaign_id: str
    amount: int
    expires_at: datetime | None
    refusal: RefusalCode | None = None


class Completion(NamedTuple):
    """What an order's delivery brought, each list by campaign id."""

    vested: list[NewCredit]
    made_good: list[NewCredit]


def complete(
    delivery: DeliveryCompleted, decision: Decision, fall: Fall, campaigns: CampaignSet, book: Book
) -> tuple[list[VestedEarning], Completion]:
    """Vest what the undelivered units, which were reversed before, left standing, and make good. What vested is to be kept."""
    vested, brought = _vest(decision, fall, book)
    return vested, Completion(brought, _make_good(delivery, decision, campaigns, book))


def _vest(decision: Decision, fall: Fall, book: Book) -> tuple[list[VestedEarning], list[NewCredit]]:
    vested: list[VestedEarning] = []
    brought: list[NewCredit] = []
    for earn in decision.earned:
        reversed_before = reversed_of(earn.shares, fall.gross, fall.after)
        left, lot_no = earn.amount - reversed_before, 0
        if left:
            expires_at = _after(book.cause.happened_at, earn.valid_days)
            lot_no = open_lot(book, Kind.VEST, left, LotTerms(earn.campaign_id, expires_at, earn.reissue_days)).lot_no
            brought.append(NewCredit(earn.campaign_id, left, expires_at))
        vested.append(VestedEarning(earn.campaign_id, lot_no, reversed_before))
    return vested, brought


def _make_good(delivery: DeliveryCompleted, decision: Decision, campaigns: CampaignSet, book: Book) -> list[NewCredit]:
    brought: list[NewCredit] = []
    if delivery.promised_by is None:
        return brought
    for campaign in campaigns.making_good.get(decision.currency, ()):
        late = delivery.delivered_at > delivery.promised_by + timedelta(minutes=campaign.grace_minutes)
        amount = (
            campaign.value_of(decision.goods(decision.gross)) if late and campaign.holds(delivery.delivered_at) else 0
        )
        if amount == 0:
            continue
        if not book.usage.affords(campaign, amount):
            brought.append(NewCredit(campaign.id, 0, None, RefusalCode.BUDGET_EXHAUSTED))
            continue
        expires_at = _after(delivery.delivered_at, campaign.valid_days)
        open_lot(book, Kind.MAKE_GOOD, amount, LotTerms(campaign.id, expires_at, campaign.reissue_days))
        brought.append(NewCredit(campaign.id, amount, expires_at))
    return brought


def _after(moment: datetime, days: int | None) -> datetime | None:
    return None if days is None else moment + timedelta(days=days)
