"""The effect of one new event on the working set: the rules of its type, and what is to be written. No I/O here."""

from __future__ import annotations

from typing import assert_never

from pydantic_core import to_json

from incentive_fleet.events.codec import Event
from incentive_fleet.events.models import DeliveryCompleted, OrderPlaced, OrderRefunded
from incentive_fleet.events.outcomes import OUTCOME_SOURCE, outcome_id
from incentive_fleet.incentives import effects
from incentive_fleet.incentives.booking import Book, Cause
from incentive_fleet.incentives.campaigns import CampaignSet
from incentive_fleet.incentives.decision import Decision
from incentive_fleet.incentives.effects import Effect
from incentive_fleet.incentives.running_totals import RunningTotals
from incentive_fleet.ledger.rows import FactRow, OutcomeRow, RedemptionRow, ReleaseRow
from incentive_fleet.ledger.working_set import Order, WorkingSet


def take_effect(working: WorkingSet, campaigns: CampaignSet, event: Event) -> bool:
    """Apply an event that is new; returns False when it has to wait for its order's placing."""
    order = working.orders[event.order_id]
    working.writes.facts.append(FactRow.of(event))
    match event.data:
        case OrderPlaced() as placing:
            _place(working, campaigns, order, event, placing)
            return True
        case OrderRefunded() | DeliveryCompleted() as later:
            if order.decision is None:
                order.waiting.append(event)
                working.writes.waits(event)
                return False
            _follow(working, campaigns, order.decision, event, later)
            return True
        case _:
            assert_never(event.data)


def _place(working: WorkingSet, campaigns: CampaignSet, order: Order, event: Event, placing: OrderPlaced) -> None:
    """The placing, and after it what waited for it."""
    book = _book(working, event, (placing.customer_id, placing.currency))
    decision, effect = effects.of_placing(placing, campaigns, book)
    order.decision = working.writes.decisions[event.order_id] = decision
    _record(working, event, decision, effect, sequence=1)
    if order.waiting:
        _take_in(working, campaigns, order, decision)


def _take_in(working: WorkingSet, campaigns: CampaignSet, order: Order, decision: Decision) -> None:
    waited, order.waiting = sorted(order.waiting, key=_waiting_order), []
    for early in waited:
        assert not isinstance(early.data, OrderPlaced), "a placing never waits"
        _follow(working, campaigns, decision, early, early.data)
        working.writes.waits_no_longer(early)


def _waiting_order(event: Event) -> tuple[object, bool, str]:
    """rules 2.4: by event time, ties with the delivery first, then by refund_id."""
    return (event.happened_at, isinstance(event.data, OrderRefunded), event.fact)


def _follow(
    working: WorkingSet,
    campaigns: CampaignSet,
    decision: Decision,
    event: Event,
    data: OrderRefunded | DeliveryCompleted,
) -> None:
    """A fact of a placed order."""
    totals = _totals(working.orders[event.order_id], decision)
    book = _book(working, event, (decision.customer_id, decision.currency))
    match data:
        case OrderRefunded():
            effect = effects.of_refund(data, decision, totals, book)
        case DeliveryCompleted():
            effect = effects.of_delivery(data, decision, totals, campaigns, book)
        case _:
            assert_never(data)
    totals.outcomes += 1
    _record(working, event, decision, effect, sequence=totals.outcomes)


def _totals(order: Order, decision: Decision) -> RunningTotals:
    if order.totals is None:
        order.totals = RunningTotals(len(decision.line_ids))
    order.changed = True
    return order.totals


def _book(working: WorkingSet, event: Event, wallet: tuple[str, str]) -> Book:
    cause = Cause(event.fact, event.happened_at, event.order_id)
    return Book(cause, working.wallets[wallet], working.usage, working.writes.postings)


def _record(working: WorkingSet, event: Event, decision: Decision, effect: Effect, *, sequence: int) -> None:
    writes, order_id, customer_id, moment = working.writes, event.order_id, decision.customer_id, event.happened_at
    for coupon in effect.redeemed:
        writes.redemptions.append(RedemptionRow(coupon.campaign_id, customer_id, order_id, coupon.discount, moment))
    for campaign_id in effect.released:
        writes.released.append(ReleaseRow(campaign_id, customer_id, order_id, moment))
    for anomaly in effect.anomalies:
        writes.anomalies.add((order_id, anomaly.reason, anomaly.subject))
    body = _cloud_event(event, decision, effect, sequence)
    writes.outcomes.append(OutcomeRow(order_id, event.fact, sequence, effect.outcome, to_json(body).decode()))


def _cloud_event(event: Event, decision: Decision, effect: Effect, sequence: int) -> dict[str, object]:
    """The outcome as it is published. Its id is derived from its cause, so that receivers can drop repeats (rules 10)."""
    refund_id = event.data.refund_id if isinstance(event.data, OrderRefunded) else ""
    document: dict[str, object] = {
        "specversion": "1.0",
        "id": outcome_id(effect.outcome, event.order_id, refund_id),
        "source": OUTCOME_SOURCE,
        "type": effect.outcome,
        "time": event.happened_at.isoformat().replace("+00:00", "Z"),
        "subject": event.order_id,
        "datacontenttype": "application/json",
        "data": {
            "order_id": event.order_id,
            "customer_id": decision.customer_id,
            "currency": decision.currency,
            "sequence": sequence,
            "cause": {"source": event.source, "id": event.id, "type": event.type},
        }
        | effect.data,
    }
    if event.traceparent is not None:
        document["traceparent"] = event.traceparent
    return document
