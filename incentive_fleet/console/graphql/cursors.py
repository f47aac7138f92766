"""Pages by cursor, as Relay wants them: a cursor says behind which element a page begins, never how many came before.

So a page stays what it is while others are written. A cursor is opaque to whoever has it, and gives nothing that its listing
would not give; it decides where to begin reading and is checked as everything from outside is.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Final, Generic, TypeVar

import strawberry

from incentive_fleet.errors import Malformed, Refused
from incentive_fleet.events.times import format_time, parse_time

FIRST: Final = 50  # elements of a page, where nobody says
FIRST_MAX: Final = 200
CURSOR_CHARACTERS: Final = 4_000  # texts of 200 code points, a few of them, escaped
BOUND: Final = 2**63

T = TypeVar("T")
Place = tuple[Any, ...]


@strawberry.type(name="PageInfo", description="Where a page lies in its listing.")
class PageInfo:
    has_next_page: bool
    has_previous_page: bool = strawberry.field(description="Whether it begins behind a cursor.")
    start_cursor: str | None
    end_cursor: str | None


@strawberry.type(name="Edge", description="An element of a page.")
class EdgeOf(Generic[T]):
    cursor: str
    node: T


@strawberry.type(name="Connection", description="A page.")
class PageOf(Generic[T]):
    edges: list[EdgeOf[T]]
    page_info: PageInfo


def cursor_of(listing: str, place: Place) -> str:
    """The cursor of an element by its place: texts, whole numbers and times, in the order in which the listing sorts."""
    told = [format_time(one) if isinstance(one, datetime) else one for one in place]
    text = json.dumps([listing, *told], ensure_ascii=False, separators=(",", ":"))
    return urlsafe_b64encode(text.encode()).decode().rstrip("=")


def place_of(listing: str, cursor: str | None, kinds: Sequence[type]) -> Place | None:
    """The place that a cursor names; None without one. Raises Refused (bad-cursor)."""
    if cursor is None:
        return None
    try:
        if len(cursor) > CURSOR_CHARACTERS:
            raise ValueError(cursor)
        named, *told = json.loads(urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        if named != listing or len(told) != len(kinds):
            raise ValueError(cursor)
        return tuple(_read(one, kind) for one, kind in zip(told, kinds, strict=True))
    except (
        ValueError,
        TypeError,
        RecursionError,
        Malformed,
    ):  # not in base64, not UTF-8, not JSON, or of another shape
        raise Refused("bad-cursor", f"after is {cursor[:50]!r}: not a cursor of this listing") from None


def _read(value: Any, kind: type) -> Any:
    if kind is datetime and isinstance(value, str):
        return parse_time(value)
    if kind is int and type(value) is int and -BOUND <= value < BOUND:
        return value
    if kind is str and isinstance(value, str) and "\x00" not in value:
        value.encode()  # a lone surrogate is nothing that is stored
        return value
    raise ValueError(value)


def checked_first(first: int) -> int:
    """How many elements a page may have. Raises Refused (page-out-of-bounds)."""
    if not 1 <= first <= FIRST_MAX:
        raise Refused("page-out-of-bounds", f"first is {first}: must be 1 to {FIRST_MAX}")
    return first


def page_of(listing: str, rows: Sequence[T], first: int, after: str | None, place: Callable[[T], Place]) -> PageOf[T]:
    """The page from rows of which one more was read than it may have, if there was one more."""
    edges = [EdgeOf(cursor=cursor_of(listing, place(row)), node=row) for row in rows[:first]]
    return PageOf(
        edges=edges,
        page_info=PageInfo(
            has_next_page=len(rows) > first,
            has_previous_page=after is not None,
            start_cursor=edges[0].cursor if edges else None,
            end_cursor=edges[-1].cursor if edges else None,
        ),
    )
