"""A made-up grocery: campaigns, grants and the events of its orders, the same for the same seed.

For the demo, the fault runs and the benchmarks. No limit or budget of its campaigns binds, so every order of arrival, any
repetition and any broker must end in the same balances. Nothing here reads a clock or the global randomness.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from incentive_fleet.embedded import sample_groceries

CURRENCY = "EUR"
SOURCE = "/shops/sample-grocery"
OPENING = datetime(2026, 3, 2, 8, tzinfo=UTC)
GOODS = [  # sku, category, unit price in cents
    ("tomatoes-1kg", "produce", 349),
    ("bananas-1kg", "produce", 199),
    ("sourdough", "bakery", 425),
    ("croissant", "bakery", 135),
    ("milk-1l", "dairy", 129),
    ("comte-200g", "dairy", 589),
    ("peas-frozen", "frozen", 279),
    ("salmon-300g", "fish", 1199),
    ("olive-oil", "pantry", 899),
    ("dish-soap", "household", 245),
    ("delivery", "shipping", 490),
]

CAMPAIGNS = """
[[campaign]]
id = "welcome"
kind = "coupon"
code = "WELCOME10"
currency = "EUR"
starts_at = 2026-01-01T00:00:00Z
ends_at = 2027-01-01T00:00:00Z
rate_bps = 1000
max_amount = 1000
min_subtotal = 1500
excluded_categories = ["shipping"]
stacking = "stackable"

[[campaign]]
id = "fresh"
kind = "coupon"
code = "FRESH5"
currency = "EUR"
starts_at = 2026-01-01T00:00:00Z
ends_at = 2027-01-01T00:00:00Z
rate_bps = 500
categories = ["produce", "bakery", "dairy", "fish"]
stacking = "stackable"

[[campaign]]
id = "cashback"
kind = "earn"
currency = "EUR"
starts_at = 2026-01-01T00:00:00Z
ends_at = 2027-01-01T00:00:00Z
rate_bps = 200
excluded_categories = ["shipping"]
valid_days = 365

[[campaign]]
id = "late-delivery"
kind = "make_good"
currency = "EUR"
starts_at = 2026-01-01T00:00:00Z
ends_at = 2027-01-01T00:00:00Z
amount = 300
grace_minutes = 30
valid_days = 90

[[campaign]]
id = "hello"
kind = "grant"
currency = "EUR"
starts_at = 2026-01-01T00:00:00Z
ends_at = 2027-01-01T00:00:00Z
"""


@dataclass(frozen=True, slots=True)
class Shop:
    """How the sample behaves; shares are of all orders."""

    orders: int
    seed: int = 1
    customers: int = 0  # 0: one for every four orders
    lines: tuple[int, int] = (1, 10)
    coupons: float = 1 / 3
    credit: float = 1 / 3
    refunds: float = 0.10
    deliveries: float = 0.95
    groceries: float = 0.0  # estimated, and settled by a final basket or a cancelling
    name: str = "s"  # the ids' beginning, so that several samples can share a ledger

    @property
    def customer_count(self) -> int:
        return self.customers or max(1, self.orders // 4)


def campaigns(shop: Shop) -> str:
    """The campaign file under which the shop's orders have all that they ask for."""
    return CAMPAIGNS + sample_groceries.CAMPAIGNS if shop.groceries else CAMPAIGNS


def codes(shop: Shop) -> Iterator[tuple[str, str]]:
    """(campaign_id, code): the pooled codes that the shop handed out."""
    for number in range(0, shop.orders if shop.groceries else 0, sample_groceries.WITH_CODE):
        yield "neighbours", sample_groceries.code_of(shop.name, number)


def grants(shop: Shop) -> Iterator[tuple[str, str, str, int, str]]:
    """(key, customer_id, currency, amount, campaign_id): an ample opening balance a customer."""
    for number in range(shop.customer_count):
        yield f"hello-{_customer(shop, number)}", _customer(shop, number), CURRENCY, 5_000_000, "hello"


def events(shop: Shop) -> Iterator[tuple[str, bytes]]:
    """(type, CloudEvent) in the order of their times, as a real shop would publish them."""
    pending: list[tuple[datetime, int, str, dict[str, Any]]] = []
    chance = random.Random(shop.seed)
    for number in range(shop.orders):
        placed_at = OPENING + timedelta(seconds=37 * number)
        pending.sort(key=lambda entry: entry[:2])
        while pending and pending[0][0] <= placed_at:
            at, _, kind, data = pending.pop(0)
            yield kind, _event(kind, data, at)
        placed, later = _story(shop, chance, number, placed_at)
        yield "order-placed.v1", _event("order-placed.v1", placed, placed_at)
        pending += [(at, number, kind, data) for at, kind, data in later]
    for at, _, kind, data in sorted(pending, key=lambda entry: entry[:2]):
        yield kind, _event(kind, data, at)


