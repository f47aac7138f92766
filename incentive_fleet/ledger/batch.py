"""The batch: many events, one transaction, a fixed number of round trips. A batch of one is the same code.

Lock, read, classify, decide, write, commit. It never receives or acknowledges anything: consumers/core.py does.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from enum import Enum
from time import perf_counter
from typing import Any, assert_never

import psycopg
from psycopg import Connection

from incentive_fleet.events.codec import Event
from incentive_fleet.events.models import DeliveryCompleted, OrderPlaced, OrderRefunded
from incentive_fleet.failpoints import failpoint
from incentive_fleet.incentives.booking import Posting
from incentive_fleet.incentives.campaigns import CampaignSet
from incentive_fleet.incentives.decision import Decision
from incentive_fleet.incentives.placing import normal_codes
from incentive_fleet.ledger.connection import mapped_errors, retry_contention
from incentive_fleet.ledger.effect import take_effect
from incentive_fleet.ledger.locking import (
    BEGIN_BATCH,
    Identities,
    WalletNeeds,
    limited_among,
    lock_orders,
    lock_wallets,
)
from incentive_fleet.ledger.session import Session
from incentive_fleet.ledger.working_set import Order, WalletKey, WorkingSet
from incentive_fleet.ledger.writing import batch_changes, write
from incentive_fleet.measuring import Tally

EVENTS_MAX = 5_000  # of one batch; the settings' bound
NO_CAMPAIGN = "none"  # of a refusal: no campaign has that code
FEW = 64  # events that are written in one round trip; beyond, what COPY saves outweighs its waiting (benchmarks/PROFILE.md)


class Identity(Enum):
    """What an event's identities say of it before anything is decided (rules 2.3)."""

    NEW = "new"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"


class Verdict(Enum):
    """What became of one event of a batch."""

    APPLIED = "applied"
    WAITING = "waiting"  # stored; takes effect when its order's placing comes
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"
    DEFERRED = "deferred"  # nothing became of it: another transaction holds its customer's wallet


@dataclass(frozen=True, slots=True)
class BatchResult:
    """A verdict an event, in the order given, and the transfers that the batch booked (or, rehearsed, would book)."""

    verdicts: list[Verdict]
    postings: list[Posting]


def apply_events(
    session: Session, events: Sequence[Event], *, rehearse: bool = False, skip_locked: bool = False
) -> BatchResult:
    """Apply events in the order given, exactly once in effect, in one transaction; with `rehearse` it is rolled back.

    Where another transaction holds a wallet, all waits for it; with `skip_locked` that wallet's orders are DEFERRED instead,
    whole, and to be given again, as long as they are the smaller part.

    Idempotent: what was applied before is a DUPLICATE. Deadlocks, serialization failures and identities that another
    transaction took meanwhile are retried here, bounded and with jitter. Raises DatabaseContention or
    DatabaseUnavailable when that did not help (a retry later does) and whatever a bug raises; nothing is applied then.
    """
    if not 1 <= len(events) <= EVENTS_MAX:
        raise ValueError(f"a batch has 1 to {EVENTS_MAX} events, not {len(events)}")
    with mapped_errors():
        return retry_contention(session.tally)(_attempt, session, events, rehearse, skip_locked)


def _attempt(session: Session, events: Sequence[Event], rehearse: bool, skip_locked: bool) -> BatchResult:
    connection = session.connection
    try:
        verdicts, working = _lock_and_decide(session, connection, events, skip_locked)
        few, began = len(events) <= FEW, perf_counter()
        with connection.pipeline() if few else nullcontext():  # whose statements are answered with the last one
            write(connection, batch_changes(working), by_copy=not few)
            failpoint("before-commit")
            began = session.tally.phase("write", began)
            connection.execute("ROLLBACK" if rehearse else "COMMIT")
        session.tally.phase("commit", began)
        failpoint("after-commit")
    except BaseException:
        _roll_back(session, connection)
        raise
    if not rehearse:
        _tell(session.tally, working.writes.decisions.values())
    return BatchResult(verdicts, working.writes.postings)


