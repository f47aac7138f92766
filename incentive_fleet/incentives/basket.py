"""A basket while incentives are applied to it: its lines as parallel lists, and what is still to pay for each. It books nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from incentive_fleet.events.models import GOODS, Line
from incentive_fleet.incentives.campaigns import Campaign, CreditTerms
from incentive_fleet.incentives.money import share
from incentive_fleet.incentives.rewards import Units, buy_get_value, set_price_value, tier_reached, value_of


class Reward(NamedTuple):
    """What a campaign gives on a basket: minor units, the lines that it is shared over, and the tier that was reached."""

    amount: int
    lines: list[int]
    tier: int | None = None
    missed: bool = False  # a minimum that is asked for again


@dataclass(slots=True)
class Basket:
    """The lines as parallel lists, and what is still to pay for each after the incentives so far."""

    lines: Sequence[Line]
    gross: list[int]
    payable: list[int]
    every: list[int]  # line's position
    all_goods: bool

    @classmethod
    def of(cls, lines: Sequence[Line]) -> Basket:
        """A basket to which nothing was applied yet."""
        gross = [line.quantity * line.unit_price for line in lines]
        return cls(lines, gross, gross, list(range(len(gross))), {line.kind for line in lines} <= {None})

    @property
    def goods_gross(self) -> int:
        """The gross of the lines of kind `goods`."""
        if self.all_goods:
            return sum(self.gross)
        return sum([gross for line, gross in zip(self.lines, self.gross, strict=True) if line.kind is None])

    def eligible(self, campaign: Campaign) -> list[int]:
        """The positions of the lines that the campaign covers."""
        kinds, only, never = campaign.line_kinds, campaign.categories, campaign.excluded_categories
        if self.all_goods and not only and not never:
            return self.every if GOODS in kinds else []
        return [
            position
            for position, line in enumerate(self.lines)
            if (line.kind or GOODS) in kinds and line.category not in never and (not only or line.category in only)
        ]

    def payable_by_credit(self, terms: CreditTerms) -> list[int]:
        """The positions of the lines that credit may pay."""
        kinds, never = terms.line_kinds, terms.excluded_categories
        if kinds is None and not never:
            return self.every
        return [
            position
            for position, line in enumerate(self.lines)
            if (kinds is None or (line.kind or GOODS) in kinds) and line.category not in never
        ]

    def misses_minimum(self, campaign: Campaign, lines: list[int]) -> bool:
        """Whether no line is eligible, or a minimum of the campaign is missed (rules 5.1)."""
        if not lines:
            return True
        least = campaign.tiers[0].min_subtotal if campaign.tiers else campaign.min_subtotal
        if least and self._gross_of(lines) < least:
            return True
        return bool(campaign.min_basket) and self.goods_gross < campaign.min_basket

    def reward(self, campaign: Campaign, lines: list[int], reached: int | None = None) -> Reward:
        """The campaign's reward on these lines, at most its max_amount; a tier that was `reached` before stays reached."""
        tier = None
        if campaign.tiers:
            now = tier_reached(campaign.tiers, self._gross_of(lines))
            tier = max((one for one in (now, reached) if one is not None), default=None)
            if tier is None:
                return Reward(0, lines)
            one = campaign.tiers[tier]
            value = value_of(one.rate_bps, one.amount, self.payable_of(lines))
        elif campaign.buy_get is not None:
            value = buy_get_value(campaign.buy_get, self._units(lines))
        elif campaign.set_price is not None:
            value = set_price_value(campaign.set_price, self._units(lines))
        else:
            value = value_of(campaign.rate_bps, campaign.amount, self.payable_of(lines))
        if campaign.max_amount is not None and value > campaign.max_amount:
            value = campaign.max_amount
        return Reward(value, lines, tier)

    def discount(self, campaign: Campaign, lines: list[int], reached: int | None = None) -> Reward:
        """What a coupon gives: its reward, at most what is still to pay for its lines."""
        reward = self.reward(campaign, lines, reached)
        payable = self.payable_of(lines)
        return reward if reward.amount <= payable else Reward(payable, lines, reward.tier)

    def earning(self, campaign: Campaign, lines: list[int], reached: int | None = None) -> Reward:
        """What is earned: the reward, which what is to pay does not cap; nothing where nothing is to pay."""
        return self.reward(campaign, lines, reached) if self.payable_of(lines) else Reward(0, lines)

    def not_goods(self) -> list[int]:
        """The positions of the lines of other kinds than `goods`."""
        return [] if self.all_goods else [number for number, line in enumerate(self.lines) if line.kind is not None]

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

    def _gross_of(self, lines: list[int]) -> int:
        return sum(self.gross if lines is self.every else [self.gross[line] for line in lines])

    def _units(self, lines: list[int]) -> list[Units]:
        chosen = [self.lines[line] for line in lines]
        return [Units(line.unit_price, line.quantity) for line in chosen if line.unit_price]
