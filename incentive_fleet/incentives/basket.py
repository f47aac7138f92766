"""A basket while incentives are applied to it: what is still to pay for each line, what a campaign is worth on it (rules 5, 9),
and how an amount is shared over the lines (rules 4.2). It knows no limit but a reward's own, and books nothing.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import NamedTuple

from incentive_fleet.events.models import GOODS, Line
from incentive_fleet.incentives.campaigns import BuyGet, Campaign, CreditTerms, SetPrice, Tier
from incentive_fleet.incentives.money import FULL_RATE_BPS, half_up, value_of


class Reward(NamedTuple):
    """What a campaign gives on a basket: minor units, the lines that it is shared over, and the tier that was reached."""

    amount: int
    lines: list[int]
    tier: int | None = None
    missed: bool = False  # no line is covered, or a minimum is missed


@dataclass(slots=True)
class Basket:
    """The lines as parallel lists, and what is still to pay for each after the incentives so far."""

    lines: Sequence[Line]
    categories: list[str | None]
    gross: list[int]
    payable: list[int]
    every: list[int]  # line's position
    not_goods: list[int]  # positions of the lines of other kinds than `goods`

    @classmethod
    def of(cls, lines: Sequence[Line]) -> Basket:
        """A basket to which nothing was applied yet."""
        gross = [line.quantity * line.unit_price for line in lines]
        not_goods = [position for position, line in enumerate(lines) if line.kind is not None]
        return cls(lines, [line.category for line in lines], gross, gross, list(range(len(gross))), not_goods)

    def worth(self, campaign: Campaign, reached: int | None = None, *, minimum: bool = True) -> Reward:
        """What a coupon takes off, or what is earned, on the lines that the campaign covers, if they meet its `minimum`.

        A tier that was `reached` before stays reached. A coupon takes at most what is still to pay for its lines; an
        earning is not capped by it, but nothing is earned where nothing is to pay.
        """
        lines = self._covered(campaign)
        if not lines or (minimum and self._below_minimum(campaign, lines)):
            return Reward(0, lines, reached, missed=True)
        payable = self.payable_of(lines)
        if payable == 0:
            return Reward(0, lines, reached)
        value, tier = self._reward(campaign, lines, payable, reached)
        if campaign.max_amount is not None and value > campaign.max_amount:
            value = campaign.max_amount
        return Reward(min(value, payable) if campaign.kind == "coupon" else value, lines, tier)

    def payable_by_credit(self, terms: CreditTerms) -> list[int]:
        """The positions of the lines that credit may pay."""
        return self._without(terms.excluded_categories, terms.line_kinds)

    def payable_of(self, lines: list[int]) -> int:
        """What is still to pay for these lines."""
        return sum(self.payable if lines is self.every else [self.payable[line] for line in lines])

    def share(self, total: int, lines: list[int]) -> list[int]:
        """Share `total` over `lines` by payable, as a list over all lines."""
        if lines is self.every:
            return share(total, self.payable)
        parts = [0] * len(self.gross)
        for line, part in zip(lines, share(total, [self.payable[line] for line in lines]), strict=True):
            parts[line] = part
        return parts

    def pay(self, total: int, lines: list[int]) -> list[int]:
        """Take `total` off what is still to pay for `lines`; returns its shares, as a list over all lines."""
        if total == 0:
            return [0] * len(self.gross)
        shares = self.share(total, lines)
        self.payable = [payable - part for payable, part in zip(self.payable, shares, strict=True)]
        return shares

    def _covered(self, campaign: Campaign) -> list[int]:
        """The positions of the lines that the campaign covers."""
        lines, only = self._without(campaign.excluded_categories, campaign.line_kinds), campaign.categories
        return [line for line in lines if self.categories[line] in only] if only else lines

    def _without(self, never: Set[str], kinds: Set[str] | None) -> list[int]:
        """The positions of the lines in none of the categories `never`, of these kinds; None: of all."""
        lines = self.every
        if kinds is not None and self.not_goods:
            lines = [line for line in lines if (self.lines[line].kind or GOODS) in kinds]
        elif kinds is not None and GOODS not in kinds:
            lines = []
        return [line for line in lines if self.categories[line] not in never] if never else lines

    def _below_minimum(self, campaign: Campaign, lines: list[int]) -> bool:
        """Whether the covered lines, or all goods, are worth less than the campaign asks (rules 5.1)."""
        least = campaign.tiers[0].min_subtotal if campaign.tiers else campaign.min_subtotal
        if least and self._gross_of(lines) < least:
            return True
        if not campaign.min_basket:
            return False
        return sum(self.gross) - sum([self.gross[line] for line in self.not_goods]) < campaign.min_basket

    def _reward(
        self, campaign: Campaign, lines: list[int], payable: int, reached: int | None
    ) -> tuple[int, int | None]:
        """The value before any cap, and the tier that it is of."""
        if campaign.tiers:
            now = tier_reached(campaign.tiers, self._gross_of(lines))
            tier = max((one for one in (now, reached) if one is not None), default=None)
            if tier is None:
                return 0, None
            return value_of(campaign.tiers[tier].rate_bps, campaign.tiers[tier].amount, payable), tier
        if campaign.buy_get is not None:
            return buy_get_value(campaign.buy_get, self._units(lines)), None
        if campaign.set_price is not None:
            return set_price_value(campaign.set_price, self._units(lines)), None
        return value_of(campaign.rate_bps, campaign.amount, payable), None

    def _gross_of(self, lines: list[int]) -> int:
        return sum(self.gross if lines is self.every else [self.gross[line] for line in lines])

    def _units(self, lines: list[int]) -> list[Units]:
        chosen = [self.lines[line] for line in lines]
        return [Units(line.unit_price, line.quantity) for line in chosen if line.unit_price]


def share(total: int, weights: Sequence[int]) -> list[int]:
    """Split `total` minor units over the weights by largest remainder, ties to the earlier line (rules 4.2).

    The parts sum to `total`, unless all weights are zero: then every part is zero.
    """
    whole = sum(weights)
    if whole == 0 or total == 0:
        return [0] * len(weights)
    parts = [total * weight // whole for weight in weights]
    left = total - sum(parts)
    if left:
        remainders = [total * weight % whole for weight in weights]
        by_remainder = sorted(range(len(weights)), key=remainders.__getitem__, reverse=True)
        for line in by_remainder[:left]:
            parts[line] += 1
    return parts


@dataclass(frozen=True, slots=True)
class Units:
    """So many units at one price above 0."""

    price: int
    count: int


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
