"""The effect of one new event on the working set: the rules of its type, and what is to be written. No I/O here."""

from __future__ import annotations

from enum import StrEnum
from typing import assert_never

from pydantic_core import to_json

from incentive_fleet.events.codec import Event
from incentive_fleet.events.facts import CANCELLING, REFUND
from incentive_fleet.events.models import (
    CreditGrantRequested,
    DeliveryCompleted,
    OrderCancelled,
    OrderFact,
    OrderFinalized,
    OrderPlaced,
    OrderRefunded,
)
from incentive_fleet.events.outcomes import OUTCOME_BYTES_MAX, outcome_id, outgoing
from incentive_fleet.events.times import format_time
from incentive_fleet.incentives import effects
from incentive_fleet.incentives.booking import Book, Cause
from incentive_fleet.incentives.campaigns import CampaignSet
from incentive_fleet.incentives.effects import Effect, Progress
from incentive_fleet.incentives.running_totals import RunningTotals
from incentive_fleet.ledger.conditions import CountingRow
from incentive_fleet.ledger.granting import hand_out
from incentive_fleet.ledger.rows import FactRow, OutcomeRow, RedemptionRow, ReleaseRow
from incentive_fleet.ledger.working_set import Order, WorkingSet


class Became(StrEnum):
    """What became of a new event, or why a grant was refused."""

    IN_EFFECT = "in-effect"
    WAITS = "waits"
    UNKNOWN_CAMPAIGN = "unknown-campaign"
    WRONG_CURRENCY = "wrong-currency"
    BUDGET_EXHAUSTED = "budget-exhausted"


def take_effect(working: WorkingSet, campaigns: CampaignSet, event: Event) -> Became:
    """Apply an event that is new. What it says is not recorded where it is refused."""
    data = event.data
    if isinstance(data, CreditGrantRequested):
        refusal = hand_out(working, campaigns, event, data)
        if refusal is not None:
            return Became(refusal)
        working.writes.facts.append(FactRow.of(event))
        return Became.IN_EFFECT
    order = working.orders[event.order_id]
    working.writes.facts.append(FactRow.of(event))
    if isinstance(data, OrderPlaced):
        order.progress = _place(working, campaigns, event, data)
    elif order.progress is None or must_wait(order.progress, data):
        order.waiting.append(event)
        working.writes.waits(event)
        return Became.WAITS
    else:
        _follow(working, campaigns, order, event, data)
    if order.waiting:
        _take_in(working, campaigns, order, order.progress)
    return Became.IN_EFFECT


def must_wait(progress: Progress, data: OrderFact) -> bool:
    """Whether a fact of a placed order waits for its final basket (rules 2.4)."""
    match data:
        case DeliveryCompleted():
            return progress.awaits_final
        case OrderRefunded():
            return progress.awaits_final and data.lines is not None
        case OrderPlaced() | OrderFinalized() | OrderCancelled():
            return False
        case _:
            assert_never(data)


def _place(working: WorkingSet, campaigns: CampaignSet, event: Event, placing: OrderPlaced) -> Progress:
    book = _book(working, event, (placing.customer_id, placing.currency))
    decision, effect = effects.of_placing(placing, campaigns, book)
    working.writes.decisions[event.order_id] = decision
    progress = Progress(decision, RunningTotals(len(decision.line_ids)))
    if effect.counts:
        _count(working, progress, 1)
    for coupon in decision.coupons:
        if coupon.pool_code is not None:
            working.writes.codes[coupon.pool_code] = event.order_id
    _record(working, event, progress, effect)
    return progress


def _take_in(working: WorkingSet, campaigns: CampaignSet, order: Order, progress: Progress) -> None:
    """What waited and has to wait no longer: the final basket first, for what waits for it comes free with it."""
    for final in [event for event in order.waiting if isinstance(event.data, OrderFinalized)]:
        _take_in_one(working, campaigns, order, final)
    ready = [event for event in order.waiting if not must_wait(progress, _of_order(event))]
    for event in sorted(ready, key=_waiting_order):
        _take_in_one(working, campaigns, order, event)


