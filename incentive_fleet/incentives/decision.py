"""What was decided at a placing (SPEC 5): stored with the order and never changed. Reversals read this, not the terms of today."""

from __future__ import annotations

from dataclasses import dataclass, field

from pydantic_core import to_json


@dataclass(slots=True)
class CouponShare:
    """An accepted coupon: its discount and how it was shared over the order's lines, in minor units."""

    campaign_id: str
    version: int
    code: str
    discount: int
    shares: list[int]


@dataclass(slots=True)
class CreditShare:
    """Applied credit: what was asked, what was burned from which lots in which order, how it was shared."""

    requested: int = 0
    applied: int = 0
    shortfall: int = 0
    shares: list[int] = field(default_factory=list)
    burned: list[tuple[int, int]] = field(default_factory=list)  # (lot_no, amount), first burned first


@dataclass(slots=True)
class EarnShare:
    """Credit earned under one campaign, with the terms that its vesting will need."""

    campaign_id: str
    version: int
    amount: int
    shares: list[int]
    valid_days: int | None
    reissue_days: int


@dataclass(slots=True)
class Refusal:
    """An incentive that was not given, and why (SPEC 5). `code` is the coupon's code; empty for an earn campaign."""

    code: str
    campaign_id: str | None
    version: int | None
    reason: str


@dataclass(slots=True)
class Decision:
    """The whole result of a placing. Lists over lines are in the order of the placing's lines."""

    customer_id: str
    currency: str
    line_ids: list[str]
    unit_prices: list[int]
    gross: list[int]
    coupons: list[CouponShare]
    credit: CreditShare
    earned: list[EarnShare]
    refusals: list[Refusal]

    def to_json(self) -> str:
        """One compact JSON document; `from_json` reads it back."""
        document: dict[str, object] = {
            "line_ids": self.line_ids,
            "unit_prices": self.unit_prices,
            "gross": self.gross,
        }
        if self.coupons:
            document["coupons"] = [[c.campaign_id, c.version, c.code, c.discount, c.shares] for c in self.coupons]
        credit = self.credit
        if credit.requested:
            document["credit"] = [credit.requested, credit.applied, credit.shortfall, credit.shares, credit.burned]
        if self.earned:
            document["earned"] = [
                [e.campaign_id, e.version, e.amount, e.shares, e.valid_days, e.reissue_days] for e in self.earned
            ]
        if self.refusals:
            document["refusals"] = [[r.code, r.campaign_id, r.version, r.reason] for r in self.refusals]
        return to_json(document).decode()

    @classmethod
    def from_json(cls, customer_id: str, currency: str, document: dict[str, list]) -> Decision:  # type: ignore[type-arg]
        """Read a stored decision, already parsed from JSON."""
        credit = document.get("credit")
        return cls(
            customer_id=customer_id,
            currency=currency,
            line_ids=document["line_ids"],
            unit_prices=document["unit_prices"],
            gross=document["gross"],
            coupons=[CouponShare(*row) for row in document.get("coupons", ())],
            credit=_credit(*credit) if credit else CreditShare(),
            earned=[EarnShare(*row) for row in document.get("earned", ())],
            refusals=[Refusal(*row) for row in document.get("refusals", ())],
        )


def _credit(requested: int, applied: int, shortfall: int, shares: list[int], burned: list[list[int]]) -> CreditShare:
    return CreditShare(requested, applied, shortfall, shares, [(lot_no, amount) for lot_no, amount in burned])
