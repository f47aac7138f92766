"""How the sample shop's groceries live: estimated and weighed, substituted and added to, cancelled; their offers and codes.

It makes the baskets and what becomes of them before the delivery; the shop does the rest. No offer here has a limit or a
budget, and a code is asked for by one order alone, so that any order of arrival ends alike. Never reads a clock or the global
randomness.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

Data = dict[str, Any]
Fact = tuple[datetime, str, Data]

WITH_CODE: Final = 4  # every so many-eth order has a code of its own
CAMPAIGNS: Final = """
[[campaign]]
id = "basket"
kind = "coupon"
code = "BASKET"
currency = "EUR"
starts_at = 2026-01-01T00:00:00Z
ends_at = 2027-01-01T00:00:00Z
tiers = [{ min_subtotal = 2000, amount = 200 }, { min_subtotal = 6000, rate_bps = 500 }]
stacking = "stackable"

[[campaign]]
id = "buns"
kind = "coupon"
auto = true
currency = "EUR"
starts_at = 2026-01-01T00:00:00Z
ends_at = 2027-01-01T00:00:00Z
buy_get = { buy = 2, get = 1 }
categories = ["buns"]
stacking = "stackable"

[[campaign]]
id = "two-milks"
kind = "coupon"
auto = true
currency = "EUR"
starts_at = 2026-01-01T00:00:00Z
ends_at = 2027-01-01T00:00:00Z
set_price = { units = 2, price = 220 }
categories = ["milk"]
stacking = "stackable"

[[campaign]]
id = "neighbours"
kind = "coupon"
codes = "pool"
currency = "EUR"
starts_at = 2026-01-01T00:00:00Z
ends_at = 2027-01-01T00:00:00Z
amount = 300
min_basket = 1500
recheck_minimum = true
stacking = "stackable"

[[campaign]]
id = "care"
kind = "grant"
currency = "EUR"
starts_at = 2026-01-01T00:00:00Z
ends_at = 2027-01-01T00:00:00Z

[credit]
line_kinds = ["goods", "fee"]
"""


@dataclass(frozen=True, slots=True)
class Life:
    """An order from its placing to the shop's door."""

    placed: Data
    facts: list[Fact]  # a final basket, a cancelling, credit for the trouble
    basket: list[Data]  # the lines that can be delivered and given back: none of a cancelled order


def code_of(name: str, number: int) -> str:
    """The code that is this order's alone, of those that have one."""
    return f"{name}-N{number:06}".upper()


def live(placed: Data, placed_at: datetime, number: int, name: str, chance: random.Random) -> Life:
    """The same order, of a grocery: with its articles, and what becomes of them until they are picked."""
    placed = _ordered(placed, number, name, chance)
    order_id, picked_at = placed["order_id"], placed_at + timedelta(minutes=chance.randint(20, 55))
    picked = list(_picked(placed["lines"], chance))
    fate = chance.random()
    facts: list[Fact] = []
    if fate > 0.03:
        final = {"order_id": order_id, "finalized_at": _text(picked_at), "lines": picked}
        facts.append((picked_at, "order-finalized.v1", final))
    if 0.02 < fate < 0.08:  # some of them before they were picked, most when somebody had walked the aisles for nothing
        cancelled_at = placed_at + timedelta(minutes=chance.randint(10, 59))
        data = {"order_id": order_id, "cancelled_at": _text(cancelled_at), "reason": "nobody will be at home"}
        facts.append((cancelled_at, "order-cancelled.v1", data))
        picked = []
    if chance.random() < 0.05:
        asked_at = placed_at + timedelta(hours=9)
        facts.append((asked_at, "credit-grant-requested.v1", _grant(placed, asked_at)))
    return Life(placed, facts, picked)


def _ordered(placed: Data, number: int, name: str, chance: random.Random) -> Data:
    lines = [dict(line, kind="fee") if line["sku"] == "delivery" else line for line in placed["lines"]]
    lines.append(_line("chicken", "chicken-whole", "meat", 1, 1150))
    lines.append(_line("milk", "milk-organic-1l", "milk", chance.randint(1, 4), 129))
    if chance.random() < 0.5:
        lines.append(_line("buns", "bun", "buns", chance.randint(2, 6), 80))
    lines.append(_line("bag", "bag-deposit", None, 1, 25, "deposit"))
    if chance.random() < 0.4:
        lines.append(_line("tip", "tip", None, 1, 200, "tip"))
    coupons = list(placed.get("coupons", ()))
    if chance.random() < 0.4:
        coupons.append("BASKET")
    if number % WITH_CODE == 0:
        coupons.append(code_of(name, number))
    return placed | {"lines": lines, "estimated": True} | ({"coupons": coupons} if coupons else {})


def _picked(lines: list[Data], chance: random.Random) -> Iterator[Data]:
    """The basket as it was picked: weighed, short of something, one article for another, and one more."""
    for line in lines:
        if line["line_id"] == "chicken":
            yield line | {"unit_price": chance.randint(890, 1420)}
        elif line["line_id"] == "milk" and chance.random() < 0.4:
            yield line | {"line_id": "oat-milk", "sku": "oat-milk-1l", "unit_price": 149}
        elif line["line_id"] == "bag":
            yield line | {"quantity": chance.randint(1, 3)}
        elif line.get("kind", "goods") != "goods" or (luck := chance.random()) > 0.15:
            yield line
        elif luck > 0.06 and line["quantity"] > 1:
            yield line | {"quantity": chance.randint(1, line["quantity"] - 1)}
    if chance.random() < 0.25:
        yield _line("added", "basil-pot", "produce", chance.randint(1, 2), 229)


def _line(
    line_id: str, sku: str, category: str | None, quantity: int, unit_price: int, kind: str | None = None
) -> Data:
    known = {"line_id": line_id, "sku": sku, "quantity": quantity, "unit_price": unit_price}
    return known | {name: text for name, text in (("category", category), ("kind", kind)) if text is not None}


def _grant(placed: Data, asked_at: datetime) -> Data:
    """Credit for the trouble, that the order system asks for."""
    return {
        "grant_key": f"care-{placed['order_id']}",
        "customer_id": placed["customer_id"],
        "currency": placed["currency"],
        "amount": 250,
        "campaign_id": "care",
        "requested_at": _text(asked_at),
        "reason": "a crushed box",
    }


def _text(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")
