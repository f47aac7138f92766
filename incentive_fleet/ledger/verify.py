"""Checks of the ledger, by SQL, in one snapshot: what must be true at any moment of a live fleet. Never writes, never repairs.

The checks themselves are in checks.sql, each with its name and its sentence. This module reads all of them whole; nightly.py
reads what is new and a part of the rest, and keeps how far that went.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from time import monotonic
from typing import Any, Final, Literal

from psycopg import Connection

from incentive_fleet.events.times import format_time
from incentive_fleet.ledger.blocks import Point, changed_blocks, read_point
from incentive_fleet.ledger.snapshot import snapshot

CHECKS_FILE = Path(__file__).with_name("checks.sql")
SAMPLE_MAX = 10_000  # rows shown of one check

Part = Literal["orders", "customers"]
BLOCKS: Final = "blocks"  # the one check that is not of checks.sql
BLOCKS_SENTENCE: Final = "Each block of transfers that was verified before still has the digest that it had then."

_CHECK = re.compile(
    r"^-- check: (?P<name>[a-z-]+)\n-- (?P<description>.+)\n(?:-- in part: (?P<parts>.+)\n)?(?P<sql>[^;]+);\n",
    re.MULTILINE,
)


@dataclass(frozen=True, slots=True)
class Check:
    """A named statement whose every row is a fault."""

    name: str
    description: str
    sql: str
    parts: tuple[Part, ...]  # by which a nightly run reads it; it reads a check that has none whole


@dataclass(frozen=True, slots=True)
class CheckResult:
    """How many rows of the ledger break one check, and the first of them, their columns by name."""

    name: str
    description: str
    faults: int
    first: list[dict[str, Any]]
    unsaid: str = ""  # of what this run did not read: what the check says nothing of


@dataclass(frozen=True, slots=True)
class Extent:
    """What was read, how many transfers that were, and how long it took."""

    what: Literal["all", "new", "turn", "current"]
    transfers: int
    seconds: float


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """The result of every check at one moment (RFC 3339, UTC)."""

    verified_at: str
    transfers: int
    checks: list[CheckResult]
    readings: list[Extent]
    point: Point  # up to which the ledger is verified, this run included
    full: bool = True
    turn: int | None = None  # which thirtieth of the blocks was read again, 0 to 29
    recorded: bool = False  # whether the run was written down
    held: bool = False  # the point stays where it was, for a transaction that was writing did not end

    @property
    def sound(self) -> bool:
        """Whether no check found a fault."""
        return not any(check.faults for check in self.checks)


@lru_cache(maxsize=1)
def all_checks() -> tuple[Check, ...]:
    """The checks of checks.sql, in its order."""
    text = CHECKS_FILE.read_text(encoding="utf-8")
    checks = tuple(
        Check(found["name"], found["description"], found["sql"], _parts(found["parts"]))
        for found in _CHECK.finditer(text)
    )
    if len(checks) != text.count("-- check: "):
        raise ValueError(f"checks.sql names {text.count('-- check: ')} checks, {len(checks)} can be read")
    if sum(bool(check.parts) for check in checks) != text.count("\n-- in part: "):
        raise ValueError(
            'checks.sql: a line "in part" does not follow its check\'s sentence, so all would be read every night'
        )
    return checks


def _parts(text: str | None) -> tuple[Part, ...]:
    words = [] if text is None else text.split(", ")
    parts = tuple(part for part in ("orders", "customers") if part in words)
    if len(parts) != len(words):
        raise ValueError(f"checks.sql: {text!r} are no parts of a ledger")
    return parts


def verify(
    connection: Connection[Any], sample: int = 10, progress: Callable[[int, int], None] = lambda done, checks: None
) -> VerifyReport:
    """Run every check in one snapshot, keeping the first `sample` faulty rows of each; a live fleet may go on meanwhile.

    `progress` is called with how many checks of how many have run.

    Reads everything several times: some 40 s for a million transfers of large orders on two cores, in proportion beyond.
    Raises ValueError for a sample outside 0 to 10,000, DatabaseUnavailable or DatabaseContention; a retry helps with the
    latter two.
    """
    require_sample(sample)
    began = monotonic()
    with snapshot(connection, whole_tables=True):
        moment, transfers = _moment(connection)
        point = read_point(connection)
        results = []
        for check in all_checks():
            results.append(run_whole(connection, check, sample))
            progress(len(results), len(all_checks()) + 1)
        results.append(check_blocks(connection, sample))
        progress(len(results), len(results))
    return VerifyReport(
        format_time(moment), transfers, results, [Extent("all", transfers, round(monotonic() - began, 3))], point
    )


def require_sample(sample: int) -> None:
    """Raises ValueError for one outside 0 to 10,000."""
    if not 0 <= sample <= SAMPLE_MAX:
        raise ValueError(f"sample is {sample}: must be 0 to {SAMPLE_MAX}")


def _moment(connection: Connection[Any]) -> tuple[datetime, int]:
    row = connection.execute("SELECT now(), (SELECT count(*) FROM transfers)").fetchone()
    assert row is not None
    return row[0], row[1]


def run_whole(connection: Connection[Any], check: Check, sample: int) -> CheckResult:
    """The check over all that there is."""
    faults, first = faults_of(connection, check.sql, sample)
    return CheckResult(check.name, check.description, faults, first[:sample])


def faults_of(
    connection: Connection[Any], sql: str, most: int, *, before: str = ""
) -> tuple[int, list[dict[str, Any]]]:
    """How many rows a statement gives behind `before`, its WITH, and the first of them, one at least."""
    # One more column than the check's own: how many rows there are in all. A sound ledger gives none, so it costs nothing.
    query = (
        f"{before} SELECT count(*) OVER (), to_jsonb(fault) FROM ({sql}) AS fault"
        f" ORDER BY to_jsonb(fault)::text LIMIT {max(most, 1)}"
    )
    rows = connection.execute(query.encode()).fetchall()
    return rows[0][0] if rows else 0, [row for _, row in rows]


def check_blocks(connection: Connection[Any], sample: int, turn: int | None = None) -> CheckResult:
    """The check of the blocks whose turn it is, or of all; the first block that changed is the first fault."""
    changed = changed_blocks(connection, turn)
    return CheckResult(BLOCKS, BLOCKS_SENTENCE, len(changed), [asdict(block) for block in changed[:sample]])
