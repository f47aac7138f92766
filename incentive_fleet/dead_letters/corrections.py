"""What can be done when the second event of a conflict was right: corrections, each a few events or a grant. Pure.

The ledger keeps what it applied. So a correction is what a shop could send by itself: the order cancelled and placed under a new
id, a refund of the difference, a grant. Its events have ids made of the letter's, so that booking it twice is a duplicate.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, assert_never

from incentive_fleet.events.codec import Event
from incentive_fleet.events.models import (
    CreditGrantRequested,
    DeliveryCompleted,
    Line,
    OrderCancelled,
    OrderFinalized,
    OrderPlaced,
    OrderRefunded,
    RefundLine,
)
from incentive_fleet.events.times import format_time

SOURCE: Final = "/incentive-fleet/corrections"
CANCEL_AND_PLACE: Final = "cancel-and-place"
REFUND_DIFFERENCE: Final = "refund-difference"
NEW_EVENT_ID: Final = "new-event-id"
NEW_GRANT_KEY: Final = "new-grant-key"
GRANT_DIFFERENCE: Final = "grant-difference"
NAMES: Final = (CANCEL_AND_PLACE, REFUND_DIFFERENCE, NEW_EVENT_ID, NEW_GRANT_KEY, GRANT_DIFFERENCE)


@dataclass(frozen=True, slots=True)
class Applied:
    """The fact that has the event's identity: what the ledger took for true."""

    fact: str
    order_id: str
    source: str
    event_id: str
    recorded_at: datetime
    data: Mapping[str, Any]  # as it was stored


@dataclass(frozen=True, slots=True)
class Correction:
    """One way to make the second event's word true; `events` are bodies to apply in this order."""

    name: str
    sentence: str
    events: list[bytes] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Impossible:
    """A correction that does not fit, and why."""

    name: str
    why: str


@dataclass(frozen=True, slots=True)
class Correcting:
    """What is known of the conflict."""

    letter_id: int
    event: Event  # the second
    applied: Applied  # the first
    placing: OrderPlaced | None  # of the order, where it is placed
    at: datetime  # of what undoes: when the letter came
    new_order_id: str


def corrections_of(about: Correcting) -> list[Correction | Impossible]:
    """Every correction by events, the one that says most of the second event first."""
    event, applied = about.event, about.applied
    if (applied.order_id, applied.fact) != (event.order_id, event.fact):
        return [_new_event_id(about)]
    match event.data:
        case OrderPlaced():
            return [_cancel_and_place(about, event.data), _refund_of_placing(about, event.data)]
        case OrderFinalized():
            return [_refund_of_final(about, event.data)]
        case OrderCancelled():
            return [Impossible(REFUND_DIFFERENCE, "the order is cancelled either way: no money differs")]
        case CreditGrantRequested():
            return [_new_grant_key(about, event.data)]
        case OrderRefunded():
            return [_refund_more(about, event.data)]
        case DeliveryCompleted():
            return [_undelivered_more(about, event.data)]
        case _:
            assert_never(event.data)


def _new_event_id(about: Correcting) -> Correction:
    event, by = about.event, f"{about.applied.fact} of order {about.applied.order_id}"
    sentence = f"only its id is taken, by {by}: the same event under an id of its own"
    return Correction(NEW_EVENT_ID, sentence, [_body(about, 1, event.type, json.loads(event.canonical))])


def _cancel_and_place(about: Correcting, data: OrderPlaced) -> Correction:
    refund = {
        "refund_id": f"correction-{about.letter_id}",
        "order_id": data.order_id,
        "currency": about.applied.data["currency"],
        "refunded_at": format_time(about.at),
    }
    placing = {**json.loads(about.event.canonical), "order_id": about.new_order_id}
    sentence = (
        f"order {data.order_id} is refunded whole, and what this event says is placed as order {about.new_order_id}"
    )
    bodies = [_body(about, 1, "order-refunded.v1", refund), _body(about, 2, about.event.type, placing)]
    return Correction(CANCEL_AND_PLACE, sentence, bodies)


def _refund_of_placing(about: Correcting, data: OrderPlaced) -> Correction | Impossible:
    """Only where the second basket is a part of the first, for the same customer, currency and incentives."""
    first = OrderPlaced.model_validate(dict(about.applied.data))
    for name in ("customer_id", "currency", "coupons", "credit_requested"):
        if getattr(first, name) != getattr(data, name):
            return Impossible(REFUND_DIFFERENCE, f"{name} differs: no refund says that")
    return _refund_of_basket(about, first.lines, data.lines)


def _refund_of_final(about: Correcting, data: OrderFinalized) -> Correction | Impossible:
    return _refund_of_basket(about, OrderFinalized.model_validate(dict(about.applied.data)).lines, data.lines)


