"""What wants a person's look: facts that wait, and anomalies."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final

import strawberry
from strawberry.types import Info

from incentive_fleet.console.graphql.cursors import FIRST, checked_first, page_of, place_of
from incentive_fleet.console.graphql.orders import OrderShown, orders_of
from incentive_fleet.console.graphql.reading import asking_of
from incentive_fleet.console.graphql.scalars import Document, Long, Time, shows
from incentive_fleet.console.visitors import Work
from incentive_fleet.errors import Refused
from incentive_fleet.events.times import parse_time
from incentive_fleet.ledger.anomalies import AnomalyKey, list_anomalies
from incentive_fleet.ledger.waiting import list_waiting

WAITING: Final = "waiting"
ANOMALIES: Final = "anomalies"
HOURS_MAX: Final = 876_000  # a hundred years


@strawberry.type(name="WaitingFact", description="A stored fact without effect so far.")
class WaitingFactShown:
    order_id: str
    fact: str
    source: str
    event_id: str
    traceparent: str | None
    happened_at: Time
    since: Time
    age_s: Long
    waits_for: str = strawberry.field(description="placing, or final basket")
    alarming: bool
    data: Document

    @shows(OrderShown | None)
    async def order(self, info: Info[Any, Any]) -> Any:
        """The order."""
        return await asking_of(info).load(orders_of, self.order_id)


def waiting(info: Info[Any, Any], first: int = FIRST, after: str | None = None, older_than_hours: float = 0.0) -> Any:
    """The longest waiting first."""
    asking = asking_of(info)
    if not 0 <= older_than_hours <= HOURS_MAX:
        raise Refused("out-of-bounds", f"olderThanHours is {older_than_hours}: must be 0 to {HOURS_MAX}")
    place: Any = place_of(WAITING, after, (datetime, str, str))
    limit, older = checked_first(first) + 1, timedelta(hours=older_than_hours)
    rows = asking.read(Work.READ, list_waiting, now=asking.now, older_than=older, limit=limit, after=place)
    return page_of(WAITING, rows, first, after, lambda row: (row.since, row.order_id, row.fact))


def anomalies(
    info: Info[Any, Any], first: int = FIRST, after: str | None = None, include_resolved: bool = False
) -> Any:
    """The earliest noticed first."""
    place: Any = place_of(ANOMALIES, after, (datetime, str, str, str))
    behind = (place[0], AnomalyKey(*place[1:])) if place else None
    limit = checked_first(first) + 1
    rows = asking_of(info).read(Work.READ, list_anomalies, limit=limit, include_resolved=include_resolved, after=behind)
    return page_of(
        ANOMALIES, rows, first, after, lambda row: (parse_time(row.noticed_at), row.order_id, row.reason, row.subject)
    )
