"""Bad messages with the reason each must be refused for. Every one differs from every other, so that each is counted."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from incentive_fleet.embedded import sample_shop

PLACED, FINALIZED = "order-placed.v1", "order-finalized.v1"
CANCELLED, GRANTED = "order-cancelled.v1", "credit-grant-requested.v1"


_ODD_LINE = {"line_id": "of another basket", "sku": "odd", "quantity": 1, "unit_price": 1}


@dataclass(frozen=True, slots=True)
class Poison:
    """A body, the type that it is routed by (None: without one), and the reason code of its dead letter."""

    reason: str
    type: str | None
    body: bytes

    @property
    def is_text(self) -> bool:
        """SNS and SQS carry nothing but UTF-8 without most control characters."""
        try:
            return self.body.decode().isprintable()
        except UnicodeDecodeError:
            return False


def _event(number: int, **data: Any) -> dict[str, Any]:
    _, body = next(sample_shop.events(sample_shop.Shop(1, seed=number, name=f"bad-{number}")))
    event: dict[str, Any] = json.loads(body)
    event["data"] |= data
    return event


def _final(number: int, **line: Any) -> bytes:
    event = _event(number)
    lines = [event["data"]["lines"][0] | line]
    data = {"order_id": event["subject"], "finalized_at": event["time"], "lines": lines}
    return _text(event | {"type": FINALIZED, "data": data})


def _cancelled(number: int) -> bytes:
    event = _event(number)
    return _text(event | {"type": CANCELLED, "data": {"order_id": event["subject"], "cancelled_at": "today"}})


def _granted(number: int) -> bytes:
    """Of a campaign that there is not: well-formed, and refused each time."""
    event, key = _event(number), f"bad-{number}"
    data = {"grant_key": key, "customer_id": "c", "currency": "EUR", "amount": 1, "campaign_id": "none"}
    return _text(event | {"type": GRANTED, "subject": key, "data": data | {"requested_at": event["time"]}})


def _text(event: dict[str, Any]) -> bytes:
    return json.dumps(event, ensure_ascii=False).encode()


def _cut_short(number: int) -> bytes:
    return _text(_event(number))[:-2]


def _twice(number: int) -> bytes:
    return _text(_event(number))[:-1] + b', "id": "again"}'


def _deep(number: int) -> bytes:
    return _text(_event(number))[:-1] + b', "deep": ' + b"[" * 5_000 + b"]" * 5_000 + b"}"


def _typed(type_: str) -> Callable[[int], bytes]:
    return lambda number: _text(_event(number) | {"type": type_})


MAKERS: list[tuple[str, str | None, Callable[[int], bytes]]] = [
    ("not-json", PLACED, _cut_short),
    ("not-json", None, lambda number: f"hello {number}".encode()),
    ("not-utf8", PLACED, lambda number: _text(_event(number)) + b"\xff"),
    ("repeated-name", PLACED, _twice),
    ("too-deep", PLACED, _deep),
    ("not-finite", PLACED, lambda number: _text(_event(number, credit_requested=float("nan")))),
    ("out-of-bounds", PLACED, lambda number: _text(_event(number, credit_requested=-1))),
    ("out-of-bounds", PLACED, lambda number: _text(_event(number, credit_requested=10**30))),
    ("wrong-type", PLACED, lambda number: _text(_event(number, credit_requested=5.0))),
    ("null-field", PLACED, lambda number: _text(_event(number, coupons=None))),
    ("unknown-currency", PLACED, lambda number: _text(_event(number, currency="XXX"))),
    ("control-character", PLACED, lambda number: _text(_event(number, customer_id="nul\x00nul"))),
    ("unknown-type", "order-archived.v1", _typed("order-archived.v1")),
    ("unknown-type-version", "order-placed.v2", _typed("order-placed.v2")),
    ("unknown-line-kind", FINALIZED, lambda number: _final(number, kind="voucher")),
    ("wrong-type", FINALIZED, lambda number: _final(number, quantity=1.0)),
    ("invalid-time", CANCELLED, _cancelled),
    ("grant-refused:unknown-campaign", GRANTED, _granted),
    ("subject-mismatch", PLACED, lambda number: _text(_event(number) | {"subject": "another"})),
]


def lasting(chance: random.Random, count: int) -> list[Poison]:
    """So many bad messages whose badness does not depend on what came before them."""
    return [
        Poison(reason, type_, make(number))
        for number, (reason, type_, make) in ((number, MAKERS[number % len(MAKERS)]) for number in range(count))
    ]


def conflicts_with(fact: bytes, chance: random.Random) -> Poison:
    """Other content for a placing or a final basket: under the same event id, or under one of its own."""
    event = json.loads(fact)
    event["data"] |= {"customer_id": "somebody-else"} if event["type"] == PLACED else {"lines": [_ODD_LINE]}
    if chance.random() < 0.5:
        event["id"] += "-again"
    return Poison("conflict", event["type"], _text(event))
