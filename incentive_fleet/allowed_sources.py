"""Reads INCENTIVES_ALLOWED_SOURCES: which CloudEvent sources each queue takes. It decides about no event (consumers/admission.py).

    /shop/checkout, /shop/pos/*; delivery-completed = /courier; order-refunded = *

Lists are parted by `;` or line breaks, sources by commas. A list without a queue is for every queue that has none of its own. A
queue is called by its word, the same on every broker. `*` at the end of a source stands for whatever follows.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from incentive_fleet.brokers.topology import QUEUES

WORDS: Final = tuple(word for _, word in QUEUES)
SOURCE_MAX: Final = 200  # code points, as of every text in an event
LIST_MAX: Final = 1_000  # sources of one queue
TOLD: Final = 5  # sources that a sentence names
_EVERY_OTHER: Final = ""  # in place of a queue's word
_RULE: Final = re.compile(r"\s*(?:([A-Za-z0-9_.-]+)\s*=)?(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class SourceList:
    """The sources that one queue takes."""

    queue: str  # its word
    sources: tuple[str, ...]  # as the setting has them
    names: frozenset[str]
    beginnings: tuple[str, ...]

    def holds(self, source: str) -> bool:
        """Whether the queue takes it. Compared by code point, as identities are."""
        return source in self.names or source.startswith(self.beginnings)

    def __str__(self) -> str:
        told = ", ".join(map(repr, self.sources[:TOLD]))
        more = len(self.sources) - TOLD
        return f"{told} and {more} more" if more > 0 else told


def read_allowed_sources(text: str) -> Mapping[str, SourceList]:
    """By a queue's word what it takes; a queue that is not among them takes every source. ValueError says what is wrong."""
    own: dict[str, SourceList] = {}
    for rule in re.split(r"[;\r\n]", text):
        if not rule.strip():
            continue
        found = _list_of(rule)
        if found.queue in own:
            raise ValueError(f"{_whose(found.queue)} stands there twice")
        own[found.queue] = found
    if not own:
        raise ValueError("there is no source in it; leave it unset to allow all")
    others = own.pop(_EVERY_OTHER, None)
    if others is None:
        return own
    return {word: own.get(word) or SourceList(word, *_parts(others)) for word in WORDS}


def _parts(of: SourceList) -> tuple[tuple[str, ...], frozenset[str], tuple[str, ...]]:
    return of.sources, of.names, of.beginnings


def _list_of(rule: str) -> SourceList:
    match = _RULE.fullmatch(rule)
    assert match is not None  # it matches everything
    word, text = match[1] or _EVERY_OTHER, match[2]
    if word and word not in WORDS:
        raise ValueError(f"there is no queue {word!r}, but {', '.join(WORDS)}")
    sources = tuple(part.strip() for part in text.split(","))
    fault = next(_faults(sources), "")
    if fault:
        raise ValueError(f"in {_whose(word)} {fault}")
    names = frozenset(source for source in sources if not source.endswith("*"))
    return SourceList(word, sources, names, tuple(source[:-1] for source in sources if source.endswith("*")))


def _whose(word: str) -> str:
    return f"the list of {word}" if word else "the list for all queues"


def _faults(sources: tuple[str, ...]) -> Iterator[str]:
    if len(sources) > LIST_MAX:
        yield f"are {len(sources)} sources: at most {LIST_MAX} are allowed"
    for source in sources:
        if not source:
            yield "a source is empty"
        if "*" in source[:-1]:
            yield f"{source!r} has a * before its end"
        if len(source) > SOURCE_MAX or any(unicodedata.category(character) == "Cc" for character in source):
            yield f"{source[:SOURCE_MAX]!r} is no source: 1 to {SOURCE_MAX} code points, none a control character"
