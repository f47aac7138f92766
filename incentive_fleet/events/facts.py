"""A fact is what an event says about its order: its name within the order is its identity (rules 2.3). Pure.

Names are permanent: the ledger's keys, the causes of transfers and the outcomes' ids are made of them.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final, assert_never

from incentive_fleet.events.models import DeliveryCompleted, EventData, OrderPlaced, OrderRefunded

PLACING: Final = "placing"
DELIVERY: Final = "delivery"
REFUND: Final = "refund:"  # and the refund's id


def fact_of(data: EventData) -> tuple[str, datetime]:
    """The fact's name within its order, and when it happened in the world."""
    match data:
        case OrderPlaced():
            return PLACING, data.placed_at
        case OrderRefunded():
            return f"{REFUND}{data.refund_id}", data.refunded_at
        case DeliveryCompleted():
            return DELIVERY, data.delivered_at
        case _:
            assert_never(data)


def model_of_fact(fact: str) -> type[EventData]:
    """The model of a stored fact's data. Raises ValueError for a name that no release wrote."""
    if fact.startswith(REFUND):
        return OrderRefunded
    if fact == DELIVERY:
        return DeliveryCompleted
    if fact == PLACING:
        return OrderPlaced
    raise ValueError(f"no fact is named {fact!r}")
