"""How far an order has come: its running totals per line, and what each fact that takes something back makes of them.

This is the desired state: the totals follow from the facts alone, whatever order they came in. The stored document has
named members and says which format it has, as a decision's does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, NamedTuple

from pydantic_core import to_json

from incentive_fleet.errors import UnknownFormat
from incentive_fleet.events.facts import CANCELLING
from incentive_fleet.events.models import DeliveryCompleted, OrderCancelled, OrderRefunded, RefundLine, UndeliveredLine
from incentive_fleet.events.times import format_time
from incentive_fleet.incentives.anomalies import Anomaly, AnomalyReason
from incentive_fleet.incentives.decision import Decision
from incentive_fleet.incentives.money import half_up

FORMAT: Final = 1
_BOTH: Final = Anomaly(AnomalyReason.CANCELLED_AND_DELIVERED, CANCELLING)


@dataclass(slots=True)
class VestedEarning:
    """What one earn campaign vested on the order: its lot, how much had been reversed until then, what was clawed back."""

    campaign_id: str
    lot_no: int  # 0: nothing was left to vest
    reversed_before: int
    clawed_back: int = 0


@dataclass(slots=True)
class RunningTotals:
    """What an order's facts add up to: minor units of gross value by line, for the lines that lost any.

    Lines go by their position in the basket that counts; until it is there, nothing is noted of a line.
    """

    lines: int  # of the basket that counts
    undelivered: dict[int, int] = field(default_factory=dict)  # by the delivery
    refunded_undelivered: dict[int, int] = field(default_factory=dict)  # by refunds with the reason `undelivered`
    returned: dict[int, int] = field(default_factory=dict)  # by refunds with the reason `returned`
    fully_refunded: bool = False
    cancelled: bool = False
    delivered_at: datetime | None = None
    vested: list[VestedEarning] = field(default_factory=list)
    outcomes: int = 1  # in the outbox so far, the placing's included; the next outcome's number is one more

    def to_json(self) -> str:
        """One compact JSON document: a total is a list over all lines, and left out where no line lost anything."""
        document: dict[str, object] = {"format": FORMAT, "outcomes": self.outcomes}
        for name, totals in self._totals():
            if totals:
                document[name] = [totals.get(line, 0) for line in range(self.lines)]
        if self.fully_refunded:
            document["fully_refunded"] = True
        if self.cancelled:
            document["cancelled"] = True
        if self.delivered_at:
            document["delivered_at"] = format_time(self.delivered_at)
        if self.vested:
            document["vested"] = [
                {
                    "campaign_id": one.campaign_id,
                    "lot_no": one.lot_no,
                    "reversed_before": one.reversed_before,
                    "clawed_back": one.clawed_back,
                }
                for one in self.vested
            ]
        return to_json(document).decode()

    @classmethod
    def from_json(cls, document: Mapping[str, Any], lines: int) -> RunningTotals:
        """Read stored totals of an order with so many lines, already parsed from JSON.

        Raises UnknownFormat where a later release wrote them.
        """
        if document["format"] != FORMAT:
            raise UnknownFormat("running totals", document["format"], FORMAT)
        delivered_at = document.get("delivered_at")
        totals = cls(
            lines,
            fully_refunded=document.get("fully_refunded", False),
            cancelled=document.get("cancelled", False),
            delivered_at=datetime.fromisoformat(delivered_at) if delivered_at else None,
            vested=[_vested(row) for row in document.get("vested", ())],
            outcomes=document["outcomes"],
        )
        for name, of_lines in totals._totals():
            of_lines.update((line, value) for line, value in enumerate(document.get(name, ())) if value)
        return totals

    def _totals(self) -> tuple[tuple[str, dict[int, int]], ...]:
        return (
            ("undelivered", self.undelivered),
            ("refunded_undelivered", self.refunded_undelivered),
            ("returned", self.returned),
        )

    def reversed_value(self, gross: list[int]) -> list[int]:
        """R of each line (rules 6.1): the gross value that is no longer standing."""
        if self.fully_refunded or self.cancelled:
            return gross
        gone = [0] * len(gross)
        for line in {*self.undelivered, *self.refunded_undelivered, *self.returned}:
            gone[line] = min(gross[line], self.claimed(line))
        return gone

    def claimed(self, line: int) -> int:
        """The gross value that facts claim of a line; more than its gross has no effect."""
        undelivered = max(self.undelivered.get(line, 0), self.refunded_undelivered.get(line, 0))
        return undelivered + self.returned.get(line, 0)


def _vested(row: Mapping[str, Any]) -> VestedEarning:
    return VestedEarning(row["campaign_id"], row["lot_no"], row["reversed_before"], row["clawed_back"])


@dataclass(slots=True)
class Progress:
    """How far an order has come: what its placing decided, what its final basket did, and what its facts add up to."""

    placed: Decision
    _totals: RunningTotals | None = None  # none before the first fact after the placing
    final: Decision | None = None

    @property
    def totals(self) -> RunningTotals:
        """What the order's facts add up to so far."""
        if self._totals is None:
            self._totals = RunningTotals(len(self.counts.line_ids))
        return self._totals

    @property
    def counts(self) -> Decision:
        """The basket that counts, as it was decided."""
        return self.final or self.placed

    @property
    def awaits_final(self) -> bool:
        """Whether the order is estimated and its final basket has not taken effect."""
        return self.placed.estimated and self.final is None

    def gone(self) -> list[int]:
        """R of each line of the basket that counts."""
        return self.totals.reversed_value(self.counts.gross)


