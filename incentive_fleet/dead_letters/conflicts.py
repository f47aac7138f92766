"""What a conflict is about: the facts that have the event's identity, and how the event differs from them. It never writes."""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from typing import Any

from psycopg import Connection
from psycopg.rows import class_row

from incentive_fleet.dead_letters.corrections import Applied
from incentive_fleet.events.codec import Event
from incentive_fleet.ledger.connection import mapped_errors

TAKEN = """
    SELECT fact, order_id, source, event_id, recorded_at, data FROM facts
    WHERE ((order_id = %(order)s AND fact = %(fact)s) OR (source = %(source)s AND event_id = %(id)s)) AND digest <> %(digest)s
    ORDER BY (order_id, fact) <> (%(order)s, %(fact)s), recorded_at LIMIT 2
"""


def taken(connection: Connection[Any], event: Event) -> list[Applied]:
    """The facts of other content that have the event's identity: the one of the same order and name first.

    Raises DatabaseUnavailable or DatabaseContention.
    """
    values = {
        "order": event.order_id,
        "fact": event.fact,
        "source": event.source,
        "id": event.id,
        "digest": event.digest,
    }
    with mapped_errors(blameless=True), connection.cursor(row_factory=class_row(Applied)) as cursor:
        return cursor.execute(TAKEN, values).fetchall()


def differences(known: Sequence[Applied], event: Event) -> list[str]:
    """Unified diffs from each of the facts to the event."""
    return [line for applied in known for line in _difference(applied, event)]


def _difference(applied: Applied, event: Event) -> list[str]:
    known = (
        f"applied: {applied.fact} of order {applied.order_id}, event {applied.event_id} of {applied.source}, "
        f"recorded {applied.recorded_at:%Y-%m-%d %H:%M:%S}Z"
    )
    old, new = (
        json.dumps(document, ensure_ascii=False, indent=2).splitlines()
        for document in (applied.data, json.loads(event.canonical))
    )
    return list(difflib.unified_diff(old, new, known, "this event", lineterm="", n=0))
