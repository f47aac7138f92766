"""How far an order has been undone: running totals per line, and the pure function from them to what must be reversed.

This is the desired state of DESIGN decision 2: the totals follow from the facts alone, whatever order they came in.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from pydantic_core import to_json

from incentive_fleet.events.models import DeliveryCompleted, OrderRefunded
from incentive_fleet.incentives.decision import Decision
from incentive_fleet.incentives.money import half_up


@dataclass(slots=True)
class Vested:
    """What one earn campaign vested on the order: its lot, how much had been reversed until then, what was clawed back."""

    campaign_id: str
    lot_no: int
    reversed_before: int
    clawed_back: int = 0


@dataclass(slots=True)
class Progress:
    """Running totals of an order, in minor units of gross value per line, in the order of the placing's lines."""

    undelivered: list[int]  # by the delivery
    refunded_undelivered: list[int]  # by refunds with the reason `undelivered`
    returned: list[int]  # by refunds with the reason `returned`
    fully_refunded: bool = False
    delivered_at: datetime | None = None
    vested: list[Vested] = field(default_factory=list)
    outcomes: int = 0  # published so far; the next outcome's number is one more

    @classmethod
    def fresh(cls, lines: int) -> Progress:
        return cls([0] * lines, [0] * lines, [0] * lines)

    def to_json(self) -> str:
        """One compact JSON document; `from_json` reads it back."""
        return to_json(
            [
                self.undelivered,
                self.refunded_undelivered,
                self.returned,
                self.fully_refunded,
                self.delivered_at.isoformat() if self.delivered_at else None,
                [[v.campaign_id, v.lot_no, v.reversed_before, v.clawed_back] for v in self.vested],
                self.outcomes,
            ]
        ).decode()

    @classmethod
    def from_json(cls, document: list) -> Progress:  # type: ignore[type-arg]
        """Read stored progress, already parsed from JSON."""
        undelivered, refunded_undelivered, returned, fully, delivered_at, vested, outcomes = document
        return cls(
            undelivered,
            refunded_undelivered,
            returned,
            fully,
            datetime.fromisoformat(delivered_at) if delivered_at else None,
            [Vested(*row) for row in vested],
            outcomes,
        )

    def claimed(self, line: int) -> int:
        """The gross value of a line that facts claim back, which may exceed what it was worth."""
        return max(self.undelivered[line], self.refunded_undelivered[line]) + self.returned[line]

    def reversed_value(self, gross: list[int]) -> list[int]:
        """R of each line (SPEC 6): the gross value that is no longer standing."""
        if self.fully_refunded:
            return gross
        if not (any(self.undelivered) or any(self.refunded_undelivered) or any(self.returned)):
            return [0] * len(gross)  # as most orders stay
        return [
            min(whole, max(undelivered, refunded) + returned)
            for whole, undelivered, refunded, returned in zip(
                gross, self.undelivered, self.refunded_undelivered, self.returned, strict=True
            )
        ]


@dataclass(frozen=True, slots=True)
class Anomaly:
    """Something about an order that a person should look at; it follows from the facts, not from their order."""

    reason: str  # 'exceeds-gross', 'unknown-line', 'wrong-currency'
    subject: str  # the line, or the fact


def reversed_of(shares: list[int], gross: list[int], reversed_value: list[int]) -> int:
    """How much of an incentive, shared so over the lines, must be reversed in all when R of each line is given."""
    if not any(reversed_value):
        return 0
    total = 0
    for part, whole, gone in zip(shares, gross, reversed_value, strict=True):
        if part and gone:
            total += part if gone == whole else half_up(part * gone, whole)
    return total


def note_refund(progress: Progress, decision: Decision, refund: OrderRefunded, fact: str) -> list[Anomaly]:
    """Add a refund to the totals; returns the anomalies that it brings to light."""
    if refund.currency != decision.currency:
        return [Anomaly("wrong-currency", fact)]
    if refund.lines is None:
        progress.fully_refunded = True
        return []
    anomalies: dict[Anomaly, None] = {}
    position = {line_id: line for line, line_id in enumerate(decision.line_ids)}
    for entry in refund.lines:
        line = position.get(entry.line_id)
        if line is None:
            anomalies[Anomaly("unknown-line", entry.line_id)] = None
            continue
        if entry.reason == "goodwill":
            continue
        value = entry.amount if entry.amount is not None else (entry.quantity or 0) * decision.unit_prices[line]
        totals = progress.returned if entry.reason == "returned" else progress.refunded_undelivered
        totals[line] += value
        _note_excess(progress, decision, line, anomalies)
    return list(anomalies)


def note_delivery(progress: Progress, decision: Decision, delivery: DeliveryCompleted) -> list[Anomaly]:
    """Add a delivery's undelivered units to the totals; returns the anomalies that it brings to light."""
    anomalies: dict[Anomaly, None] = {}
    if delivery.undelivered:
        position = {line_id: line for line, line_id in enumerate(decision.line_ids)}
        for entry in delivery.undelivered:
            line = position.get(entry.line_id)
            if line is None:
                anomalies[Anomaly("unknown-line", entry.line_id)] = None
                continue
            progress.undelivered[line] += entry.quantity * decision.unit_prices[line]
            _note_excess(progress, decision, line, anomalies)
    return list(anomalies)


def _note_excess(progress: Progress, decision: Decision, line: int, anomalies: dict[Anomaly, None]) -> None:
    if progress.claimed(line) > decision.gross[line]:
        anomalies[Anomaly("exceeds-gross", decision.line_ids[line])] = None
