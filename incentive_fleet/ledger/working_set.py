"""What a batch holds in memory while it decides: the locked rows as working copies, and the rows it will write."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from incentive_fleet.events.codec import Event
from incentive_fleet.events.models import DeliveryCompleted, OrderPlaced, OrderRefunded
from incentive_fleet.incentives.campaigns import Usage
from incentive_fleet.incentives.decision import Decision
from incentive_fleet.incentives.posting import Posting
from incentive_fleet.incentives.progress import Progress
from incentive_fleet.incentives.wallet import Wallet

PLACING = "placing"
DELIVERY = "delivery"

WalletKey = tuple[str, str]  # customer_id, currency
FactKey = tuple[str, str]  # order_id, fact


class Fact(NamedTuple):
    """A validated event with its identity within its order."""

    fact: str
    source: str
    event_id: str
    type: str
    traceparent: str | None
    data: OrderPlaced | OrderRefunded | DeliveryCompleted
    happened_at: datetime

    @classmethod
    def of(cls, event: Event) -> Fact:
        data = event.data
        if isinstance(data, OrderPlaced):
            name, moment = PLACING, data.placed_at
        elif isinstance(data, OrderRefunded):
            name, moment = f"refund:{data.refund_id}", data.refunded_at
        else:
            name, moment = DELIVERY, data.delivered_at
        return cls(name, event.source, event.id, event.type, event.traceparent, data, moment)


@dataclass(slots=True)
class Order:
    """The working copy of an order's row: its decision (None until it is placed), progress, and facts that wait."""

    decision: Decision | None = None
    progress: Progress | None = None
    waiting: list[Fact] = field(default_factory=list)
    changed: bool = False


@dataclass(slots=True)
class OutcomeRow:
    """An outcome for the outbox."""

    order_id: str
    fact: str
    sequence: int
    type: str
    body: str


@dataclass(slots=True)
class Writes:
    """Rows to insert and change, gathered while deciding."""

    facts: list[tuple[Fact, Event]] = field(default_factory=list)
    decisions: dict[str, Decision] = field(default_factory=dict)
    waiting: set[FactKey] = field(default_factory=set)
    waited: set[FactKey] = field(default_factory=set)  # stored as waiting earlier, in effect now
    postings: list[Posting] = field(default_factory=list)
    redemptions: list[tuple[str, str, str, int, datetime]] = field(default_factory=list)
    released: list[tuple[str, str, str, datetime]] = field(default_factory=list)
    anomalies: set[tuple[str, str, str]] = field(default_factory=set)
    outcomes: list[OutcomeRow] = field(default_factory=list)


@dataclass(slots=True)
class WorkingSet:
    """Everything of one batch."""

    orders: dict[str, Order] = field(default_factory=dict)
    wallets: dict[WalletKey, Wallet] = field(default_factory=dict)
    usage: Usage = field(default_factory=Usage)
    writes: Writes = field(default_factory=Writes)
