"""What a batch's new events will need: wallets and lots, campaigns to lock, and what their coupons ask. No I/O, and no decision."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import assert_never

from incentive_fleet.events.codec import Event
from incentive_fleet.events.facts import NO_ORDER
from incentive_fleet.events.models import (
    CreditGrantRequested,
    DeliveryCompleted,
    EventData,
    OrderCancelled,
    OrderFinalized,
    OrderPlaced,
    OrderRefunded,
)
from incentive_fleet.incentives.campaigns import Campaign, CampaignSet
from incentive_fleet.incentives.decision import CouponShare, EarnShare
from incentive_fleet.incentives.placing import normal_codes
from incentive_fleet.incentives.running_totals import Progress
from incentive_fleet.ledger.conditions import Conditions
from incentive_fleet.ledger.locking import WalletNeeds, limited_among
from incentive_fleet.ledger.terms import Versions
from incentive_fleet.ledger.working_set import Order, Unit, WalletKey


def unit_of(event: Event) -> Unit:
    """What takes effect together with the event: its whole order; of grants those of a key to one wallet."""
    if event.order_id != NO_ORDER:
        return (event.order_id, "")
    assert isinstance(event.data, CreditGrantRequested), "nothing else is of no order"
    return (NO_ORDER, f"{event.fact}\n{event.data.customer_id}\n{event.data.currency}")


def wallet_needs(new: list[Event], orders: dict[str, Order]) -> WalletNeeds:
    """Whose lots are needed: live ones to burn or claw back from, and those that an order's reversal may return to."""
    of_units: dict[Unit, WalletKey] = {}
    for event in new:
        if isinstance(event.data, (OrderPlaced, CreditGrantRequested)):
            of_units[unit_of(event)] = (event.data.customer_id, event.data.currency)
    live: set[WalletKey] = set()
    lots: set[tuple[str, str, int]] = set()
    for event in new:
        unit, order = unit_of(event), orders.get(event.order_id)
        if order is not None and order.progress is not None:
            progress = order.progress
            key = of_units[unit] = (progress.placed.customer_id, progress.placed.currency)
            for burned in progress.placed.credit.burned:
                lots.add((*key, burned.lot_no))
            for entry in progress.totals.vested:
                if entry.lot_no:
                    lots.add((*key, entry.lot_no))
        if unit in of_units and _may_take(event.data, order):
            live.add(of_units[unit])
    return WalletNeeds(sorted(set(of_units.values())), sorted(live), sorted(lots), of_units)


def _may_take(data: EventData, order: Order | None) -> bool:
    """Whether the event, or what it ends the waiting of, may take from any of the customer's lots."""
    match data:
        case OrderPlaced():
            if data.credit_requested:
                return True
        case DeliveryCompleted() | OrderFinalized() | CreditGrantRequested():
            pass
        case OrderRefunded() | OrderCancelled():
            return True
        case _:
            assert_never(data)
    waiting = order.waiting if order is not None else []
    return bool(waiting) and any(isinstance(early.data, (OrderRefunded, OrderCancelled)) for early in waiting)


def versions_needed(new: list[Event], orders: dict[str, Order]) -> Versions:
    """The terms that final baskets will be decided by: those of their placings."""
    campaigns: set[tuple[str, int]] = set()
    credit: set[int] = set()
    for progress in _finalized(new, orders):
        campaigns.update((one.campaign_id, one.version) for one in _shares(progress))
        credit.add(progress.placed.credit.version)
    return campaigns, credit


def _shares(progress: Progress) -> list[CouponShare | EarnShare]:
    return [*progress.placed.coupons, *progress.placed.earned]


def _given(progress: Progress) -> list[str]:
    """The campaigns that gave the order something, and may get some of it back."""
    return [one.campaign_id for one in _shares(progress)]


def _finalized(new: list[Event], orders: dict[str, Order]) -> Iterator[Progress]:
    for event in new:
        progress = orders[event.order_id].progress if isinstance(event.data, OrderFinalized) else None
        if progress is not None and progress.awaits_final:
            yield progress


def codes_of_no_terms(new: list[Event], campaigns: CampaignSet) -> set[str]:
    """Codes that no campaign's terms name: a pool may hold them."""
    placings = [event.data for event in new if isinstance(event.data, OrderPlaced) and event.data.coupons]
    return {code for data in placings for code in normal_codes(data.coupons) if code not in campaigns.by_code}


def conditions(
    new: list[Event], orders: dict[str, Order], campaigns: CampaignSet, pools: dict[str, Campaign]
) -> Conditions:
    """Campaigns to lock for their total or budget, codes to lock, and what else the events' incentives ask."""
    asked, named = Conditions(), set[str]()
    delivered_in: set[str] = set()
    may_be_late = False
    for event in new:
        data, order = event.data, orders.get(event.order_id)
        progress = order.progress if order is not None else None
        match data:
            case OrderPlaced():
                _ask(asked, data, campaigns, pools)
                delivered_in.add(data.currency)  # a delivery may wait for this placing, in the ledger or in this batch
            case DeliveryCompleted():
                may_be_late = may_be_late or data.promised_by is not None
                if progress is not None:
                    delivered_in.add(progress.placed.currency)
                    named.update(_given(progress) if data.undelivered else ())
            case OrderFinalized():
                if progress is not None:
                    delivered_in.add(progress.placed.currency)
                    named.update(_given(progress) if progress.awaits_final else ())
            case CreditGrantRequested():
                named |= {data.campaign_id} & campaigns.by_id.keys()
            case OrderRefunded() | OrderCancelled():
                # Nothing is decided by what it gives back to a budget, but who meets it must know which of the two was first.
                named.update(_given(progress) if progress is not None else ())
            case _:
                assert_never(data)
        if progress is not None:
            asked.codes.update([one.pool_code for one in progress.placed.coupons if one.pool_code is not None])
    if may_be_late or any(_may_be_late(one) for order in orders.values() for one in order.waiting):
        named.update(c.id for currency in delivered_in for c in campaigns.making_good.get(currency, ()))
    asked.limited |= limited_among(campaigns, named)
    asked.orders_max += len(new)  # so many may count no more before the one that asks
    return asked


def ask_for_placings(placings: Iterable[OrderPlaced], campaigns: CampaignSet, pools: dict[str, Campaign]) -> Conditions:
    """What placings ask of which each comes next by itself: none counts for another."""
    asked = Conditions()
    for data in placings:
        _ask(asked, data, campaigns, pools)
    return asked


def _ask(asked: Conditions, data: OrderPlaced, campaigns: CampaignSet, pools: dict[str, Campaign]) -> None:
    if data.credit_requested:
        asked.spenders.add(data.customer_id)
    for code in normal_codes(data.coupons):
        campaign = pools.get(code) or campaigns.by_code.get(code)
        if code in pools:
            asked.codes.add(code)
        if campaign is not None and campaign.currency == data.currency:
            asked.ask(campaign, data.customer_id)
    for campaign in campaigns.automatic.get(data.currency, ()):
        if campaign.holds(data.placed_at):
            asked.ask(campaign, data.customer_id)
    for campaign in campaigns.earning.get(data.currency, ()):
        if campaign.is_limited and campaign.holds(data.placed_at):
            asked.limited.add(campaign.id)


def _may_be_late(event: Event) -> bool:
    return isinstance(event.data, DeliveryCompleted) and event.data.promised_by is not None