def _take_in_one(working: WorkingSet, campaigns: CampaignSet, order: Order, event: Event) -> None:
    order.waiting.remove(event)
    _follow(working, campaigns, order, event, _of_order(event))
    working.writes.waits_no_longer(event)


def _of_order(event: Event) -> OrderFact:
    assert not isinstance(event.data, CreditGrantRequested), "a grant never waits"
    return event.data


def _waiting_order(event: Event) -> tuple[object, int, str]:
    """rules 2.4: by event time, ties with the delivery first, then the cancelling, then refunds by refund_id."""
    rank = 2 if event.fact.startswith(REFUND) else 1 if event.fact == CANCELLING else 0
    return (event.happened_at, rank, event.fact)


def _follow(working: WorkingSet, campaigns: CampaignSet, order: Order, event: Event, data: OrderFact) -> None:
    """A fact of a placed order."""
    progress = order.progress
    assert progress is not None, "what comes before its placing waits"
    book = _book(working, event, (progress.placed.customer_id, progress.placed.currency))
    match data:
        case DeliveryCompleted():
            effect = effects.of_delivery(data, progress, campaigns, book)
        case OrderRefunded() | OrderCancelled():
            effect = effects.of_refund(data, progress, book)
        case OrderFinalized():
            if progress.awaits_final:
                effect = effects.of_final_basket(data, progress, campaigns, book)
                assert progress.final is not None
                working.writes.final_baskets[event.order_id] = progress.final
            else:
                effect = effects.of_unexpected_final(progress, book)
        case OrderPlaced():
            raise AssertionError("an order is placed once")
        case _:
            assert_never(data)
    order.changed = True
    progress.totals.outcomes += 1
    if effect.counts != effect.counted:
        _count(working, progress, 1 if effect.counts else -1)
        placed = progress.placed
        row = CountingRow(event.order_id, placed.customer_id, placed.currency, effect.counts)
        working.writes.counting[event.order_id] = row
    _record(working, event, progress, effect)


def _count(working: WorkingSet, progress: Progress, more: int) -> None:
    counting, key = working.usage.counting, (progress.placed.customer_id, progress.placed.currency)
    counting[key] = counting.get(key, 0) + more


def _book(working: WorkingSet, event: Event, wallet: tuple[str, str]) -> Book:
    cause = Cause(event.fact, event.happened_at, event.order_id)
    return Book(cause, working.wallets[wallet], working.usage, working.writes.postings)


def _record(working: WorkingSet, event: Event, progress: Progress, effect: Effect) -> None:
    writes, order_id, moment = working.writes, event.order_id, event.happened_at
    customer_id = progress.placed.customer_id
    for coupon in effect.redeemed:
        writes.redemptions.append(RedemptionRow(coupon.campaign_id, customer_id, order_id, coupon.discount, moment))
    for campaign_id in effect.released:
        writes.released.append(ReleaseRow(campaign_id, customer_id, order_id, moment))
        codes = [one.pool_code for one in progress.placed.coupons if one.campaign_id == campaign_id]
        writes.codes.update(dict.fromkeys(code for code in codes if code is not None))
    for anomaly in effect.anomalies:
        writes.anomalies.add((order_id, anomaly.reason, anomaly.subject))
    sequence = progress.totals.outcomes
    body = _cloud_event(event, progress, effect, sequence)
    writes.outcomes.append(OutcomeRow(order_id, event.fact, sequence, effect.outcome, body))


def _cloud_event(event: Event, progress: Progress, effect: Effect, sequence: int) -> str:
    """The outcome as it is published. Its id is derived from its cause, so that receivers can drop repeats (rules 10)."""
    data: dict[str, object] = {
        "order_id": event.order_id,
        "customer_id": progress.placed.customer_id,
        "currency": progress.placed.currency,
        "sequence": sequence,
        "cause": {"source": event.source, "id": event.id, "type": event.type, "fact": event.fact},
        **effect.data,
    }
    id = outcome_id(effect.outcome, event.order_id, event.fact)
    document = outgoing(effect.outcome, id, format_time(event.happened_at), event.order_id, data, event.traceparent)
    body = to_json(document)
    if len(body) > OUTCOME_BYTES_MAX:
        document["data"] = data | {"lines": None}
        body = to_json(document)
    return body.decode()
