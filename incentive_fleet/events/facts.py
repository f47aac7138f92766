"""A fact is what an event says about its order: its name within the order is its identity (rules 2.3). Pure.

Names are permanent: the ledger's keys, the causes of transfers and the outcomes' ids are made of them.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final, assert_never

from incentive_fleet.events.models import (
    CreditGrantRequested,
    DeliveryCompleted,
    EventData,
    OrderCancelled,
    OrderFinalized,
    OrderPlaced,
    OrderRefunded,
)

PLACING: Final = "placing"
FINAL_BASKET: Final = "final-basket"
CANCELLING: Final = "cancelling"
DELIVERY: Final = "delivery"
REFUND: Final = "refund:"  # and the refund's id
GRANT: Final = "grant:"  # and the grant's key; it is a fact of no order
NO_ORDER: Final = ""


_MODELS: Final[dict[str, type[EventData]]] = {
    PLACING: OrderPlaced,
    FINAL_BASKET: OrderFinalized,
    CANCELLING: OrderCancelled,
    DELIVERY: DeliveryCompleted,
}


def fact_of(data: EventData) -> tuple[str, datetime]:
    """The fact's name within its order, and when it happened in the world."""
    match data:
        case OrderPlaced():
            return PLACING, data.placed_at
        case DeliveryCompleted():
            return DELIVERY, data.delivered_at
        case OrderRefunded():
            return f"{REFUND}{data.refund_id}", data.refunded_at
        case OrderFinalized():
            return FINAL_BASKET, data.finalized_at
        case OrderCancelled():
            return CANCELLING, data.cancelled_at
        case CreditGrantRequested():
            return f"{GRANT}{data.grant_key}", data.requested_at
        case _:
            assert_never(data)


def order_of(data: EventData) -> str:
    """The order that the event is a fact of; NO_ORDER for a grant."""
    return NO_ORDER if isinstance(data, CreditGrantRequested) else data.order_id


def model_of_fact(fact: str) -> type[EventData]:
    """The model of a stored fact's data. Raises ValueError for a name that no release wrote."""
    if fact.startswith(REFUND):
        return OrderRefunded
    if fact.startswith(GRANT):
        return CreditGrantRequested
    if fact in _MODELS:
        return _MODELS[fact]
    raise ValueError(f"no fact is named {fact!r}")