def rehearse_apart(session: Session, stages: Sequence[Sequence[Event]], campaigns: CampaignSet) -> None:
    """Decide and write made-up events by terms of their own, one stage after the other in one transaction, and roll it back.

    The stages write as small batches and as large ones do, and what a COMMIT would still check is checked. Whatever fails is
    raised, mapped like the errors of `apply_events`; nothing stands then either. Numbers of identity columns are used up.
    """
    connection = session.connection
    with mapped_errors():
        try:
            begin: tuple[str, ...] = (*BEGIN_BATCH, "SAVEPOINT stage")  # its rows count as another transaction's then
            for number, events in enumerate(stages):
                _, working = _lock_and_decide(session, connection, events, False, begin, campaigns)
                with nullcontext() if number == 0 else connection.pipeline():
                    write(connection, batch_changes(working), by_copy=number == 0)
                begin = ("RELEASE SAVEPOINT stage", "SAVEPOINT stage")
            connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
        finally:
            _roll_back(session, connection)


def _lock_and_decide(
    session: Session,
    connection: Connection[Any],
    events: Sequence[Event],
    skip_locked: bool,
    begin: Sequence[str] = BEGIN_BATCH,
    campaigns: CampaignSet | None = None,
) -> tuple[list[Verdict], WorkingSet]:
    began = perf_counter()
    session.terms, stored, orders = lock_orders(connection, session.terms, events, begin)
    campaigns = campaigns or session.terms.campaigns
    identities = classify(events, stored)
    new = [event for event, identity in zip(events, identities, strict=True) if identity is Identity.NEW]
    working, deferred = WorkingSet(orders=orders), set[str]()
    if new:
        failpoint("after-claim")
        needs = _wallet_needs(new, orders)
        limited, counted = _limits_in_play(new, orders, campaigns)
        working.wallets, working.usage = lock_wallets(connection, needs, limited, counted, skip_locked=skip_locked)
        deferred = {order_id for order_id, wallet in needs.of_orders.items() if wallet not in working.wallets}
        if len(deferred) * 2 > len(needs.of_orders):
            connection.execute("ROLLBACK")
            return _lock_and_decide(session, connection, events, skip_locked=False)
    began = session.tally.phase("lock", began)
    verdicts = decide(events, identities, working, campaigns, deferred)
    session.tally.phase("decide", began)
    return verdicts, working


def _tell(tally: Tally, decisions: Iterable[Decision]) -> None:
    """Count what placings that are committed brought, by campaign."""
    for decision in decisions:
        for coupon in decision.coupons:
            tally.add("incentives_redemptions_total", coupon.campaign_id)
        for refusal in decision.refusals:
            tally.add("incentives_refusals_total", refusal.campaign_id or NO_CAMPAIGN, refusal.reason.value)


def decide(
    events: Sequence[Event],
    identities: Sequence[Identity],
    working: WorkingSet,
    campaigns: CampaignSet,
    deferred: Collection[str] = (),
) -> list[Verdict]:
    """Let each new event take effect on the working set, in the order given; whole orders are deferred. No I/O."""
    verdicts: list[Verdict] = []
    for event, identity in zip(events, identities, strict=True):
        if event.order_id in deferred:
            verdicts.append(Verdict.DEFERRED)
            continue
        match identity:
            case Identity.NEW:
                applied = take_effect(working, campaigns, event)
                verdicts.append(Verdict.APPLIED if applied else Verdict.WAITING)
            case Identity.DUPLICATE:
                verdicts.append(Verdict.DUPLICATE)
            case Identity.CONFLICT:
                verdicts.append(Verdict.CONFLICT)
            case _:
                assert_never(identity)
    return verdicts


