"""Reads a campaign file (rules 9): all or nothing, with every error naming campaign, field and value. Never touches a disk."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from incentive_fleet.errors import FleetError
from incentive_fleet.events.document import shown
from incentive_fleet.events.refusals import needed_for
from incentive_fleet.incentives.campaign_tables import CouponTable, CreditTable, EarnTable, GrantTable, MakeGoodTable
from incentive_fleet.incentives.campaigns import GOODS_ONLY, BuyGet, Campaign, CreditTerms, SetPrice, Tier

CAMPAIGNS_MAX = 100_000  # of one file
ERRORS_MAX = 50  # shown of one file


class CampaignFileError(FleetError):
    """The file cannot be loaded; nothing was. `problems` are sentences that name campaign, field and value."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = list(problems)


TABLES: Final = ("campaign", "credit")
_CREDIT: Final = TypeAdapter(CreditTable)
# What pydantic misses, where a table has other words for it than an event.
_NEEDED: Final = {
    "extra_forbidden": "is not a key of this kind",
    "model_type": "a table is needed",
    "datetime_type": "a time is needed, without quotes, like 2026-01-31T00:00:00Z",
}
_ADAPTERS: dict[str, TypeAdapter[Any]] = {
    "coupon": TypeAdapter(CouponTable),
    "earn": TypeAdapter(EarnTable),
    "make_good": TypeAdapter(MakeGoodTable),
    "grant": TypeAdapter(GrantTable),
}


@dataclass(frozen=True, slots=True)
class CampaignFile:
    """What a file asks for: campaigns with their terms as plain JSON values, and the [credit] table where there is one."""

    campaigns: list[tuple[Campaign, dict[str, Any]]]
    credit: dict[str, Any] | None = None


def parse_campaigns(text: str) -> CampaignFile:
    """Read a campaign file; campaigns stand in the order of the file.

    Raises CampaignFileError with every problem found (the first fifty); a retry with the same text does not help.
    """
    document = _toml(text)
    problems = [f"{key}: only [[campaign]] and [credit] are known here" for key in document if key not in TABLES]
    tables = document.get("campaign", [])
    if not isinstance(tables, list) or not (tables or "credit" in document):
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
    credit = _credit(document["credit"], problems) if "credit" in document else None
    problems += _repeats("id", [campaign.id for campaign, _ in read])
    problems += _repeats("code", [campaign.code for campaign, _ in read if campaign.code is not None])
    if problems:
        more = len(problems) - ERRORS_MAX
        raise CampaignFileError(problems[:ERRORS_MAX] + ([f"and {more} more"] if more > 0 else []))
    return CampaignFile(read, credit)


def _toml(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise CampaignFileError([f"not TOML: {error}"]) from None
    except RecursionError:
        raise CampaignFileError(["not read: lists and tables are nested too deep"]) from None
    except ValueError:  # Python's own bound on the digits of a number
        raise CampaignFileError(["not read: a number has thousands of digits"]) from None


def credit_document(terms: CreditTerms) -> dict[str, Any]:
    """What parse_campaigns gives for a [credit] table with these terms."""
    kinds = None if terms.line_kinds is None else sorted(terms.line_kinds)
    document: dict[str, Any] = {"excluded_categories": sorted(terms.excluded_categories)}
    return document if kinds is None else {"line_kinds": kinds} | document


def credit_from_terms(terms: Mapping[str, Any], version: int) -> CreditTerms:
    """The [credit] table of stored terms."""
    kinds = terms.get("line_kinds")
    return CreditTerms(version, None if kinds is None else frozenset(kinds), frozenset(terms["excluded_categories"]))


def _credit(table: object, problems: list[str]) -> dict[str, Any]:
    try:
        return _CREDIT.validate_python(table).model_dump(mode="json", exclude_none=True)
    except ValidationError as error:
        problems += [f"[credit]: {_sentence(detail)}" for detail in error.errors()]
        return {}


def campaign_from_terms(terms: Mapping[str, Any], version: int) -> Campaign:
    """The campaign of stored terms: what parse_campaigns gave as plain values, read back."""
    values = dict(terms)
    values["categories"] = frozenset(values.get("categories", ()))
    values["excluded_categories"] = frozenset(values.get("excluded_categories", ()))
    values["exclusive"] = values.pop("stacking", "exclusive") == "exclusive"
    values["pooled"] = values.pop("codes", None) == "pool"
    values["line_kinds"] = frozenset(values.get("line_kinds", GOODS_ONLY))
    values["tiers"] = tuple(Tier(**tier) for tier in values.get("tiers", ()))
    for name, terms_of in (("buy_get", BuyGet), ("set_price", SetPrice)):
        if name in values:
            values[name] = terms_of(**values[name])
    for moment in ("starts_at", "ends_at"):
        values[moment] = datetime.fromisoformat(values[moment])
    return Campaign(version=version, **values)


def _campaign(table: object) -> tuple[Campaign, dict[str, Any]]:
    if not isinstance(table, dict):
        raise CampaignFileError([f"is {_shown(table)}: a table is needed"])
    if "kind" not in table:
        raise CampaignFileError(["kind: is missing"])
    kind = table["kind"]
    adapter = _ADAPTERS.get(kind) if isinstance(kind, str) else None
    if adapter is None:
        raise CampaignFileError([f"kind: is {_shown(kind)}: must be one of {', '.join(_ADAPTERS)}"])
    model = adapter.validate_python(table)
    terms = model.model_dump(mode="json", exclude_none=True)
    return campaign_from_terms(terms, version=0), terms


def _name(number: int, table: object) -> str:
    name = table.get("id") if isinstance(table, dict) else None
    return shown(name) if isinstance(name, str) and name else f"number {number}"


def _sentence(fault: Any) -> str:
    where = ".".join(str(part) for part in fault["loc"])
    kind, found = fault["type"], fault["input"]
    if kind == "missing":
        return f"{where}: is missing"
    needed = str(fault["ctx"]["error"]) if kind == "value_error" else _NEEDED.get(kind) or needed_for(fault)
    if not where and isinstance(found, dict):  # between several keys: the table says nothing more
        return needed
    return f"{where + ': ' if where else ''}is {_shown(found)}: {needed}"


def _shown(value: object) -> str:
    if isinstance(value, date | time):  # a datetime is a date
        return value.isoformat()
    return f"a table of {len(value)} keys" if isinstance(value, dict) else shown(value)


def _repeats(field: str, values: list[str]) -> list[str]:
    seen: set[str] = set()
    problems = []
    for value in values:
        if value in seen:
            problems.append(f"{field}: {value!r} is used by more than one campaign")
        seen.add(value)
    return problems