def _refund_of_basket(about: Correcting, first: Sequence[Line], second: Sequence[Line]) -> Correction | Impossible:
    wanted = {line.line_id: _gross(line) for line in second}
    known = {line.line_id: _gross(line) for line in first}
    more = sorted(name for name, gross in wanted.items() if gross > known.get(name, 0))
    if more:
        return Impossible(
            REFUND_DIFFERENCE, f"line {more[0]} is worth more than what was applied: a refund only gives back"
        )
    lines = [
        {"line_id": name, "amount": gross - wanted.get(name, 0)}
        for name, gross in known.items()
        if gross > wanted.get(name, 0)
    ]
    if not lines:
        return Impossible(REFUND_DIFFERENCE, "no line is worth less than what was applied: there is nothing to refund")
    return _refund(about, lines, "what the first basket has beyond this one is refunded")


def _new_grant_key(about: Correcting, data: CreditGrantRequested) -> Correction:
    key = f"correction-{about.letter_id}-of-{data.grant_key}"[:200]
    asked = {**json.loads(about.event.canonical), "grant_key": key}
    sentence = (
        f"the grant that this event asks for under the key {key}; `incentives grant reverse` takes the first one back"
    )
    return Correction(NEW_GRANT_KEY, sentence, [_body(about, 1, about.event.type, asked)])


def _refund_more(about: Correcting, data: OrderRefunded) -> Correction | Impossible:
    first = OrderRefunded.model_validate(dict(about.applied.data))
    if first.lines is None:
        return Impossible(REFUND_DIFFERENCE, "the whole order was refunded: there is nothing more to give back")
    if data.lines is None:
        return _refund(about, None, "what is left of the order is refunded")
    before, after = _claimed(first.lines), _claimed(data.lines)
    more = after - before
    if not more:
        return Impossible(
            REFUND_DIFFERENCE, "this event claims no more than what was applied: a refund is never taken back"
        )
    lines = [{"line_id": line, unit: count, "reason": reason} for (line, unit, reason), count in sorted(more.items())]
    less = before - after
    kept = f"; what it claims less, of line {min(less)[0]}, stays refunded" if less else ""
    return _refund(about, lines, f"what this event claims beyond what was applied is refunded{kept}")


def _undelivered_more(about: Correcting, data: DeliveryCompleted) -> Correction | Impossible:
    """A refund of units as undelivered counts beside the delivery's word as the larger of both, so it is the whole."""
    first = DeliveryCompleted.model_validate(dict(about.applied.data))
    before = Counter[str]()
    after = Counter[str]()
    for of, delivery in ((before, first), (after, data)):
        for line in delivery.undelivered:
            of[line.line_id] += line.quantity
    lines = [
        {"line_id": name, "quantity": count, "reason": "undelivered"}
        for name, count in sorted(after.items())
        if count > before[name]
    ]
    if not lines:
        return Impossible(REFUND_DIFFERENCE, "this event says of no line that more units were not delivered")
    return _refund(about, lines, "units that this event says were not delivered are refunded as undelivered")


def _refund(about: Correcting, lines: list[dict[str, Any]] | None, sentence: str) -> Correction:
    currency = about.placing.currency if about.placing is not None else about.applied.data.get("currency")
    data: dict[str, Any] = {
        "refund_id": f"correction-{about.letter_id}",
        "order_id": about.event.order_id,
        "currency": currency,
        "refunded_at": format_time(about.at),
    }
    if lines is not None:
        data["lines"] = lines
    return Correction(REFUND_DIFFERENCE, sentence, [_body(about, 1, "order-refunded.v1", data)])


def _claimed(lines: Sequence[RefundLine]) -> Counter[tuple[str, str, str]]:
    """How much of which line is claimed, by its unit and reason."""
    claimed = Counter[tuple[str, str, str]]()
    for line in lines:
        if line.quantity is not None:
            claimed[line.line_id, "quantity", line.reason] += line.quantity
        else:
            claimed[line.line_id, "amount", line.reason] += line.amount or 0
    return claimed


def _gross(line: Line) -> int:
    return line.quantity * line.unit_price


def _body(about: Correcting, number: int, type_: str, data: Mapping[str, Any]) -> bytes:
    envelope = {
        "specversion": "1.0",
        "id": f"correction-{about.letter_id}-{number}-of-{about.event.id}"[:200],
        "source": SOURCE,
        "type": type_,
        "time": format_time(about.at),
        "subject": data.get("order_id") or data["grant_key"],
        "data": data,
    }
    return json.dumps(envelope, ensure_ascii=False, separators=(",", ":")).encode()
