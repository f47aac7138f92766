"""Checks of the whole ledger, by SQL, in one snapshot: what must be true at any moment of a live fleet. Never repairs.

The checks themselves are in checks.sql, each with its name and its sentence.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from psycopg import Connection

from incentive_fleet.events.times import format_time
from incentive_fleet.ledger.snapshot import snapshot

CHECKS_FILE = Path(__file__).with_name("checks.sql")
SAMPLE_MAX = 10_000  # rows shown of one check

_CHECK = re.compile(r"^-- check: (?P<name>[a-z-]+)\n-- (?P<description>.+)\n(?P<sql>[^;]+);\n", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Check:
    """A named statement whose every row is a fault."""

    name: str
    description: str
    sql: str


@dataclass(frozen=True, slots=True)
class CheckResult:
    """How many rows of the ledger break one check, and the first of them, their columns by name."""

    name: str
    description: str
    faults: int
    first: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """The result of every check at one moment (RFC 3339, UTC)."""

    verified_at: str
    transfers: int
    checks: list[CheckResult]

    @property
    def sound(self) -> bool:
        """Whether no check found a fault."""
        return not any(check.faults for check in self.checks)


@lru_cache(maxsize=1)
def all_checks() -> tuple[Check, ...]:
    """The checks of checks.sql, in its order."""
    text = CHECKS_FILE.read_text(encoding="utf-8")
    checks = tuple(Check(found["name"], found["description"], found["sql"]) for found in _CHECK.finditer(text))
    if len(checks) != text.count("-- check: "):
        raise ValueError(f"checks.sql names {text.count('-- check: ')} checks, {len(checks)} can be read")
    return checks


def verify(
    connection: Connection[Any], sample: int = 10, progress: Callable[[int, int], None] = lambda done, checks: None
) -> VerifyReport:
    """Run every check in one snapshot, keeping the first `sample` faulty rows of each; a live fleet may go on meanwhile.

    `progress` is called with how many checks of how many have run.

    Reads everything several times: some 40 s for a million transfers of large orders on two cores, in proportion beyond.
    Raises ValueError for a sample outside 0 to 10,000, DatabaseUnavailable or DatabaseContention; a retry helps with the
    latter two.
    """
    if not 0 <= sample <= SAMPLE_MAX:
        raise ValueError(f"sample is {sample}: must be 0 to {SAMPLE_MAX}")
    with snapshot(connection, whole_tables=True):
        moment, transfers = _moment(connection)
        results = []
        for check in all_checks():
            results.append(_run(connection, check, sample))
            progress(len(results), len(all_checks()))
    return VerifyReport(format_time(moment), transfers, results)


def _moment(connection: Connection[Any]) -> tuple[datetime, int]:
    row = connection.execute("SELECT now(), (SELECT count(*) FROM transfers)").fetchone()
    assert row is not None
    return row[0], row[1]


def _run(connection: Connection[Any], check: Check, sample: int) -> CheckResult:
    # One more column than the check's own: how many rows there are in all. A sound ledger gives none, so it costs nothing.
    query = (
        f"SELECT count(*) OVER (), to_jsonb(fault) FROM ({check.sql}) AS fault"
        f" ORDER BY to_jsonb(fault)::text LIMIT {max(sample, 1)}"
    )
    rows = connection.execute(query.encode()).fetchall()
    return CheckResult(check.name, check.description, rows[0][0] if rows else 0, [row for _, row in rows][:sample])
