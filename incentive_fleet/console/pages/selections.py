"""Which letters a page or an act is about: a search, or letters that were ticked. It reads forms and handles, and no letter.

A search may name a customer, so an address holds its handle (handles.py). What an act is about also holds the moment of its
preview: letters that come later were not looked at, and are left.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from psycopg import Connection

from incentive_fleet.console.pages.handles import unseal
from incentive_fleet.console.pages.shell import Fields, number_of, text_of
from incentive_fleet.console.visitors import Work
from incentive_fleet.dead_letters.store import Filters, select_ids
from incentive_fleet.settings import Settings

Search = Mapping[str, Any]

TEXTS: Final = ("reason", "type", "queue", "source", "order", "customer", "text")
NUMBERS: Final = ("group", "run")
STATUSES: Final[dict[str, tuple[str, ...] | None]] = {
    "unfinished": ("open", "replaying"),
    "open": ("open",),
    "replaying": ("replaying",),
    "replayed": ("replayed",),
    "discarded": ("discarded",),
    "any": None,
}
PERSONAL: Final = ("customer", "text")  # these read what not everybody may read
DEFAULT_STATUS: Final = {"edit": "open", "discard": "open", "restore": "discarded"}  # of an act; else `unfinished`
TICKED_MAX: Final = 100
FIELD_CHARACTERS: Final = 200


def search_of(fields: Fields) -> dict[str, Any]:
    """What a form asks for. Raises Refused (bad-field)."""
    search: dict[str, Any] = {name: text_of(fields, name, most=FIELD_CHARACTERS, exact=True) for name in TEXTS}
    search |= {name: number_of(text_of(fields, name, most=20), name) for name in NUMBERS}
    status = text_of(fields, "status", most=20)
    if status in STATUSES:
        search["status"] = status
    return {name: value for name, value in search.items() if value}


def opened(settings: Settings, handle: str | None) -> dict[str, Any]:
    """The search behind a handle; everything, where there is none. Raises Refused (link-expired)."""
    return dict(unseal(settings, "search", handle)) if handle else {}


def work_of(search: Search) -> Work:
    """What a visitor must be allowed to ask for it."""
    return Work.READ if any(name in search for name in PERSONAL) else Work.LOOK


def filters_of(search: Search, default_status: str = "unfinished") -> Filters:
    """As the store takes it."""
    known = {name: search[name] for name in (*TEXTS, *NUMBERS) if name in search}
    before = search.get("seen_before")
    return Filters(
        **known,
        statuses=STATUSES[search.get("status", default_status)],
        seen_before=None if before is None else datetime.fromisoformat(before),
    )


def frozen(search: Search, ids: list[int], now: datetime) -> dict[str, Any]:
    """What an act is about: the letters that were ticked, else all that the search finds as of now."""
    return {"ids": sorted(set(ids))[:TICKED_MAX]} if ids else {**search, "seen_before": now.isoformat()}


def ids_of(connection: Connection[Any], selection: Search, act: str) -> list[int]:
    """The letters. Raises TransientError."""
    if "ids" in selection:
        return [int(number) for number in selection["ids"]]
    return select_ids(connection, filters_of(selection, DEFAULT_STATUS.get(act, "unfinished")))


def of_letter(number: int) -> dict[str, Any]:
    """One letter."""
    return {"ids": [number]}


def narrowed(search: Search, **more: Any) -> dict[str, Any]:
    """The search with something more to it."""
    return {**search, **more}
