"""Quote requests as a checkout makes them, and what a placing was given beside what a quote had said. No server of its own."""

from __future__ import annotations

import json
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from typing import Any

from incentive_fleet.errors import Malformed
from incentive_fleet.events.codec import Event, decode, decode_quote
from incentive_fleet.events.models import OrderPlaced, QuoteRequested
from incentive_fleet.ledger.batch import apply_events
from incentive_fleet.ledger.quoting import quotes
from incentive_fleet.ledger.session import Session
from tests.domain import NOON, line, text

GIVEN = ("coupons", "credit", "earned", "lines")
OUTCOMES = "SELECT order_id, body FROM outbox WHERE fact = 'placing' AND order_id = ANY(%s)"


def request_body(quote_id: str = "q1", *, source: str = "/checkout", **changed: Any) -> bytes:
    """A request of ann's for one line, but for what is changed; None takes a member out."""
    data = {
        "quote_id": quote_id,
        "customer_id": "ann",
        "currency": "EUR",
        "at": text(NOON),
        "lines": [line()],
        **changed,
    }
    data = {name: value for name, value in data.items() if value is not None}
    head = {
        "specversion": "1.0",
        "id": f"request-{quote_id}",
        "source": source,
        "type": "incentives-quote-requested.v1",
    }
    return json.dumps(head | {"subject": quote_id, "time": text(NOON), "data": data}).encode()


def asks_for(placing: OrderPlaced) -> QuoteRequested:
    """The question that a checkout would have asked before it sent the placing, read as one that came."""
    data = json.loads(placing.model_dump_json(exclude_none=True, exclude={"order_id", "placed_at", "estimated"}))
    body = request_body(placing.order_id, **data, at=text(placing.placed_at))
    return decode_quote(body)[0]


def as_quoted(session: Session, batch: list[Event]) -> Iterator[tuple[str, Any, Any]]:
    """Quote a batch's placings together, apply the batch, and tell of each that took effect what was quoted and given.

    None of the batch may change what another of it is given.
    """
    placings = [event.data for event in batch if isinstance(event.data, OrderPlaced)]
    quoted = quotes(session, [asks_for(placing) for placing in placings]) if placings else []
    seen = {row[0] for row in session.connection.execute(OUTCOMES, ([p.order_id for p in placings],)).fetchall()}
    apply_events(session, batch)
    rows = session.connection.execute(OUTCOMES, ([p.order_id for p in placings],)).fetchall()
    given = {order: json.loads(body)["data"] for order, body in rows if order not in seen}
    for placing, quote in zip(placings, quoted, strict=True):
        if placing.order_id in given:
            yield placing.order_id, _of(quote), _of(given[placing.order_id])


def _of(data: dict[str, Any]) -> dict[str, Any]:
    return {name: data[name] for name in GIVEN}


def in_rounds(bodies: Iterable[bytes], currencies: dict[str, str]) -> Iterator[list[Event]]:
    """Events of many worlds, one a currency, in rounds of one of each: within a world they keep their order."""
    worlds: defaultdict[str, deque[Event]] = defaultdict(deque)
    for body in bodies:
        try:
            event = decode(body)
        except Malformed:  # it takes no effect
            continue
        currency = getattr(event.data, "currency", None) or currencies.get(event.order_id, "")
        if isinstance(event.data, OrderPlaced):
            currencies[event.order_id] = currency
        worlds[currency].append(event)
    while worlds:
        yield [queue.popleft() for queue in worlds.values()]
        worlds = defaultdict(deque, {name: queue for name, queue in worlds.items() if queue})
