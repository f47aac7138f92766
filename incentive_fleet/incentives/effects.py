"""What a fact does to its order (rules 5 to 7 and 12): the rules of its type, one after the other, and the outcome to tell.

Money goes into the book; what else is to be recorded comes back as an Effect. No I/O here.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field

from incentive_fleet.events.models import DeliveryCompleted, OrderCancelled, OrderFinalized, OrderPlaced, OrderRefunded
from incentive_fleet.incentives import outcomes, standing
from incentive_fleet.incentives.anomalies import Anomaly, AnomalyReason
from incentive_fleet.incentives.booking import Book
from incentive_fleet.incentives.campaigns import CampaignSet
from incentive_fleet.incentives.decision import CouponShare, Decision
from incentive_fleet.incentives.delivery import complete
from incentive_fleet.incentives.final_basket import Adjustment, finalize
from incentive_fleet.incentives.placing import place
from incentive_fleet.incentives.reversal import reverse
from incentive_fleet.incentives.running_totals import Fall, RunningTotals, note_cancelling, note_delivery, note_refund

APPLIED, ADJUSTED = "incentives-applied.v1", "incentives-adjusted.v1"
REVERSED, REISSUED = "incentives-reversed.v1", "incentives-reissued.v1"


@dataclass(slots=True)
class Progress:
    """How far an order has come: what its placing decided, what its final basket did, and what its facts add up to."""

    placed: Decision
    totals: RunningTotals
    final: Decision | None = None

    @property
    def counts(self) -> Decision:
        """The basket that counts, as it was decided."""
        return self.final or self.placed

    @property
    def awaits_final(self) -> bool:
        """Whether the order is estimated and its final basket has not taken effect."""
        return self.placed.estimated and self.final is None

    @property
    def former(self) -> Container[str]:
        """The lines that the placing had, where another basket counts."""
        return self.placed.line_ids if self.final else ()

    def gone(self) -> list[int]:
        """R of each line of the basket that counts."""
        return self.totals.reversed_value(self.counts.gross)


@dataclass(slots=True)
class Effect:
    """What one fact brought besides its postings."""

    outcome: str  # the outcome's type
    data: outcomes.Data
    redeemed: list[CouponShare] = field(default_factory=list)
    released: list[str] = field(default_factory=list)  # campaigns whose redemption on the order ended
    anomalies: list[Anomaly] = field(default_factory=list)
    counted: bool = False  # whether the order counted for first_orders before the fact
    counts: bool = False  # and after it


def of_placing(order: OrderPlaced, campaigns: CampaignSet, book: Book) -> tuple[Decision, Effect]:
    """The placing's decision, to be kept with the order, and its effect."""
    decision = place(order, campaigns, book)
    data = outcomes.applied(decision, book.wallet)
    return decision, Effect(APPLIED, data, redeemed=decision.coupons, counts=decision.is_order())


def of_final_basket(final: OrderFinalized, progress: Progress, campaigns: CampaignSet, book: Book) -> Effect:
    """Settle an estimated order by what was picked; the basket that counts is the final one from now on."""
    stands = not (progress.totals.fully_refunded or progress.totals.cancelled)
    counted = progress.placed.is_order(progress.gone())
    decision, adjustment = finalize(final, progress.placed, campaigns, book, stands=stands)
    progress.final, progress.totals.lines = decision, len(decision.line_ids)
    data = outcomes.adjusted(progress.placed, decision, adjustment, [], book.wallet)
    # All of its money is due where everything was reversed before: as if this fact alone had brought that about.
    stood, gone = [0] * len(decision.gross), progress.gone()
    data |= _stands(progress, stood, gone)
    return Effect(ADJUSTED, data, released=adjustment.released, counted=counted, counts=decision.is_order(gone))


def of_unexpected_final(progress: Progress, book: Book) -> Effect:
    """A final basket of an order that is not estimated: kept, told, and without effect."""
    anomalies, gone = [Anomaly(AnomalyReason.FINAL_NOT_EXPECTED, book.cause.name)], progress.gone()
    data = outcomes.adjusted(progress.placed, progress.placed, Adjustment(), anomalies, book.wallet)
    return Effect(ADJUSTED, data | _stands(progress, gone, gone), anomalies=anomalies)


def of_refund(refund: OrderRefunded | OrderCancelled, progress: Progress, book: Book) -> Effect:
    """Reverse what the refund, or the cancelling, asks for; the totals move on."""
    decision, totals = progress.counts, progress.totals
    if isinstance(refund, OrderCancelled):
        fall, anomalies = note_cancelling(totals, decision)
    else:
        fall, anomalies = note_refund(totals, decision, progress.former, refund, book.cause.name)
    reversal = reverse(decision, totals, fall, book)
    data = outcomes.reversed_(reversal, anomalies, book.wallet)
    return _fallen(Effect(REVERSED, data, released=reversal.released, anomalies=anomalies), progress, fall)


def of_delivery(delivery: DeliveryCompleted, progress: Progress, campaigns: CampaignSet, book: Book) -> Effect:
    """Reverse undelivered units, vest the rest, make good a late delivery; the totals move on."""
    decision, totals = progress.counts, progress.totals
    fall, anomalies = note_delivery(totals, decision, progress.former, delivery)
    reversal = reverse(decision, totals, fall, book)
    totals.vested, completion = complete(delivery, decision, fall, campaigns, book)
    totals.delivered_at = delivery.delivered_at
    data = outcomes.reissued(reversal, completion, anomalies, book.wallet)
    return _fallen(Effect(REISSUED, data, released=reversal.released, anomalies=anomalies), progress, fall)


def _fallen(effect: Effect, progress: Progress, fall: Fall) -> Effect:
    """With what stands, and whether the order counted and counts; where nothing fell it is as before, whatever that was."""
    effect.data |= _stands(progress, fall.before, fall.after)
    if fall.after != fall.before:
        effect.counted, effect.counts = (progress.counts.is_order(gone) for gone in (fall.before, fall.after))
    return effect


def _stands(progress: Progress, before: list[int], after: list[int]) -> outcomes.Data:
    """The members of every outcome: what stands on each line, and what this fact makes due in money.

    Before an estimated order's final basket nothing is due, for nothing was charged.
    """
    decision, due = progress.counts, 0
    if after != before and not progress.awaits_final:
        due = standing.money_due(decision, after) - standing.money_due(decision, before)
    return {"lines": standing.lines(decision, after), "money_due_back": due}
