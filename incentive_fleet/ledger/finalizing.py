"""A final basket that never comes (rules 11): an operator finalizes the order with the lines of its placing."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Final

from incentive_fleet.errors import Refused
from incentive_fleet.events.codec import decode, encode_event
from incentive_fleet.events.models import OrderFinalized, OrderPlaced
from incentive_fleet.ledger.batch import Verdict, apply_events
from incentive_fleet.ledger.connection import mapped_errors
from incentive_fleet.ledger.csv_rows import require_text
from incentive_fleet.ledger.session import Session

SOURCE: Final = "/incentive-fleet/finalize"
READ: Final = """
    SELECT f.data::text, EXISTS (SELECT FROM facts AS final WHERE final.order_id = f.order_id AND final.fact = 'final-basket')
    FROM facts AS f WHERE f.order_id = %s AND f.fact = 'placing'
"""
NOTE: Final = """
    INSERT INTO finalized_as_placed (order_id, reason) VALUES (%s, %s)
    ON CONFLICT (order_id) DO UPDATE SET reason = excluded.reason
"""


def finalize_as_placed(session: Session, order_id: str, reason: str, now: datetime) -> None:
    """Take the placing's lines for the final basket, finalized `now`; a real one that comes later is a conflict.

    The act is a fact like any other, applied at once. Raises Refused (bad-text, unknown-order, not-estimated,
    already-finalized), DatabaseUnavailable or DatabaseContention; a retry helps with the latter two.
    """
    require_text("reason", reason)
    with mapped_errors(blameless=True):
        row = session.connection.execute(READ, (order_id,)).fetchone()
    if row is None:
        raise Refused("unknown-order", f"order is {order_id!r}: it was not placed")
    placing, finalized = OrderPlaced.model_validate_json(row[0]), row[1]
    if not placing.estimated:
        raise Refused("not-estimated", f"order is {order_id!r}: it was not placed as estimated")
    if finalized:
        raise Refused("already-finalized", f"order is {order_id!r}: it has a final basket")
    with mapped_errors(blameless=True), session.connection.transaction():
        session.connection.execute(NOTE, (order_id, reason))
    lines = json.loads(row[0])["lines"]
    final = OrderFinalized.model_validate_json(
        json.dumps({"order_id": order_id, "finalized_at": now.isoformat(), "lines": lines})
    )
    event = decode(encode_event(SOURCE, order_id, final, now))
    [verdict] = apply_events(session, [event]).verdicts
    if verdict is not Verdict.APPLIED:
        raise Refused("already-finalized", f"order is {order_id!r}: a final basket came at the same moment")
