"""The batch: many events, one transaction, a fixed number of round trips. A batch of one is the same code.

Lock, read, classify, decide, write, commit. It never receives or acknowledges anything: consumers/core.py does.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from enum import Enum
from typing import Any

import psycopg
from psycopg import Connection

from incentive_fleet.events.codec import Event
from incentive_fleet.events.models import DeliveryCompleted, OrderPlaced, OrderRefunded
from incentive_fleet.faults import reach
from incentive_fleet.incentives.campaigns import CampaignSet
from incentive_fleet.incentives.placing import normal_codes
from incentive_fleet.incentives.posting import Posting
from incentive_fleet.ledger.connection import mapped_errors, retry_contention
from incentive_fleet.ledger.effect import take_effect
from incentive_fleet.ledger.locking import Identities, WalletNeeds, limited_among, lock_orders, lock_wallets
from incentive_fleet.ledger.session import Session
from incentive_fleet.ledger.working_set import Fact, Order, WalletKey, WorkingSet
from incentive_fleet.ledger.writing import batch_changes, write

EVENTS_MAX = 5_000  # of one batch; the settings' bound
FEW = 64  # events that are written in one round trip; beyond, what COPY saves outweighs its waiting (benchmarks/PROFILE.md)


class Verdict(Enum):
    """What became of one event of a batch."""

    APPLIED = "applied"
    WAITING = "waiting"  # stored; takes effect when its order's placing comes
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"
    PUT_OFF = "put-off"  # nothing became of it: another transaction holds its customer's wallet


@dataclass(frozen=True, slots=True)
class BatchResult:
    """A verdict an event, in the order given, and the transfers that the batch booked (or, rehearsed, would book)."""

    verdicts: list[Verdict]
    postings: list[Posting]


def apply_events(
    session: Session, events: Sequence[Event], *, rehearse: bool = False, patient: bool = True
) -> BatchResult:
    """Apply events in the order given, exactly once in effect, in one transaction; with `rehearse` it is rolled back.

    Where another transaction holds a wallet, all waits for it; unless `patient`, that wallet's orders are PUT_OFF instead,
    whole, and to be given again, as long as they are the smaller part.

    Idempotent: what was applied before is a DUPLICATE. Deadlocks, serialization failures and identities that another
    transaction took meanwhile are retried here, bounded and with jitter. Raises DatabaseContention or
    DatabaseUnavailable when that did not help (a retry later does) and whatever a bug raises; nothing is applied then.
    """
    if not 1 <= len(events) <= EVENTS_MAX:
        raise ValueError(f"a batch has 1 to {EVENTS_MAX} events, not {len(events)}")
    named = [(event, Fact.of(event)) for event in events]
    with mapped_errors():
        return retry_contention()(_attempt, session, named, rehearse, patient)


def _attempt(session: Session, events: list[tuple[Event, Fact]], rehearse: bool, patient: bool) -> BatchResult:
    connection = session.connection
    try:
        verdicts, working = _decide(session, connection, events, patient)
        few = len(events) <= FEW
        with connection.pipeline() if few else nullcontext():
            write(connection, batch_changes(working), by_copy=not few)
            reach("before-commit")
            connection.execute("ROLLBACK" if rehearse else "COMMIT")
        reach("after-commit")
    except BaseException:
        _roll_back(session, connection)
        raise
    return BatchResult(verdicts, working.writes.postings)


def _decide(
    session: Session, connection: Connection[Any], events: list[tuple[Event, Fact]], patient: bool
) -> tuple[list[Verdict], WorkingSet]:
    session.terms, identities, orders = lock_orders(connection, session.terms, events)
    campaigns = session.terms.campaigns
    verdicts = classify(events, identities)
    new = [fact for (_, fact), verdict in zip(events, verdicts, strict=True) if verdict is Verdict.APPLIED]
    working = WorkingSet(orders=orders)
    if not new:
        return verdicts, working
    reach("after-claim")
    needs = _wallet_needs(new, orders)
    limited, counted = _limits_in_play(new, orders, campaigns)
    working.wallets, working.usage = lock_wallets(connection, needs, limited, counted, wait=patient)
    put_off = {order_id for order_id, wallet in needs.of_orders.items() if wallet not in working.wallets}
    if len(put_off) * 2 > len(needs.of_orders):
        connection.execute("ROLLBACK")
        return _decide(session, connection, events, patient=True)
    for position, (event, fact) in enumerate(events):
        if fact.data.order_id in put_off:
            verdicts[position] = Verdict.PUT_OFF
        elif verdicts[position] is Verdict.APPLIED:
            working.writes.facts.append((fact, event))
            if not take_effect(working, campaigns, fact):
                verdicts[position] = Verdict.WAITING
    return verdicts, working


def classify(events: Iterable[tuple[Event, Fact]], stored: Identities) -> list[Verdict]:
    """SPEC 2, Identity: new, duplicate or conflict, against the ledger and against the batch's earlier events.

    A conflict on either identity wins over a duplicate on the other; a duplicate's own event id is not remembered.
    """
    verdicts = []
    for event, fact in events:
        event_key, fact_key = (event.source, event.id), (fact.data.order_id, fact.fact)
        known = {digest for digest in (stored.events.get(event_key), stored.facts.get(fact_key)) if digest is not None}
        if not known:
            stored.events[event_key] = stored.facts[fact_key] = event.digest
            verdicts.append(Verdict.APPLIED)
        else:
            verdicts.append(Verdict.DUPLICATE if known == {event.digest} else Verdict.CONFLICT)
    return verdicts


def _wallet_needs(new: list[Fact], orders: dict[str, Order]) -> WalletNeeds:
    """Whose lots are needed: live ones to burn or claw back from, and those that an order's reversal may return to."""
    of_orders = {fact.data.order_id: _wallet_of(fact.data) for fact in new if isinstance(fact.data, OrderPlaced)}
    live: set[WalletKey] = set()
    lots: set[tuple[str, str, int]] = set()
    for fact in new:
        data = fact.data
        order = orders[data.order_id]
        if isinstance(data, OrderPlaced):
            if data.credit_requested or any(isinstance(w.data, OrderRefunded) for w in order.waiting):
                live.add(_wallet_of(data))
            continue
        if order.decision is not None:
            key = of_orders[data.order_id] = (order.decision.customer_id, order.decision.currency)
            lots.update((*key, lot_no) for lot_no, _ in order.decision.credit.burned)
            vested = order.progress.vested if order.progress else ()
            lots.update((*key, entry.lot_no) for entry in vested if entry.lot_no)
        if isinstance(data, OrderRefunded) and data.order_id in of_orders:
            live.add(of_orders[data.order_id])
    return WalletNeeds(sorted(set(of_orders.values())), sorted(live), sorted(lots), of_orders)