def classify(events: Iterable[Event], stored: Identities) -> list[Identity]:
    """rules 2.3: new, duplicate or conflict, against the ledger and against the batch's earlier events.

    A conflict on either identity wins over a duplicate on the other; a duplicate's own event id is not remembered.
    """
    by_event, by_fact = dict(stored.events), dict(stored.facts)
    identities: list[Identity] = []
    for event in events:
        event_key, fact_key = (event.source, event.id), (event.order_id, event.fact)
        known = {by_event.get(event_key), by_fact.get(fact_key)} - {None}
        if not known:
            by_event[event_key] = by_fact[fact_key] = event.digest
            identities.append(Identity.NEW)
        else:
            identities.append(Identity.DUPLICATE if known == {event.digest} else Identity.CONFLICT)
    return identities


def _wallet_needs(new: list[Event], orders: dict[str, Order]) -> WalletNeeds:
    """Whose lots are needed: live ones to burn or claw back from, and those that an order's reversal may return to."""
    of_orders = {event.order_id: _wallet_of(event.data) for event in new if isinstance(event.data, OrderPlaced)}
    live: set[WalletKey] = set()
    lots: set[tuple[str, str, int]] = set()
    for event in new:
        data, order = event.data, orders[event.order_id]
        if isinstance(data, OrderPlaced):
            if data.credit_requested or any(isinstance(early.data, OrderRefunded) for early in order.waiting):
                live.add(_wallet_of(data))
            continue
        if order.decision is not None:
            key = of_orders[event.order_id] = (order.decision.customer_id, order.decision.currency)
            lots.update((*key, burned.lot_no) for burned in order.decision.credit.burned)
            vested = order.totals.vested if order.totals else ()
            lots.update((*key, entry.lot_no) for entry in vested if entry.lot_no)
        if isinstance(data, OrderRefunded) and event.order_id in of_orders:
            live.add(of_orders[event.order_id])
    return WalletNeeds(sorted(set(of_orders.values())), sorted(live), sorted(lots), of_orders)


def _wallet_of(order: OrderPlaced) -> WalletKey:
    return (order.customer_id, order.currency)


def _limits_in_play(
    new: list[Event], orders: dict[str, Order], campaigns: CampaignSet
) -> tuple[set[str], set[tuple[str, str]]]:
    """Campaigns to lock for their total or budget, and (campaign, customer) pairs whose redemptions are counted."""
    named: set[str] = set()
    counted: set[tuple[str, str]] = set()
    delivered_in: set[str] = set()
    for event in new:
        order, data = orders[event.order_id], event.data
        match data:
            case OrderPlaced():
                for code in normal_codes(data.coupons):
                    campaign = campaigns.by_code.get(code)
                    if campaign is not None and campaign.currency == data.currency:
                        named.add(campaign.id)
                        if campaign.per_customer is not None:
                            counted.add((campaign.id, data.customer_id))
                named.update(c.id for c in campaigns.earning.get(data.currency, ()) if c.holds(data.placed_at))
                delivered_in.add(data.currency)  # a delivery may wait for this placing, in the ledger or in this batch
            case DeliveryCompleted():
                if order.decision is not None:
                    delivered_in.add(order.decision.currency)
            case OrderRefunded():
                pass  # a refund only gives back
            case _:
                assert_never(data)
    if any(_may_be_late(one) for event in new for one in (event, *orders[event.order_id].waiting)):
        named.update(c.id for currency in delivered_in for c in campaigns.making_good.get(currency, ()))
    return limited_among(campaigns, named), counted


def _may_be_late(event: Event) -> bool:
    return isinstance(event.data, DeliveryCompleted) and event.data.promised_by is not None


def _roll_back(session: Session, connection: Connection[Any]) -> None:
    """End the failed transaction; a connection that cannot even do that is closed, and the next use opens another."""
    try:
        connection.rollback()
    except psycopg.Error:
        session.close()