def poison(shop: Shop) -> list[tuple[str, str | None, bytes]]:
    """(reason it must be refused for, type attribute, body): messages that belong into the dead letters."""
    placed_at = OPENING
    good = _order(shop, random.Random(shop.seed + 1), 0, placed_at)
    odd = dict(good, order_id=f"{shop.name}-odd", currency="XXX")
    negative = dict(good, order_id=f"{shop.name}-neg", credit_requested=-1)
    other = dict(good, customer_id="somebody-else")
    placed = "order-placed.v1"
    more = _grocery_poison(shop, good) if shop.groceries else []
    return [
        ("not-json", placed, b'{"specversion": "1.0", "id": '),
        ("unknown-type", "order-archived.v1", _event("order-archived.v1", good, placed_at)),
        ("unknown-currency", placed, _event(placed, odd, placed_at)),
        ("out-of-bounds", placed, _event(placed, negative, placed_at)),
        ("conflict", placed, _event(placed, other, placed_at)),
        *more,
    ]


def _grocery_poison(shop: Shop, good: dict[str, Any]) -> list[tuple[str, str | None, bytes]]:
    final, granted = "order-finalized.v1", "credit-grant-requested.v1"
    picked_at = OPENING + timedelta(hours=1)
    at = _text(picked_at)
    line = dict(good["lines"][0], kind="voucher")
    odd = {"order_id": f"{shop.name}-odd-kind", "finalized_at": at, "lines": [line]}
    gift = {"grant_key": f"{shop.name}-gift", "customer_id": good["customer_id"], "currency": CURRENCY, "amount": 500}
    gift |= {"campaign_id": "no-such-campaign", "requested_at": at}
    return [
        ("unknown-line-kind", final, _event(final, odd, picked_at)),
        ("grant-refused:unknown-campaign", granted, _event(granted, gift, picked_at)),
    ]


def _story(
    shop: Shop, chance: random.Random, number: int, placed_at: datetime
) -> tuple[dict[str, Any], list[sample_groceries.Fact]]:
    """An order and all that happens to it."""
    placed = _order(shop, chance, number, placed_at)
    later = list(_later(shop, chance, placed, placed_at))
    own = random.Random(f"{shop.seed}-{number}")  # so that the other orders are the same whichever are groceries
    if own.random() >= shop.groceries:
        return placed, later
    life = sample_groceries.live(placed, placed_at, number, shop.name, own)
    afterwards = _later(shop, own, life.placed | {"lines": life.basket}, placed_at) if life.basket else ()
    return life.placed, [*life.facts, *afterwards]


def _order(shop: Shop, chance: random.Random, number: int, placed_at: datetime) -> dict[str, Any]:
    goods = chance.sample(GOODS, min(chance.randint(*shop.lines), len(GOODS)))
    data: dict[str, Any] = {
        "order_id": f"{shop.name}-{number:06}",
        "customer_id": _customer(shop, chance.randrange(shop.customer_count)),
        "currency": CURRENCY,
        "placed_at": _text(placed_at),
        "lines": [
            {
                "line_id": str(line),
                "sku": sku,
                "category": category,
                "quantity": chance.randint(1, 5),
                "unit_price": price,
            }
            for line, (sku, category, price) in enumerate(goods, start=1)
        ],
    }
    if chance.random() < shop.coupons:
        data["coupons"] = chance.choice([["WELCOME10"], ["FRESH5"], ["WELCOME10", "fresh5"], ["FRESH5", "NOSUCHCODE"]])
    if chance.random() < shop.credit:
        data["credit_requested"] = chance.choice([200, 500, 1_000, 100_000])
    return data


def _later(
    shop: Shop, chance: random.Random, placed: dict[str, Any], placed_at: datetime
) -> Iterator[tuple[datetime, str, dict[str, Any]]]:
    """What happens to the order afterwards: a delivery, perhaps late or incomplete, and perhaps a refund."""
    order_id = placed["order_id"]
    if chance.random() < shop.deliveries:
        promised_by = placed_at + timedelta(hours=4)
        delivered_at = placed_at + timedelta(minutes=chance.randint(60, 330))
        data = {
            "delivery_id": f"d-{order_id}",
            "order_id": order_id,
            "delivered_at": _text(delivered_at),
            "promised_by": _text(promised_by),
        }
        if chance.random() < 0.05:
            line = chance.choice(placed["lines"])
            data["undelivered"] = [{"line_id": line["line_id"], "quantity": chance.randint(1, line["quantity"])}]
        yield delivered_at, "delivery-completed.v1", data
    if chance.random() < shop.refunds:
        refunded_at = placed_at + timedelta(minutes=chance.randint(5, 600))
        data = {
            "refund_id": f"r-{order_id}",
            "order_id": order_id,
            "currency": CURRENCY,
            "refunded_at": _text(refunded_at),
        }
        if chance.random() < 0.8:
            line = chance.choice(placed["lines"])
            data["lines"] = [{"line_id": line["line_id"], "quantity": chance.randint(1, line["quantity"])}]
        yield refunded_at, "order-refunded.v1", data


def _event(kind: str, data: dict[str, Any], at: datetime) -> bytes:
    subject = data.get("order_id") or data["grant_key"]
    event = {
        "specversion": "1.0",
        "id": f"{kind}-{subject}-{data.get('refund_id', '')}{data.get('customer_id', '')}",
        "source": SOURCE,
        "type": kind,
        "time": _text(at),
        "subject": subject,
        "datacontenttype": "application/json",
        "data": data,
    }
    return json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode()


def _customer(shop: Shop, number: int) -> str:
    return f"{shop.name}-customer-{number:05}"


def _text(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")
