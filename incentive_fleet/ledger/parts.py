"""What belongs to a stretch of transfers and outcomes, read with its checks in one statement: the texts of parts.sql, with
numbers in them, before those of checks.sql. It decides nothing about which stretch that is, and never writes.
"""

from __future__ import annotations

import re
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from psycopg import Connection

from incentive_fleet.ledger.blocks import Range
from incentive_fleet.ledger.verify import SAMPLE_MAX, Part, all_checks, faults_of

Rows = list[tuple[str, int, dict[str, Any]]]  # of each check that has any: its name, how many, one of the first
PARTS_FILE: Final = Path(__file__).with_name("parts.sql")
BALANCES: Final = "balances"
# Of which accounts a part of the ledger has every transfer.
CLOSED: Final[dict[Part, str]] = {
    "orders": "starts_with(account, 'order:')",
    "customers": "starts_with(account, 'wallet:') OR starts_with(account, 'pending:') OR starts_with(account, 'debt:')",
}

# Compiling these statements takes longer than running them. What a part has is found by index, a few pages of each table that
# others have just read or written, where that is less than to read the table: so the time grows with what is new.
FOR_PARTS: Final = """
    SELECT set_config(name, value, true) FROM (VALUES ('jit', 'off'), ('random_page_cost', '1.1')) AS setting (name, value)
"""
_PART = re.compile(r"^-- part: (?P<name>[a-z]+)\n(?P<sql>.+?)(?=\n-- part:|\Z)", re.MULTILINE | re.DOTALL)


def faults_in(connection: Connection[Any], part: Part, stretch: Range, *, waiting: bool) -> Rows:
    """Of the orders or the customers of a stretch, with all that is theirs; with `waiting` the orders of facts that wait too."""
    query = f"{_part(part, stretch, waiting=waiting)} {_checks_in(part)}"
    return connection.execute(query.encode()).fetchall()


def wrong_sums(connection: Connection[Any], new: Range) -> tuple[int, list[dict[str, Any]]]:
    """Where the sums of the balances are not those of all blocks and of what is new."""
    return faults_of(connection, _part("sums", new), SAMPLE_MAX)


@lru_cache(maxsize=2)
def _checks_in(part: Part) -> str:
    """All checks of a part as one statement, so that what belongs to it is fetched once: name, faults, one of the first."""
    selects = " UNION ALL ".join(
        f"SELECT '{check.name}' AS name, to_jsonb(fault) AS fault FROM ({check.sql}) AS fault"
        + (f" WHERE {CLOSED[part]}" if check.name == BALANCES else "")
        for check in all_checks()
        if part in check.parts
    )
    return f"""
        SELECT name, faults, fault FROM (
            SELECT name, fault, count(*) OVER (PARTITION BY name) AS faults,
                   row_number() OVER (PARTITION BY name ORDER BY fault::text) AS place
            FROM ({selects}) AS found
        ) AS placed WHERE place <= {SAMPLE_MAX} ORDER BY name, place
    """


def _part(name: str, stretch: Range, *, waiting: bool = False) -> str:
    """A text of parts.sql with the numbers of a stretch in it."""
    return _parts_of_file()[name].format(**asdict(stretch), waiting="true" if waiting else "false")


@lru_cache(maxsize=1)
def _parts_of_file() -> dict[str, str]:
    text = PARTS_FILE.read_text(encoding="utf-8")
    return {found["name"]: found["sql"] for found in _PART.finditer(text)}
