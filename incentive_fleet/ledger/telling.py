"""Notices as rows of the outbox, in the transaction that moves the credit. They are of no order, and have no number."""

from __future__ import annotations

from pydantic_core import to_json

from incentive_fleet.events.facts import NO_ORDER
from incentive_fleet.events.notices import notice_id
from incentive_fleet.events.outcomes import outgoing
from incentive_fleet.events.times import format_time
from incentive_fleet.incentives.notices import Notice
from incentive_fleet.ledger.rows import OutcomeRow


def outbox_row(notice: Notice, traceparent: str | None = None) -> OutcomeRow:
    """The notice as it is published."""
    id = notice_id(notice.type, notice.identity)
    document = outgoing(notice.type, id, format_time(notice.happened_at), notice.customer_id, notice.data, traceparent)
    return OutcomeRow(NO_ORDER, f"{notice.type}:{id}", 0, notice.type, to_json(document).decode())