class Reversed(NamedTuple):
    """How much of each incentive is to be reversed in all, in minor units, in the order of the decision."""

    coupons: list[int]
    credit: int
    earned: list[int]


def reversed_of(decision: Decision, gone: list[int]) -> Reversed:
    """What must be reversed of an order in all when R of each line is `gone` (rules 6.2)."""
    if not any(gone):
        return Reversed([0] * len(decision.coupons), 0, [0] * len(decision.earned))
    gross = decision.gross
    return Reversed(
        [_part(coupon.shares, gross, gone) for coupon in decision.coupons],
        _part(decision.credit.shares, gross, gone) if decision.credit.applied else 0,
        [_part(earn.shares, gross, gone) for earn in decision.earned],
    )


def _part(shares: list[int], gross: list[int], gone: list[int]) -> int:
    total = 0
    for part, whole, away in zip(shares, gross, gone, strict=True):
        if part and away:
            total += part if away == whole else half_up(part * away, whole)
    return total


class Fall(NamedTuple):
    """What one fact takes of an order: R of each line before and after it, and so of each incentive; and what is odd about it."""

    before: list[int]
    after: list[int]
    done: Reversed  # in all before the fact
    due: Reversed  # and with it
    counted: bool  # whether the order counted for first_orders before the fact
    counts: bool  # and after it
    anomalies: list[Anomaly]


def _fall(progress: Progress, before: list[int], after: list[int], anomalies: list[Anomaly]) -> Fall:
    decision = progress.counts
    done = reversed_of(decision, before)
    if after == before:  # it counts as before, whatever that was
        return Fall(before, after, done, done, False, False, anomalies)
    due = reversed_of(decision, after)
    return Fall(before, after, done, due, decision.is_order(before), decision.is_order(after), anomalies)


def note_final_basket(progress: Progress, decision: Decision | None, fact: str) -> Fall:
    """Let the final basket count from now on; with no decision it is kept and told, and has no effect.

    All of its money is due where everything was reversed before: as if this fact alone had brought that about.
    """
    if decision is None:
        gone = progress.gone()
        return _fall(progress, gone, gone, [Anomaly(AnomalyReason.FINAL_NOT_EXPECTED, fact)])
    counted = progress.placed.is_order(progress.gone())
    progress.final, progress.totals.lines = decision, len(decision.line_ids)
    fall = _fall(progress, [0] * len(decision.gross), progress.gone(), [])
    return fall._replace(counted=counted, counts=decision.is_order(fall.after))


def note_refund(progress: Progress, refund: OrderRefunded | OrderCancelled, fact: str) -> Fall:
    """Add a refund, or a cancelling, to the totals."""
    before, totals = progress.gone(), progress.totals
    if isinstance(refund, OrderCancelled):
        totals.cancelled = True
        return _fall(progress, before, progress.gone(), [_BOTH] if totals.delivered_at else [])
    if refund.currency != progress.counts.currency:
        return _fall(progress, before, before, [Anomaly(AnomalyReason.WRONG_CURRENCY, fact)])
    if refund.lines is None:
        totals.fully_refunded = True
        return _fall(progress, before, progress.gone(), [])
    claims = {"returned": totals.returned, "undelivered": totals.refunded_undelivered}  # goodwill claims nothing
    anomalies = _claim(progress, [(entry, claims.get(entry.reason)) for entry in refund.lines])
    return _fall(progress, before, progress.gone(), anomalies)


def note_delivery(progress: Progress, delivery: DeliveryCompleted) -> Fall:
    """Add a delivery's undelivered units to the totals."""
    before, totals = progress.gone(), progress.totals
    anomalies = _claim(progress, [(entry, totals.undelivered) for entry in delivery.undelivered])
    if totals.cancelled:
        anomalies.append(_BOTH)
    return _fall(progress, before, progress.gone() if delivery.undelivered else before, anomalies)


def _claim(
    progress: Progress, entries: list[tuple[RefundLine | UndeliveredLine, dict[int, int] | None]]
) -> list[Anomaly]:
    """Add what each entry claims of its line to the totals beside it; returns the anomalies that this brings to light.

    A line that the placing had, and the final basket left out, is no anomaly.
    """
    if not entries:
        return []
    decision, former = progress.counts, progress.placed.line_ids if progress.final else ()
    position = {line_id: line for line, line_id in enumerate(decision.line_ids)}
    anomalies: dict[Anomaly, None] = {}
    for entry, claims in entries:
        line = position.get(entry.line_id)
        if line is None:
            if entry.line_id not in former:
                anomalies[Anomaly(AnomalyReason.UNKNOWN_LINE, entry.line_id)] = None
        elif claims is not None:
            amount = entry.amount if isinstance(entry, RefundLine) else None
            value = (entry.quantity or 0) * decision.unit_prices[line] if amount is None else amount
            claims[line] = claims.get(line, 0) + value
            if progress.totals.claimed(line) > decision.gross[line]:
                anomalies[Anomaly(AnomalyReason.EXCEEDS_GROSS, entry.line_id)] = None
    return list(anomalies)
