"""What a batch holds in memory while it decides: the locked rows as working copies, and the rows it will write."""

from __future__ import annotations

from dataclasses import dataclass, field

from incentive_fleet.events.codec import Event
from incentive_fleet.incentives.booking import Posting
from incentive_fleet.incentives.campaigns import Usage
from incentive_fleet.incentives.decision import Decision
from incentive_fleet.incentives.running_totals import Progress
from incentive_fleet.incentives.wallet import Wallet
from incentive_fleet.ledger.conditions import CountingRow
from incentive_fleet.ledger.rows import FactRow, GrantRow, OutcomeRow, RedemptionRow, ReleaseRow, WaitingRow

WalletKey = tuple[str, str]  # customer_id, currency
FactKey = tuple[str, str]  # order_id, fact
Unit = tuple[str, str]  # what takes effect together: (order_id, ""), or no order and a grant with its wallet


@dataclass(slots=True)
class Order:
    """The working copy of an order's rows: how far it has come (None until it is placed), and events that wait."""

    progress: Progress | None = None
    waiting: list[Event] = field(default_factory=list)
    changed: bool = False  # the running totals


@dataclass(slots=True)
class Writes:
    """Rows to insert and change, gathered while deciding."""

    facts: list[FactRow] = field(default_factory=list)
    decisions: dict[str, Decision] = field(default_factory=dict)
    final_baskets: dict[str, Decision] = field(default_factory=dict)
    counting: dict[str, CountingRow] = field(default_factory=dict)  # by order
    codes: dict[str, str | None] = field(default_factory=dict)  # of pools: the order that each stands on now
    grants: list[GrantRow] = field(default_factory=list)
    waiting: set[WaitingRow] = field(default_factory=set)
    waited: set[WaitingRow] = field(default_factory=set)  # stored as waiting earlier, in effect now
    postings: list[Posting] = field(default_factory=list)
    redemptions: list[RedemptionRow] = field(default_factory=list)
    released: list[ReleaseRow] = field(default_factory=list)
    anomalies: set[tuple[str, str, str]] = field(default_factory=set)  # order_id, reason, subject
    outcomes: list[OutcomeRow] = field(default_factory=list)

    def waits_no_longer(self, event: Event) -> None:
        """The event took effect after it waited, in this batch or since an earlier one."""
        row = WaitingRow(event.order_id, event.fact)
        if row in self.waiting:
            self.waiting.discard(row)
        else:
            self.waited.add(row)


@dataclass(slots=True)
class WorkingSet:
    """Everything of one batch."""

    orders: dict[str, Order] = field(default_factory=dict)
    wallets: dict[WalletKey, Wallet] = field(default_factory=dict)
    usage: Usage = field(default_factory=Usage)
    writes: Writes = field(default_factory=Writes)
