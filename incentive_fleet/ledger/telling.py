"""Notices as rows of the outbox, in the transaction that moves the credit. They are of no order, and have no number."""

from __future__ import annotations

from pydantic_core import to_json

from incentive_fleet.events.facts import NO_ORDER
from incentive_fleet.events.notices import notice_id
from incentive_fleet.events.outcomes import OUTCOME_SOURCE
from incentive_fleet.incentives.notices import Notice
from incentive_fleet.ledger.rows import OutcomeRow


def outbox_row(notice: Notice, traceparent: str | None = None) -> OutcomeRow:
    """The notice as it is published."""
    id = notice_id(notice.type, notice.identity)
    document: dict[str, object] = {
        "specversion": "1.0",
        "id": id,
        "source": OUTCOME_SOURCE,
        "type": notice.type,
        "time": notice.happened_at.isoformat().replace("+00:00", "Z"),
        "subject": notice.customer_id,
        "datacontenttype": "application/json",
        "data": notice.data,
    }
    if traceparent is not None:
        document["traceparent"] = traceparent
    return OutcomeRow(NO_ORDER, f"{notice.type}:{id}", 0, notice.type, to_json(document).decode())
