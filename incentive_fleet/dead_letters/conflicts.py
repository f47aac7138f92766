"""What a conflict is about: how the event differs from the fact that has its identity. It never writes."""

from __future__ import annotations

import difflib
import json
from typing import Any

from psycopg import Connection

from incentive_fleet.events.codec import Event
from incentive_fleet.ledger.connection import mapped_errors

TAKEN = """
    SELECT fact, source, event_id, order_id, recorded_at, data FROM facts
    WHERE ((order_id = %(order)s AND fact = %(fact)s) OR (source = %(source)s AND event_id = %(id)s))
      AND digest <> %(digest)s
    ORDER BY recorded_at LIMIT 2
"""


def differences(connection: Connection[Any], event: Event) -> list[str]:
    """Unified diffs from each fact that has the event's identity to the event; empty when there is no such fact.

    Raises DatabaseUnavailable or DatabaseContention.
    """
    values = {
        "order": event.order_id,
        "fact": event.fact,
        "source": event.source,
        "id": event.id,
        "digest": event.digest,
    }
    with mapped_errors(blameless=True):
        rows = connection.execute(TAKEN, values).fetchall()
    return [line for row in rows for line in _difference(row, event)]


def _difference(row: tuple[Any, ...], event: Event) -> list[str]:
    fact, source, event_id, order_id, recorded_at, data = row
    known = (
        f"applied: {fact} of order {order_id}, event {event_id} of {source}, recorded {recorded_at:%Y-%m-%d %H:%M:%S}Z"
    )
    old, new = (
        json.dumps(document, ensure_ascii=False, indent=2).splitlines()
        for document in (data, json.loads(event.canonical))
    )
    return list(difflib.unified_diff(old, new, known, "this event", lineterm="", n=0))
