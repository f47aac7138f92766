"""The grants of docs/rules.md, on a real ledger: who gets one, and why the others get none (rules 8.4)."""

from __future__ import annotations

from contextlib import closing

from incentive_fleet.errors import Refused
from incentive_fleet.ledger.grants import Grant, grant
from incentive_fleet.ledger.session import Session
from tests.domain import NOON
from tests.rules_page import Block, sections, table_of
from tests.small_world import load


def test_each_grant_of_the_page_comes_to_what_the_page_says(database_url: str) -> None:
    [section] = [section for section in sections() if section.number == "8.4"]
    terms = next(part.text for part in section.parts() if isinstance(part, Block))
    rows = table_of("8.4", "key")
    asked = [
        Grant(row["key"], row["customer"], row["currency"], int(row["amount"]), row["campaign"], expires_at=None)
        for row in rows
    ]
    with closing(Session(database_url)) as session:
        load(session, terms)
        results = grant(session, asked, NOON)
    came_to = [result.reason if isinstance(result, Refused) else result.value for result in results]
    assert came_to == [row["what becomes of it"] for row in rows]