def _wallet_of(order: OrderPlaced) -> WalletKey:
    return (order.customer_id, order.currency)


def _limits_in_play(
    new: list[Fact], orders: dict[str, Order], campaigns: CampaignSet
) -> tuple[set[str], set[tuple[str, str]]]:
    """Campaigns to lock for their total or budget, and (campaign, customer) pairs whose redemptions are counted."""
    named: set[str] = set()
    counted: set[tuple[str, str]] = set()
    delivered_in: set[str] = set()
    for fact in new:
        order, data = orders[fact.data.order_id], fact.data
        if isinstance(data, OrderPlaced):
            for code in normal_codes(data.coupons):
                campaign = campaigns.by_code.get(code)
                if campaign is not None and campaign.currency == data.currency:
                    named.add(campaign.id)
                    if campaign.per_customer is not None:
                        counted.add((campaign.id, data.customer_id))
            named.update(c.id for c in campaigns.earning.get(data.currency, ()) if c.holds(data.placed_at))
            delivered_in.add(data.currency)  # a delivery may wait for this placing, in the ledger or in this batch
        elif isinstance(data, DeliveryCompleted) and order.decision is not None:
            delivered_in.add(order.decision.currency)
    late = any(
        isinstance(fact.data, DeliveryCompleted) and fact.data.promised_by is not None
        for order_fact in new
        for fact in (order_fact, *orders[order_fact.data.order_id].waiting)
    )
    if late:
        named.update(c.id for currency in delivered_in for c in campaigns.making_good.get(currency, ()))
    return limited_among(campaigns, named), counted


def _roll_back(session: Session, connection: Connection[Any]) -> None:
    """End the failed transaction; a connection that cannot even do that is closed, and the next use opens another."""
    try:
        connection.rollback()
    except psycopg.Error:
        session.close()
