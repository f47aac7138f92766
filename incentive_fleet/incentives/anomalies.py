"""What is odd about an order and wants a person's look: a reason each and what it means. It follows from the facts alone, not
from their order, and it never moves money.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class AnomalyReason(StrEnum):
    """A stable code; `MEANINGS` says what each one stands for."""

    EXCEEDS_GROSS = "exceeds-gross"
    UNKNOWN_LINE = "unknown-line"
    WRONG_CURRENCY = "wrong-currency"
    FINAL_NOT_EXPECTED = "final-not-expected"
    CANCELLED_AND_DELIVERED = "cancelled-and-delivered"


MEANINGS: Final[dict[AnomalyReason, str]] = {
    AnomalyReason.EXCEEDS_GROSS: "more of a line was claimed back than it was worth; the excess has no effect",
    AnomalyReason.UNKNOWN_LINE: "a refund or a delivery names a line that the order does not have; that entry has no effect",
    AnomalyReason.WRONG_CURRENCY: "a refund is in another currency than the order; all of it has no effect",
    AnomalyReason.FINAL_NOT_EXPECTED: "a final basket came for an order that was not placed as estimated; it has no effect",
    AnomalyReason.CANCELLED_AND_DELIVERED: "the order was cancelled, and it was delivered",
}


@dataclass(frozen=True, slots=True)
class Anomaly:
    """One oddity of an order."""

    reason: AnomalyReason
    subject: str  # the line, or the fact where the whole fact is odd
