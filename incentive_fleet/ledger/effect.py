"""The effect of one new fact on the working set: which rules apply, and what is to be written. No I/O here."""

from __future__ import annotations

from pydantic_core import to_json

from incentive_fleet.events.models import DeliveryCompleted, OrderPlaced, OrderRefunded
from incentive_fleet.events.outcomes import OUTCOME_SOURCE, outcome_id
from incentive_fleet.incentives import outcomes
from incentive_fleet.incentives.campaigns import CampaignSet
from incentive_fleet.incentives.delivery import settle
from incentive_fleet.incentives.placing import place
from incentive_fleet.incentives.posting import Cause
from incentive_fleet.incentives.progress import Anomaly, Progress, note_delivery, note_refund
from incentive_fleet.incentives.reversal import reverse
from incentive_fleet.ledger.working_set import Fact, Order, OutcomeRow, WorkingSet

APPLIED, REVERSED, REISSUED = "incentives-applied.v1", "incentives-reversed.v1", "incentives-reissued.v1"


def take_effect(working: WorkingSet, campaigns: CampaignSet, fact: Fact) -> bool:
    """Apply a fact that is new; returns False when it has to wait for its order's placing."""
    order_id = fact.data.order_id
    order = working.orders[order_id]
    if isinstance(fact.data, OrderPlaced):
        _place(working, campaigns, order, fact, fact.data)
        if order.waiting:
            _take_in(working, campaigns, order, order_id)
        return True
    if order.decision is None:
        order.waiting.append(fact)
        working.writes.waiting.add((order_id, fact.fact))
        return False
    _undo(working, campaigns, order, fact)
    return True


def _take_in(working: WorkingSet, campaigns: CampaignSet, order: Order, order_id: str) -> None:
    """What waited for the placing takes effect after it."""
    early, order.waiting = sorted(order.waiting, key=_waiting_order), []
    for waited in early:
        _undo(working, campaigns, order, waited)
        key = (order_id, waited.fact)
        if key in working.writes.waiting:
            working.writes.waiting.discard(key)
        else:
            working.writes.waited.add(key)


def _waiting_order(fact: Fact) -> tuple[object, bool, str]:
    """SPEC 2: by event time, ties with the delivery first, then by refund_id."""
    return (fact.happened_at, isinstance(fact.data, OrderRefunded), fact.fact)


def _place(working: WorkingSet, campaigns: CampaignSet, order: Order, fact: Fact, data: OrderPlaced) -> None:
    writes = working.writes
    wallet = working.wallets[(data.customer_id, data.currency)]
    cause = Cause(fact.fact, fact.happened_at, data.order_id)
    decision = place(data, cause, campaigns, wallet, working.usage, writes.postings)
    order.decision = decision
    writes.decisions[data.order_id] = decision
    for coupon in decision.coupons:
        writes.redemptions.append(
            (coupon.campaign_id, data.customer_id, data.order_id, coupon.discount, fact.happened_at)
        )
    _publish(working, order, fact, APPLIED, 1, outcomes.applied(decision, wallet))


def _undo(working: WorkingSet, campaigns: CampaignSet, order: Order, fact: Fact) -> None:
    """A refund or a delivery of a placed order: reverse, and for a delivery settle."""
    decision, writes = order.decision, working.writes
    assert decision is not None
    if order.progress is None:
        order.progress = Progress.fresh(len(decision.line_ids))
        order.progress.outcomes = 1  # the placing's
    progress = order.progress
    order.changed = True
    wallet = working.wallets[(decision.customer_id, decision.currency)]
    order_id = fact.data.order_id
    cause = Cause(fact.fact, fact.happened_at, order_id)
    before = progress.reversed_value(decision.gross)
    anomalies: list[Anomaly]
    if isinstance(fact.data, DeliveryCompleted):
        anomalies = note_delivery(progress, decision, fact.data)
    else:
        assert isinstance(fact.data, OrderRefunded)
        anomalies = note_refund(progress, decision, fact.data, fact.fact)
    reversal = reverse(decision, progress, before, cause, wallet, working.usage, writes.postings)
    progress.outcomes += 1
    if isinstance(fact.data, DeliveryCompleted):
        settlement = settle(fact.data, decision, progress, cause, campaigns, wallet, working.usage, writes.postings)
        data = outcomes.reissued(reversal, settlement, anomalies, wallet)
        _publish(working, order, fact, REISSUED, progress.outcomes, data)
    else:
        data = outcomes.reversed_(reversal, anomalies, wallet)
        _publish(working, order, fact, REVERSED, progress.outcomes, data)
    for campaign_id in reversal.released:
        writes.released.append((campaign_id, decision.customer_id, order_id, fact.happened_at))
    for anomaly in anomalies:
        writes.anomalies.add((order_id, anomaly.reason, anomaly.subject))


def _publish(working: WorkingSet, order: Order, fact: Fact, kind: str, sequence: int, data: outcomes.Data) -> None:
    """Put the outcome into the outbox. Its id is derived from its cause, so that receivers can drop repeats (SPEC 10)."""
    decision = order.decision
    assert decision is not None
    order_id = fact.data.order_id
    refund_id = fact.data.refund_id if isinstance(fact.data, OrderRefunded) else ""
    event = {
        "specversion": "1.0",
        "id": outcome_id(kind, order_id, refund_id),
        "source": OUTCOME_SOURCE,
        "type": kind,
        "time": fact.happened_at.isoformat().replace("+00:00", "Z"),
        "subject": order_id,
        "datacontenttype": "application/json",
        "data": {
            "order_id": order_id,
            "customer_id": decision.customer_id,
            "currency": decision.currency,
            "sequence": sequence,
            "cause": {"source": fact.source, "id": fact.event_id, "type": fact.type},
        }
        | data,
    }
    if fact.traceparent is not None:
        event["traceparent"] = fact.traceparent
    working.writes.outcomes.append(OutcomeRow(order_id, fact.fact, sequence, kind, to_json(event).decode()))
