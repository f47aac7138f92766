"""What a campaign's reward comes to on a basket (rules 5 and 9): rates, amounts, tiers, buy so many and get, a set for a price.

Pure arithmetic on the lines that it covers. It knows no limit but those of the reward itself, and shares nothing out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from incentive_fleet.incentives.money import FULL_RATE_BPS, half_up


@dataclass(frozen=True, slots=True)
class Tier:
    """From this gross of the eligible lines on: an amount, or a rate of their payable."""

    min_subtotal: int
    rate_bps: int | None = None
    amount: int | None = None


@dataclass(frozen=True, slots=True)
class BuyGet:
    """Of every `buy` + `get` units the `get` cheapest of all are reduced by the rate."""

    buy: int
    get: int
    rate_bps: int = FULL_RATE_BPS
    max_sets: int | None = None


@dataclass(frozen=True, slots=True)
class SetPrice:
    """Every `units` units, dearest first, together for `price`."""

    units: int
    price: int
    max_sets: int | None = None


@dataclass(frozen=True, slots=True)
class Units:
    """So many units at one price above 0."""

    price: int
    count: int


def value_of(rate_bps: int | None, amount: int | None, base: int) -> int:
    """The amount, or the rate of `base` rounded half up."""
    return amount if amount is not None else half_up(base * (rate_bps or 0), FULL_RATE_BPS)


def tier_reached(tiers: Sequence[Tier], gross: int) -> int | None:
    """The position of the highest tier whose min_subtotal the gross reaches; None below the lowest."""
    reached = None
    for position, tier in enumerate(tiers):
        if gross >= tier.min_subtotal:
            reached = position
    return reached


def buy_get_value(terms: BuyGet, units: Sequence[Units]) -> int:
    """The reduction of the cheapest units of all sets, rounded once."""
    sets = sum(one.count for one in units) // (terms.buy + terms.get)
    left = (sets if terms.max_sets is None else min(sets, terms.max_sets)) * terms.get
    prices = 0
    for one in sorted(units, key=lambda one: one.price):
        taken = min(left, one.count)
        prices += taken * one.price
        left -= taken
    return half_up(prices * terms.rate_bps, FULL_RATE_BPS)


def set_price_value(terms: SetPrice, units: Sequence[Units]) -> int:
    """What each set, by itself, costs more than its price. As many steps as there are lines, however many units."""
    sets_left = sum(one.count for one in units) // terms.units
    if terms.max_sets is not None:
        sets_left = min(sets_left, terms.max_sets)
    value = started = started_price = 0
    for one in sorted(units, key=lambda one: -one.price):
        count = one.count
        if started and sets_left:  # a set that dearer units began
            taken = min(count, terms.units - started)
            started, started_price, count = started + taken, started_price + taken * one.price, count - taken
            if started == terms.units:
                value += max(0, started_price - terms.price)
                sets_left, started, started_price = sets_left - 1, 0, 0
        whole = min(sets_left, count // terms.units)
        value += whole * max(0, terms.units * one.price - terms.price)
        sets_left, count = sets_left - whole, count - whole * terms.units
        if sets_left and not started:
            started, started_price = count, count * one.price
    return value
