"""Outcomes and notices as rows of the outbox, in the transaction that moves the credit: the CloudEvent that is published."""

from __future__ import annotations

from pydantic_core import to_json

from incentive_fleet.events.codec import Event
from incentive_fleet.events.facts import NO_ORDER
from incentive_fleet.events.notices import notice_id
from incentive_fleet.events.outcomes import OUTCOME_BYTES_MAX, OUTCOME_OF, outcome_id, outgoing
from incentive_fleet.events.times import format_time
from incentive_fleet.incentives.decision import Decision
from incentive_fleet.incentives.notices import Notice
from incentive_fleet.incentives.outcomes import Data
from incentive_fleet.ledger.rows import OutcomeRow


def outcome_row(event: Event, placed: Decision, sequence: int, data: Data) -> OutcomeRow:
    """What the event brought its order. Its id is derived from its cause, so that receivers can drop repeats (rules 10)."""
    type = OUTCOME_OF[event.type]
    about: Data = {
        "order_id": event.order_id,
        "customer_id": placed.customer_id,
        "currency": placed.currency,
        "sequence": sequence,
        "cause": {"source": event.source, "id": event.id, "type": event.type, "fact": event.fact},
        **data,
    }
    id = outcome_id(type, event.order_id, event.fact)
    document = outgoing(type, id, format_time(event.happened_at), event.order_id, about, event.traceparent)
    body = to_json(document)
    if len(body) > OUTCOME_BYTES_MAX:
        body = to_json(document | {"data": about | {"lines": None}})
    return OutcomeRow(event.order_id, event.fact, sequence, type, body.decode())


def notice_row(notice: Notice, traceparent: str | None = None) -> OutcomeRow:
    """A notice is of no order, and has no number."""
    id = notice_id(notice.type, notice.identity)
    document = outgoing(notice.type, id, format_time(notice.happened_at), notice.customer_id, notice.data, traceparent)
    return OutcomeRow(NO_ORDER, f"{notice.type}:{id}", 0, notice.type, to_json(document).decode())
