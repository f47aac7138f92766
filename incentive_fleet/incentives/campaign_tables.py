"""The tables of a campaign file (rules 9): their keys, bounds and what must go together, each table by itself."""

from __future__ import annotations

from datetime import datetime
from itertools import pairwise
from typing import Annotated, Final, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from incentive_fleet.events.models import GOODS, GROSS_MAX, Currency, Text
from incentive_fleet.events.times import EARLIEST, LATEST
from incentive_fleet.incentives.campaigns import DEFAULT_REISSUE_DAYS
from incentive_fleet.incentives.money import FULL_RATE_BPS

GRACE_MINUTES_MAX = 5_256_000  # ten years, as far as days go
TIERS_MAX = 20  # rules 9
COUPON_REWARDS: Final = ("rate_bps", "amount", "tiers", "buy_get", "set_price")

AnyTable = TypeVar("AnyTable", bound=BaseModel)


def _exactly_one(table: AnyTable, *names: str) -> AnyTable:
    given = [name for name in names if getattr(table, name) is not None]
    if len(given) != 1:
        found = f"{' and '.join(given)} are there" if given else "none is there"
        raise ValueError(f"exactly one of {', '.join(names)} is needed: {found}")
    return table


def _with_offset(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise ValueError("needs an offset, like 2026-01-31T00:00:00Z")
    if not EARLIEST <= moment <= LATEST:
        raise ValueError("must lie in the years 1970 to 2199 in UTC")
    return moment


def _true(value: bool) -> bool:
    if not value:
        raise ValueError("only true says anything here: leave it out otherwise")
    return value


Rate = Annotated[int, Field(ge=1, le=FULL_RATE_BPS)]
LineKinds = Annotated[list[Literal["goods", "fee", "deposit", "tip"]], Field(min_length=1, max_length=4)]
Minor = Annotated[int, Field(ge=1, le=GROSS_MAX)]
Count = Annotated[int, Field(ge=1, le=10**12)]
Days = Annotated[int, Field(ge=1, le=3_650)]
Moment = Annotated[datetime, AfterValidator(_with_offset)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class _Terms(_Table):
    id: Text
    currency: Currency
    starts_at: Moment
    ends_at: Moment
    budget: Annotated[int, Field(ge=1, le=10**18)] | None = None

    @model_validator(mode="after")
    def _window(self) -> _Terms:
        if self.starts_at >= self.ends_at:
            raise ValueError("ends_at must be later than starts_at")
        return self


class _Tier(_Table):
    min_subtotal: Annotated[int, Field(ge=0, le=GROSS_MAX)]
    rate_bps: Rate | None = None
    amount: Minor | None = None

    @model_validator(mode="after")
    def _one_value(self) -> _Tier:
        return _exactly_one(self, "rate_bps", "amount")


class _BuyGet(_Table):
    buy: Count
    get: Count
    rate_bps: Rate = FULL_RATE_BPS
    max_sets: Count | None = None


class _SetPrice(_Table):
    units: Count
    price: Annotated[int, Field(ge=0, le=GROSS_MAX)]
    max_sets: Count | None = None


def _rising(tiers: list[_Tier]) -> list[_Tier]:
    for before, after in pairwise(tiers):
        if after.min_subtotal <= before.min_subtotal:
            raise ValueError(f"min_subtotal {after.min_subtotal} must be above the {before.min_subtotal} before it")
    return tiers


Tiers = Annotated[list[_Tier], Field(min_length=1, max_length=TIERS_MAX), AfterValidator(_rising)]


class _Valued(_Terms):
    rate_bps: Rate | None = None
    amount: Minor | None = None
    max_amount: Minor | None = None


class _Selective(_Valued):
    tiers: Tiers | None = None
    min_subtotal: Minor | None = None
    min_basket: Minor | None = None
    recheck_minimum: bool = False
    line_kinds: LineKinds = [GOODS]
    categories: list[Text] = Field(default=[], max_length=1_000)
    excluded_categories: list[Text] = Field(default=[], max_length=1_000)

    @model_validator(mode="after")
    def _tiers_have_their_own(self) -> _Selective:
        if self.tiers is not None and self.min_subtotal is not None:
            raise ValueError("min_subtotal does not go beside tiers, each of which has its own")
        return self


class CouponTable(_Selective):
    kind: Literal["coupon"]
    code: Annotated[Text, AfterValidator(str.upper)] | None = None
    codes: Literal["pool"] | None = None
    auto: Annotated[bool, AfterValidator(_true)] | None = None  # a Literal would take 1 for true
    buy_get: _BuyGet | None = None
    set_price: _SetPrice | None = None
    per_customer: Count | None = None
    total: Count | None = None
    first_orders: Count | None = None
    audience: Text | None = None
    not_audience: Text | None = None
    stacking: Literal["exclusive", "stackable"] = "exclusive"

    @model_validator(mode="after")
    def _one_of_each(self) -> CouponTable:
        _exactly_one(self, "code", "codes", "auto")
        return _exactly_one(self, *COUPON_REWARDS)


class EarnTable(_Selective):
    kind: Literal["earn"]
    valid_days: Days | None = None
    reissue_days: Days = DEFAULT_REISSUE_DAYS

    @model_validator(mode="after")
    def _one_value(self) -> EarnTable:
        return _exactly_one(self, "rate_bps", "amount", "tiers")


class MakeGoodTable(_Valued):
    kind: Literal["make_good"]
    grace_minutes: Annotated[int, Field(ge=0, le=GRACE_MINUTES_MAX)] = 0
    valid_days: Days | None = None
    reissue_days: Days = DEFAULT_REISSUE_DAYS

    @model_validator(mode="after")
    def _one_value(self) -> MakeGoodTable:
        return _exactly_one(self, "rate_bps", "amount")


class GrantTable(_Terms):
    kind: Literal["grant"]
    reissue_days: Days = DEFAULT_REISSUE_DAYS


class CreditTable(_Table):
    line_kinds: LineKinds | None = None
    excluded_categories: list[Text] = Field(default=[], max_length=1_000)
