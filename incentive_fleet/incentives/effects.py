"""What a fact does to its order (rules 5 to 7): the rules of its type, one after the other, and the outcome to tell.

Money goes into the book; what else is to be recorded comes back as an Effect. No I/O here.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from incentive_fleet.events.models import DeliveryCompleted, OrderPlaced, OrderRefunded
from incentive_fleet.incentives import outcomes
from incentive_fleet.incentives.anomalies import Anomaly
from incentive_fleet.incentives.booking import Book
from incentive_fleet.incentives.campaigns import CampaignSet
from incentive_fleet.incentives.decision import CouponShare, Decision
from incentive_fleet.incentives.delivery import complete
from incentive_fleet.incentives.placing import place
from incentive_fleet.incentives.reversal import reverse
from incentive_fleet.incentives.running_totals import RunningTotals, note_delivery, note_refund

APPLIED, REVERSED, REISSUED = "incentives-applied.v1", "incentives-reversed.v1", "incentives-reissued.v1"


@dataclass(frozen=True, slots=True)
class Effect:
    """What one fact brought besides its postings."""

    outcome: str  # the outcome's type
    data: outcomes.Data
    redeemed: list[CouponShare] = field(default_factory=list)
    released: list[str] = field(default_factory=list)  # campaigns whose redemption on the order ended
    anomalies: list[Anomaly] = field(default_factory=list)


def of_placing(order: OrderPlaced, campaigns: CampaignSet, book: Book) -> tuple[Decision, Effect]:
    """The placing's decision, to be kept with the order, and its effect."""
    decision = place(order, campaigns, book)
    return decision, Effect(APPLIED, outcomes.applied(decision, book.wallet), redeemed=decision.coupons)


def of_refund(refund: OrderRefunded, decision: Decision, totals: RunningTotals, book: Book) -> Effect:
    """Reverse what the refund asks for; the totals move on."""
    fall, anomalies = note_refund(totals, decision, refund, book.cause.name)
    reversal = reverse(decision, totals, fall, book)
    data = outcomes.reversed_(reversal, anomalies, book.wallet)
    return Effect(REVERSED, data, released=reversal.released, anomalies=anomalies)


def of_delivery(
    delivery: DeliveryCompleted, decision: Decision, totals: RunningTotals, campaigns: CampaignSet, book: Book
) -> Effect:
    """Reverse undelivered units, vest the rest, make good a late delivery; the totals move on."""
    fall, anomalies = note_delivery(totals, decision, delivery)
    reversal = reverse(decision, totals, fall, book)
    totals.vested, completion = complete(delivery, decision, fall, campaigns, book)
    totals.delivered_at = delivery.delivered_at
    data = outcomes.reissued(reversal, completion, anomalies, book.wallet)
    return Effect(REISSUED, data, released=reversal.released, anomalies=anomalies)
