"""The effect of one new event on the working set: the rules of its type, and what is to be written. No I/O here."""

from __future__ import annotations

from enum import StrEnum
from typing import assert_never

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
from incentive_fleet.incentives.booking import Book, Cause
from incentive_fleet.incentives.campaigns import CampaignSet
from incentive_fleet.incentives.decision import Decision
from incentive_fleet.incentives.delivery import deliver
from incentive_fleet.incentives.final_basket import finalize
from incentive_fleet.incentives.outcomes import Effect, applied, changed
from incentive_fleet.incentives.placing import place
from incentive_fleet.incentives.reversal import reverse
from incentive_fleet.incentives.running_totals import Progress, note_refund
from incentive_fleet.ledger.conditions import CountingRow
from incentive_fleet.ledger.granting import hand_out
from incentive_fleet.ledger.rows import FactRow, RedemptionRow, ReleaseRow, WaitingRow
from incentive_fleet.ledger.telling import outcome_row
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
        working.writes.waiting.add(WaitingRow(event.order_id, event.fact))
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
    usage, writes, customer_id = working.usage, working.writes, placing.customer_id
    book = _book(working, event, (customer_id, placing.currency))
    decision = place(placing, campaigns, book)
    writes.decisions[event.order_id] = decision
    for one in decision.coupons:
        usage.redeem(one.campaign_id, customer_id, one.pool_code, event.order_id)
        row = RedemptionRow(one.campaign_id, customer_id, event.order_id, one.discount, event.happened_at)
        writes.redemptions.append(row)
        if one.pool_code is not None:
            writes.codes[one.pool_code] = event.order_id
    if decision.is_order():
        usage.count(customer_id, placing.currency, 1)
    writes.outcomes.append(outcome_row(event, decision, 1, applied(decision, book.wallet)))
    return Progress(decision)


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
    progress, writes = order.progress, working.writes
    assert progress is not None, "what comes before its placing waits"
    book = _book(working, event, (progress.placed.customer_id, progress.placed.currency))
    match data:
        case DeliveryCompleted():
            effect = deliver(data, progress, campaigns, book)
        case OrderRefunded() | OrderCancelled():
            effect = reverse(progress, note_refund(progress, data, event.fact), book)
        case OrderFinalized():
            effect = finalize(data, progress, campaigns, book)
            if progress.final is not None:
                writes.final_baskets[event.order_id] = progress.final
        case OrderPlaced():
            raise AssertionError("an order is placed once")
        case _:
            assert_never(data)
    order.changed = True
    progress.totals.outcomes += 1
    _record(working, event, progress.placed, effect)
    told = changed(data, progress, effect, book.wallet)
    writes.outcomes.append(outcome_row(event, progress.placed, progress.totals.outcomes, told))


def _book(working: WorkingSet, event: Event, wallet: tuple[str, str]) -> Book:
    cause = Cause(event.fact, event.happened_at, event.order_id)
    return Book(cause, working.wallets[wallet], working.usage, working.writes.postings)


def _record(working: WorkingSet, event: Event, placed: Decision, effect: Effect) -> None:
    """Redemptions that ended, oddities, and whether the order still counts as one."""
    usage, writes, customer_id, order_id = working.usage, working.writes, placed.customer_id, event.order_id
    for coupon in placed.coupons:
        if coupon.campaign_id in effect.released:
            usage.release(coupon.campaign_id, customer_id, coupon.pool_code)
            writes.released.append(ReleaseRow(coupon.campaign_id, customer_id, order_id, event.happened_at))
            if coupon.pool_code is not None:
                writes.codes[coupon.pool_code] = None
    for anomaly in effect.fall.anomalies:
        writes.anomalies.add((order_id, anomaly.reason, anomaly.subject))
    counts = effect.fall.counts
    if counts != effect.fall.counted:
        usage.count(customer_id, placed.currency, 1 if counts else -1)
        writes.counting[order_id] = CountingRow(order_id, customer_id, placed.currency, counts)
