"""Reads a campaign file (rules 9): all or nothing, with every error naming campaign, field and value. Never touches a disk."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from incentive_fleet.errors import FleetError
from incentive_fleet.events.models import GROSS_MAX, Currency, Text
from incentive_fleet.incentives.campaigns import DEFAULT_REISSUE_DAYS, Campaign
from incentive_fleet.incentives.money import FULL_RATE_BPS

GRACE_MINUTES_MAX = 5_256_000  # ten years, as far as days go
CAMPAIGNS_MAX = 100_000  # of one file
ERRORS_MAX = 50  # shown of one file


class CampaignFileError(FleetError):
    """The file cannot be loaded; nothing was. `problems` are sentences that name campaign, field and value."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = list(problems)


def _with_offset(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise ValueError("needs an offset, like 2026-01-31T00:00:00Z")
    if not 1970 <= moment.year <= 2199:
        raise ValueError("must lie in the years 1970 to 2199")
    return moment


Minor = Annotated[int, Field(ge=1, le=GROSS_MAX)]
Count = Annotated[int, Field(ge=1, le=10**12)]
Days = Annotated[int, Field(ge=1, le=3_650)]
Moment = Annotated[datetime, AfterValidator(_with_offset)]


class _Terms(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    id: Text
    currency: Currency
    starts_at: Moment
    ends_at: Moment
    budget: Annotated[int, Field(ge=0, le=10**18)] | None = None

    @model_validator(mode="after")
    def _window(self) -> _Terms:
        if self.starts_at >= self.ends_at:
            raise ValueError("ends_at must be later than starts_at")
        return self


class _Valued(_Terms):
    rate_bps: Annotated[int, Field(ge=1, le=FULL_RATE_BPS)] | None = None
    amount: Minor | None = None
    max_amount: Minor | None = None

    @model_validator(mode="after")
    def _one_value(self) -> _Valued:
        if (self.rate_bps is None) == (self.amount is None):
            raise ValueError("exactly one of rate_bps and amount is needed")
        return self


class _Selective(_Valued):
    min_subtotal: Annotated[int, Field(ge=0, le=GROSS_MAX)] = 0
    categories: list[Text] = Field(default=[], max_length=1_000)
    excluded_categories: list[Text] = Field(default=[], max_length=1_000)


class _Coupon(_Selective):
    kind: Literal["coupon"]
    code: Annotated[Text, AfterValidator(str.upper)]
    per_customer: Count | None = None
    total: Count | None = None
    stacking: Literal["exclusive", "stackable"] = "exclusive"


class _Earn(_Selective):
    kind: Literal["earn"]
    valid_days: Days | None = None
    reissue_days: Days = DEFAULT_REISSUE_DAYS


class _MakeGood(_Valued):
    kind: Literal["make_good"]
    grace_minutes: Annotated[int, Field(ge=0, le=GRACE_MINUTES_MAX)] = 0
    valid_days: Days | None = None
    reissue_days: Days = DEFAULT_REISSUE_DAYS


class _Grant(_Terms):
    kind: Literal["grant"]
    reissue_days: Days = DEFAULT_REISSUE_DAYS


_ADAPTERS: dict[str, TypeAdapter[Any]] = {
    "coupon": TypeAdapter(_Coupon),
    "earn": TypeAdapter(_Earn),
    "make_good": TypeAdapter(_MakeGood),
    "grant": TypeAdapter(_Grant),
}


def parse_campaigns(text: str) -> list[tuple[Campaign, dict[str, Any]]]:
    """Read campaigns with their terms as plain JSON values, in the order of the file.

    Raises CampaignFileError with every problem found (the first fifty); a retry with the same text does not help.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise CampaignFileError([f"not TOML: {error}"]) from None
    problems = [f"{key}: only [[campaign]] tables are known here" for key in document if key != "campaign"]
    tables = document.get("campaign", [])
    if not isinstance(tables, list) or not tables:
        raise CampaignFileError([*problems, "campaign: at least one [[campaign]] table is needed"])
    if len(tables) > CAMPAIGNS_MAX:
        raise CampaignFileError([*problems, f"campaign: {len(tables)} tables, more than {CAMPAIGNS_MAX}"])
    read: list[tuple[Campaign, dict[str, Any]]] = []
    for number, table in enumerate(tables, start=1):
        name = _name(number, table)
        try:
            read.append(_campaign(table))
        except ValidationError as error:
            problems += [f"campaign {name}: {_sentence(detail)}" for detail in error.errors()]
        except CampaignFileError as error:
            problems += [f"campaign {name}: {problem}" for problem in error.problems]
    problems += _repeats("id", [campaign.id for campaign, _ in read])
    problems += _repeats("code", [campaign.code for campaign, _ in read if campaign.code is not None])
    if problems:
        more = len(problems) - ERRORS_MAX
        raise CampaignFileError(problems[:ERRORS_MAX] + ([f"and {more} more"] if more > 0 else []))
    return read


def campaign_from_terms(terms: Mapping[str, Any], version: int) -> Campaign:
    """The campaign of stored terms: what parse_campaigns gave as plain values, read back."""
    values = dict(terms)
    values["categories"] = frozenset(values.get("categories", ()))
    values["excluded_categories"] = frozenset(values.get("excluded_categories", ()))
    values["exclusive"] = values.pop("stacking", "exclusive") == "exclusive"
    for moment in ("starts_at", "ends_at"):
        values[moment] = datetime.fromisoformat(values[moment])
    return Campaign(version=version, **values)


def _campaign(table: object) -> tuple[Campaign, dict[str, Any]]:
    kind = table.get("kind") if isinstance(table, dict) else None
    adapter = _ADAPTERS.get(kind) if isinstance(kind, str) else None
    if adapter is None:
        raise CampaignFileError([f"kind: is {kind!r}, must be one of {', '.join(_ADAPTERS)}"])
    model = adapter.validate_python(table)
    terms = model.model_dump(mode="json", exclude_none=True)
    return campaign_from_terms(terms, version=0), terms


def _name(number: int, table: object) -> str:
    name = table.get("id") if isinstance(table, dict) else None
    return repr(name) if isinstance(name, str) and name else f"number {number}"


def _sentence(detail: Any) -> str:
    where = ".".join(str(part) for part in detail["loc"])
    message = str(detail["msg"]).removeprefix("Value error, ")
    if detail["type"] == "extra_forbidden":
        message = "is not a key of this kind"
    elif detail["type"] == "missing":
        return f"{where}: is missing"
    if not where:
        return message
    return f"{where}: is {detail['input']!r}: {message}"


def _repeats(field: str, values: list[str]) -> list[str]:
    seen: set[str] = set()
    problems = []
    for value in values:
        if value in seen:
            problems.append(f"{field}: {value!r} is used by more than one campaign")
        seen.add(value)
    return problems
