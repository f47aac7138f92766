"""Which releases of the parts this release works with, and what shows it. Data; docs/deploy/support.md is the same table.

A row that names tests is run by its make target; one without is not run by anybody here, and says so.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

Version = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SupportedRelease:
    """One release of one part."""

    part: str
    release: str  # as much of the version as matters
    target: str = ""  # the make target that runs it; "" for none
    tests: tuple[str, ...] = ()  # files that play it
    remark: str = ""


SUITE: Final = ("tests",)
TABLE: Final = (
    SupportedRelease("Postgres", "15"),
    SupportedRelease("Postgres", "16"),
    SupportedRelease("Postgres", "17"),
    SupportedRelease("Postgres", "18", "test", SUITE),
    SupportedRelease("RabbitMQ", "3.10", "test", SUITE),
    SupportedRelease("RabbitMQ", "4.0"),
    SupportedRelease("Python", "3.11", "test", SUITE),
    SupportedRelease("Python", "3.12"),
    SupportedRelease("Python", "3.13"),
    SupportedRelease("Python", "3.14"),
)


def releases(part: str) -> list[SupportedRelease]:
    """The rows of a part, oldest first."""
    return [row for row in TABLE if row.part == part]


def version_of(text: str) -> Version:
    """The numbers at the beginning of a version: (4, 0, 5) of "4.0.5+1"."""
    found = re.match(r"\d+(?:\.\d+)*", text)
    return tuple(int(number) for number in found[0].split(".")) if found else ()


def row_of(part: str, version: Version) -> SupportedRelease | None:
    """The row that a version belongs to; None where it is older, newer or between those that the table has."""
    return next(
        (row for row in releases(part) if version[: len(version_of(row.release))] == version_of(row.release)), None
    )


def is_older(part: str, version: Version) -> bool:
    """Whether it is older than all that the table has."""
    return version < version_of(releases(part)[0].release)
