"""Audiences (rules 13): lists of customers that campaigns are for, or are not for. What is loaded when a placing comes decides."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from psycopg import Connection

from incentive_fleet.ledger.connection import mapped_errors

STAGE = "CREATE TEMPORARY TABLE staged_members (audience text, customer_id text) ON COMMIT DROP"
ADD = """
    INSERT INTO audience_members (audience, customer_id)
    SELECT DISTINCT audience, customer_id FROM staged_members ORDER BY audience, customer_id
    ON CONFLICT (audience, customer_id) DO NOTHING
"""
REMOVE = """
    DELETE FROM audience_members USING staged_members
    WHERE audience_members.audience = staged_members.audience
      AND audience_members.customer_id = staged_members.customer_id
"""


def add_members(connection: Connection[Any], members: Iterable[tuple[str, str]]) -> int:
    """Add (audience, customer) pairs, all or nothing; returns how many were not there. Idempotent."""
    return _staged(connection, members, ADD)


def remove_members(connection: Connection[Any], members: Iterable[tuple[str, str]]) -> int:
    """Take (audience, customer) pairs out, all or nothing; returns how many were there. Idempotent."""
    return _staged(connection, members, REMOVE)


def _staged(connection: Connection[Any], members: Iterable[tuple[str, str]], act: str) -> int:
    with mapped_errors(blameless=True), connection.transaction():
        connection.execute(STAGE)
        with connection.cursor().copy("COPY staged_members FROM STDIN") as copy:
            for member in members:
                copy.write_row(member)
        return connection.execute(act.encode()).rowcount
