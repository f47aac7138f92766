"""What was decided at a placing or by a final basket: stored with the order and never changed. Reversals read this.

The stored document has named members and says which format it has. A member that came later is absent from older
documents and then has its default; tests/unit/test_stored_documents.py keeps one document of each format for ever.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic_core import to_json

from incentive_fleet.errors import UnknownFormat
from incentive_fleet.incentives.booking import Burn
from incentive_fleet.incentives.refusals import RefusalCode

FORMAT: Final = 1


@dataclass(slots=True)
class CouponShare:
    """An accepted coupon: its discount and how it was shared over the basket's lines, in minor units."""

    campaign_id: str
    version: int
    code: str | None  # None: an automatic coupon
    discount: int
    shares: list[int]
    tier: int | None = None  # that was reached
    pooled: bool = False  # the code is one of the campaign's pool
    limit: RefusalCode | None = None  # of a final basket: why it is worth nothing, or no more than before

    @property
    def pool_code(self) -> str | None:
        """Its code, if that is one of a pool."""
        return self.code if self.pooled else None


@dataclass(slots=True)
class CreditShare:
    """Applied credit: what was asked, what was burned from which lots, first burned first, how it was shared."""

    requested: int = 0
    applied: int = 0
    shortfall: int = 0
    shares: list[int] = field(default_factory=list)
    burned: list[Burn] = field(default_factory=list)
    version: int = 0  # of the [credit] table; 0: there was none
    refusal: RefusalCode | None = None


@dataclass(slots=True)
class EarnShare:
    """Credit earned under one campaign, with the terms that its vesting will need."""

    campaign_id: str
    version: int
    amount: int
    shares: list[int]
    valid_days: int | None
    reissue_days: int
    tier: int | None = None  # that was reached
    limit: RefusalCode | None = None  # of a final basket: why it is worth nothing, or no more than before


@dataclass(slots=True)
class Refusal:
    """An incentive that was not given, and why (rules 5.1). `code` is the coupon's code; empty for an earn campaign."""

    code: str
    campaign_id: str | None
    version: int | None
    reason: RefusalCode


@dataclass(slots=True)
class Decision:
    """The whole result of a placing, or of a final basket. Lists over lines are in the order of the basket's lines."""

    customer_id: str
    currency: str
    line_ids: list[str]
    unit_prices: list[int]
    gross: list[int]
    coupons: list[CouponShare]
    credit: CreditShare
    earned: list[EarnShare]
    refusals: list[Refusal]
    not_goods: list[int] = field(default_factory=list)  # positions of the lines of other kinds
    estimated: bool = False  # a final basket is to follow
    all_reversed: bool = False  # of a final basket: everything had been reversed before it came, and nothing was booked

    def is_order(self, gone: list[int] | None = None) -> bool:
        """Whether it counts for first_orders: the gross of its goods is more than what is `gone` of it (rules 5.1)."""
        return self.goods(self.gross) > (self.goods(gone) if gone else 0)

    def goods(self, values: list[int]) -> int:
        """The sum of a list over lines for the lines of kind `goods`."""
        return sum(values) - sum([values[line] for line in self.not_goods]) if self.not_goods else sum(values)

    def to_json(self) -> str:
        """One compact JSON document without customer and currency; `from_json` reads it back."""
        document: dict[str, object] = {
            "format": FORMAT,
            "line_ids": self.line_ids,
            "unit_prices": self.unit_prices,
            "gross": self.gross,
        }
        if self.coupons:
            document["coupons"] = [_coupon_document(one) for one in self.coupons]
        if self.credit.requested:
            document["credit"] = _credit_document(self.credit)
        if self.earned:
            document["earned"] = [_earned_document(one) for one in self.earned]
        if self.refusals:
            document["refusals"] = self.refusals
        if self.not_goods:
            document["not_goods"] = self.not_goods
        if self.estimated:
            document["estimated"] = True
        if self.all_reversed:
            document["all_reversed"] = True
        return to_json(document).decode()

    @classmethod
    def from_json(cls, customer_id: str, currency: str, document: Mapping[str, Any]) -> Decision:
        """Read a stored decision, already parsed from JSON. Raises UnknownFormat where a later release wrote it."""
        if document["format"] != FORMAT:
            raise UnknownFormat("decision", document["format"], FORMAT)
        return cls(
            customer_id=customer_id,
            currency=currency,
            line_ids=document["line_ids"],
            unit_prices=document["unit_prices"],
            gross=document["gross"],
            coupons=[_coupon(row) for row in document.get("coupons", ())],
            credit=_credit(document["credit"]) if "credit" in document else CreditShare(),
            earned=[_earned(row) for row in document.get("earned", ())],
            refusals=[_refusal(row) for row in document.get("refusals", ())],
            not_goods=document.get("not_goods", []),
            estimated=document.get("estimated", False),
            all_reversed=document.get("all_reversed", False),
        )


def _coupon_document(one: CouponShare) -> dict[str, object]:
    document: dict[str, object] = {
        "campaign_id": one.campaign_id,
        "version": one.version,
        "code": one.code,
        "discount": one.discount,
        "shares": one.shares,
    }
    if one.tier is not None:
        document["tier"] = one.tier
    if one.pooled:
        document["pooled"] = True
    if one.limit is not None:
        document["limit"] = one.limit
    return document


def _coupon(row: Mapping[str, Any]) -> CouponShare:
    terms = row.get("tier"), row.get("pooled", False), _limit(row)
    return CouponShare(row["campaign_id"], row["version"], row["code"], row["discount"], row["shares"], *terms)


def _credit_document(credit: CreditShare) -> dict[str, object]:
    document: dict[str, object] = {
        "requested": credit.requested,
        "applied": credit.applied,
        "shortfall": credit.shortfall,
        "shares": credit.shares,
        "burned": credit.burned,
    }
    if credit.version:
        document["version"] = credit.version
    if credit.refusal is not None:
        document["refusal"] = credit.refusal
    return document


def _credit(row: Mapping[str, Any]) -> CreditShare:
    burned = [Burn(one["lot_no"], one["amount"]) for one in row["burned"]]
    refusal = RefusalCode(row["refusal"]) if "refusal" in row else None
    amounts = row["requested"], row["applied"], row["shortfall"]
    return CreditShare(*amounts, row["shares"], burned, row.get("version", 0), refusal)


def _earned_document(one: EarnShare) -> dict[str, object]:
    document: dict[str, object] = {
        "campaign_id": one.campaign_id,
        "version": one.version,
        "amount": one.amount,
        "shares": one.shares,
        "valid_days": one.valid_days,
        "reissue_days": one.reissue_days,
    }
    if one.tier is not None:
        document["tier"] = one.tier
    if one.limit is not None:
        document["limit"] = one.limit
    return document


def _earned(row: Mapping[str, Any]) -> EarnShare:
    terms = row["valid_days"], row["reissue_days"], row.get("tier"), _limit(row)
    return EarnShare(row["campaign_id"], row["version"], row["amount"], row["shares"], *terms)


def _limit(row: Mapping[str, Any]) -> RefusalCode | None:
    return RefusalCode(row["limit"]) if "limit" in row else None


def _refusal(row: Mapping[str, Any]) -> Refusal:
    return Refusal(row["code"], row["campaign_id"], row["version"], RefusalCode(row["reason"]))
