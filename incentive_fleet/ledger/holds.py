"""Holds (rules 8): while a customer's credit is on hold, a placing applies none of it. Everything else goes on."""

from __future__ import annotations

from typing import Any

from psycopg import Connection

from incentive_fleet.ledger.connection import mapped_errors
from incentive_fleet.ledger.csv_rows import require_text

HOLD = """
    INSERT INTO wallet_holds (customer_id, reason) VALUES (%s, %s)
    ON CONFLICT (customer_id) WHERE released_at IS NULL DO NOTHING
"""
RELEASE = """
    UPDATE wallet_holds SET released_at = now(), release_reason = %s, released_by = session_user
    WHERE customer_id = %s AND released_at IS NULL
"""


def hold(connection: Connection[Any], customer_id: str, reason: str) -> bool:
    """Hold a customer's credit in all currencies; False when it was held already. Idempotent. Raises Refused (bad-text)."""
    _require(customer_id, reason)
    with mapped_errors(blameless=True), connection.transaction():
        return connection.execute(HOLD, (customer_id, reason)).rowcount == 1


def release(connection: Connection[Any], customer_id: str, reason: str) -> bool:
    """Let the customer's credit be applied again; False when it was not held. Idempotent. Raises Refused (bad-text)."""
    _require(customer_id, reason)
    with mapped_errors(blameless=True), connection.transaction():
        return connection.execute(RELEASE, (reason, customer_id)).rowcount == 1


def _require(customer_id: str, reason: str) -> None:
    require_text("customer_id", customer_id)
    require_text("reason", reason)
