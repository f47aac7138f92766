"""How much of an order was taken back: running totals per line, and the pure function from them to what must be reversed.

This is the desired state: the totals follow from the facts alone, whatever order they came in. The stored document has
named members and says which format it has, as a decision's does.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, NamedTuple

from pydantic_core import to_json

from incentive_fleet.errors import UnknownFormat
from incentive_fleet.events.facts import CANCELLING
from incentive_fleet.events.models import DeliveryCompleted, OrderRefunded
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


class Fall(NamedTuple):
    """What is reversed of each line: R before a fact and R after it, in minor units of gross value."""

    gross: list[int]
    before: list[int]
    after: list[int]

    def of(self, shares: list[int]) -> tuple[int, int]:
        """How much of an incentive shared so had been reversed before, and is to be reversed in all."""
        return reversed_of(shares, self.gross, self.before), reversed_of(shares, self.gross, self.after)


def _vested(row: Mapping[str, Any]) -> VestedEarning:
    return VestedEarning(row["campaign_id"], row["lot_no"], row["reversed_before"], row["clawed_back"])


def reversed_of(shares: list[int], gross: list[int], reversed_value: list[int]) -> int:
    """How much of an incentive, shared so over the lines, must be reversed in all when R of each line is given."""
    if not any(reversed_value):
        return 0
    total = 0
    for part, whole, gone in zip(shares, gross, reversed_value, strict=True):
        if part and gone:
            total += part if gone == whole else half_up(part * gone, whole)
    return total


def note_cancelling(totals: RunningTotals, decision: Decision) -> tuple[Fall, list[Anomaly]]:
    """Add a cancelling to the totals; returns what falls, and the anomaly that it brings to light."""
    before, totals.cancelled = totals.reversed_value(decision.gross), True
    return Fall(decision.gross, before, decision.gross), [_BOTH] if totals.delivered_at else []


def note_refund(
    totals: RunningTotals, decision: Decision, former: Container[str], refund: OrderRefunded, fact: str
) -> tuple[Fall, list[Anomaly]]:
    """Add a refund to the totals; returns what falls, and the anomalies that it brings to light.

    `former` are the lines that the placing had: one that the final basket left out is no anomaly.
    """
    before = totals.reversed_value(decision.gross)
    anomalies = _add_refund(totals, decision, former, refund, fact)
    return Fall(decision.gross, before, totals.reversed_value(decision.gross)), anomalies


def _add_refund(
    totals: RunningTotals, decision: Decision, former: Container[str], refund: OrderRefunded, fact: str
) -> list[Anomaly]:
    if refund.currency != decision.currency:
        return [Anomaly(AnomalyReason.WRONG_CURRENCY, fact)]
    if refund.lines is None:
        totals.fully_refunded = True
        return []
    anomalies: list[Anomaly | None] = []
    position = {line_id: line for line, line_id in enumerate(decision.line_ids)}
    for entry in refund.lines:
        line = position.get(entry.line_id)
        if line is None:
            anomalies.append(_unknown(entry.line_id, former))
        elif entry.reason != "goodwill":
            value = entry.amount if entry.amount is not None else (entry.quantity or 0) * decision.unit_prices[line]
            claims = totals.returned if entry.reason == "returned" else totals.refunded_undelivered
            claims[line] = claims.get(line, 0) + value
            anomalies.append(_excess(totals, decision, line))
    return _each_once(anomalies)


def note_delivery(
    totals: RunningTotals, decision: Decision, former: Container[str], delivery: DeliveryCompleted
) -> tuple[Fall, list[Anomaly]]:
    """Add a delivery's undelivered units to the totals; returns what falls, and the anomalies, as for a refund."""
    before = totals.reversed_value(decision.gross)
    anomalies = _add_undelivered(totals, decision, former, delivery) if delivery.undelivered else []
    if totals.cancelled:
        anomalies.append(_BOTH)
    after = totals.reversed_value(decision.gross) if delivery.undelivered else before
    return Fall(decision.gross, before, after), anomalies


def _add_undelivered(
    totals: RunningTotals, decision: Decision, former: Container[str], delivery: DeliveryCompleted
) -> list[Anomaly]:
    anomalies: list[Anomaly | None] = []
    position = {line_id: line for line, line_id in enumerate(decision.line_ids)}
    for entry in delivery.undelivered:
        line = position.get(entry.line_id)
        if line is None:
            anomalies.append(_unknown(entry.line_id, former))
        else:
            value = entry.quantity * decision.unit_prices[line]
            totals.undelivered[line] = totals.undelivered.get(line, 0) + value
            anomalies.append(_excess(totals, decision, line))
    return _each_once(anomalies)


def _unknown(line_id: str, former: Container[str]) -> Anomaly | None:
    return None if line_id in former else Anomaly(AnomalyReason.UNKNOWN_LINE, line_id)


def _excess(totals: RunningTotals, decision: Decision, line: int) -> Anomaly | None:
    exceeded = totals.claimed(line) > decision.gross[line]
    return Anomaly(AnomalyReason.EXCEEDS_GROSS, decision.line_ids[line]) if exceeded else None


def _each_once(anomalies: list[Anomaly | None]) -> list[Anomaly]:
    return [anomaly for anomaly in dict.fromkeys(anomalies) if anomaly is not None]
