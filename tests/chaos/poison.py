"""Bad messages with the reason each must be refused for. Every one differs from every other, so that each is counted."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from incentive_fleet.embedded import sample_shop

PLACED = "order-placed.v1"


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
    ("subject-mismatch", PLACED, lambda number: _text(_event(number) | {"subject": "another"})),
]


def lasting(chance: random.Random, count: int) -> list[Poison]:
    """So many bad messages whose badness does not depend on what came before them."""
    return [
        Poison(reason, type_, make(number))
        for number, (reason, type_, make) in ((number, MAKERS[number % len(MAKERS)]) for number in range(count))
    ]


def conflicts_with(placing: bytes, chance: random.Random) -> Poison:
    """Other content for an order that was placed: under the same event id, or under one of its own."""
    event = json.loads(placing)
    event["data"]["customer_id"] = "somebody-else"
    if chance.random() < 0.5:
        event["id"] += "-again"
    return Poison("conflict", PLACED, _text(event))
