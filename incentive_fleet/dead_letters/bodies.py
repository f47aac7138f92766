"""Writes edited bodies, many in one statement, and beside them what the run found and left. It decides nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from psycopg import Connection

from incentive_fleet.dead_letters.letter import search_fields_of

SAVE = """
    UPDATE dead_letters d SET edited_body = n.edited_body, event_type = n.event_type, event_source = n.event_source,
        event_id = n.event_id, order_id = n.order_id, customer_id = n.customer_id
    FROM unnest(%(ids)s::bigint[], %(edited)s::bytea[], %(event_type)s::text[], %(event_source)s::text[],
            %(event_id)s::text[], %(order_id)s::text[], %(customer_id)s::text[])
        AS n (id, edited_body, event_type, event_source, event_id, order_id, customer_id)
    WHERE d.id = n.id
"""
# First, so that it still sees what was there before.
REMEMBER = """
    UPDATE dead_letter_run_letters l SET before = d.edited_body, after = n.edited_body
    FROM unnest(%(ids)s::bigint[], %(edited)s::bytea[]) AS n (id, edited_body) JOIN dead_letters d ON d.id = n.id
    WHERE l.run_id = %(run)s AND l.dead_letter_id = n.id
"""
FIELDS = ("event_type", "event_source", "event_id", "order_id", "customer_id")


@dataclass(frozen=True, slots=True)
class NewBody:
    """What a replay of the letter is to send from now on."""

    id: int
    edited: bytes | None  # None: the original
    current: bytes  # the same, or the original's bytes

    @property
    def fields(self) -> dict[str, Any]:
        """What the body says of itself."""
        return asdict(search_fields_of(self.current))


def write_bodies(connection: Connection[Any], run_id: int, bodies: Sequence[NewBody]) -> None:
    """Save them in the caller's transaction, which holds the letters' locks."""
    if not bodies:
        return
    fields = [body.fields for body in bodies]
    values: dict[str, object] = {
        "run": run_id,
        "ids": [body.id for body in bodies],
        "edited": [body.edited for body in bodies],
        **{name: [one[name] for one in fields] for name in FIELDS},
    }
    with connection.cursor() as cursor:
        cursor.execute(REMEMBER, values)
        cursor.execute(SAVE, values)
