"""Figure 5: what contention costs: every event on one budgeted campaign, one customer or one order, against spread-out ones."""

from __future__ import annotations

import dataclasses
import json
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks import contestants
from benchmarks.measuring import Spread
from benchmarks.plots import Line, lines
from benchmarks.reporting import Figure
from benchmarks.rig import Events, Generated, Rig, calm, events_of, generated
from benchmarks.sizes import Sizes
from benchmarks.throughput import drain_checked
from incentive_fleet.embedded.sample_shop import CAMPAIGNS, OPENING, SOURCE

CODE = "WELCOME10"
BUDGETED = CAMPAIGNS.replace('code = "WELCOME10"', 'code = "WELCOME10"\nbudget = 1_000_000_000_000', 1)
TARGET = 0.5


@dataclass(frozen=True, slots=True)
class Case:
    """A stream that is hot in one place."""

    name: str
    stream: Generated
    events: Callable[[Generated], Events]


def cases(events: int) -> list[Case]:
    """Spread out first: what the others are compared with."""
    spread = generated(events, name="h")
    one_customer = Generated(dataclasses.replace(spread.shop, customers=1))
    one_order = Generated(dataclasses.replace(spread.shop, orders=events, customers=1))
    return [
        Case("spread out", spread, events_of),
        Case("one budgeted campaign", Generated(spread.shop, BUDGETED), _with_the_coupon),
        Case("one customer", one_customer, events_of),
        Case("one order", one_order, _one_order),
    ]


def _with_the_coupon(stream: Generated) -> Events:
    """The same stream, each order with the one coupon."""
    changed = []
    for type_, body in events_of(stream):
        event = json.loads(body)
        if type_ == "order-placed.v1":
            event["data"]["coupons"] = [CODE]
        changed.append((type_, _bytes(event)))
    return changed


def _one_order(stream: Generated) -> Events:
    """A placing of as many units as there are events, its delivery, and a refund of a unit at a time."""
    order = next(json.loads(body) for type_, body in events_of(stream) if type_ == "order-placed.v1")
    order["data"] |= {"credit_requested": 1_000, "coupons": [CODE]}
    order["data"]["lines"][0]["quantity"] = stream.shop.orders
    order_id, line_id = order["data"]["order_id"], order["data"]["lines"][0]["line_id"]
    moment = OPENING.isoformat().replace("+00:00", "Z")
    delivery = {"delivery_id": "d", "order_id": order_id, "delivered_at": moment}
    found: Events = [("order-placed.v1", _bytes(order)), _event("delivery-completed.v1", "d", order_id, delivery)]
    for number in range(stream.shop.orders - 2):
        refund = {
            "refund_id": f"r{number}",
            "order_id": order_id,
            "currency": order["data"]["currency"],
            "refunded_at": moment,
            "lines": [{"line_id": line_id, "quantity": 1}],
        }
        found.append(_event("order-refunded.v1", f"r{number}", order_id, refund))
    return found


def _event(type_: str, id: str, order_id: str, data: dict[str, Any]) -> tuple[str, bytes]:
    event = {"specversion": "1.0", "id": f"{type_}-{id}", "source": SOURCE, "type": type_, "subject": order_id}
    moment = OPENING.isoformat().replace("+00:00", "Z")
    return type_, _bytes(event | {"time": moment, "datacontenttype": "application/json", "data": data})


def _bytes(event: dict[str, Any]) -> bytes:
    return json.dumps(event, separators=(",", ":")).encode()


def figure(rig: Rig, sizes: Sizes) -> Figure:
    """Measure and tell."""
    taken: dict[tuple[str, int], list[float]] = defaultdict(list)
    played = cases(sizes.hot_events)
    for case in played:
        backlog = calm(rig, case.stream, case.events(case.stream))
        for _ in range(sizes.hot_rounds):
            for processes in sizes.hot_processes:
                fleet = contestants.fleet(processes)
                run = drain_checked(rig, fleet, backlog)
                taken[(case.name, processes)].append(run.per_second)
                print(f"hot spots   {case.name:22} x{processes}: {run.per_second:,.0f} events/s", flush=True)
    rows = [["events/s, median (least to most)", *(f"{processes} processes" for processes in sizes.hot_processes)]]
    for case in played:
        rows.append([case.name, *(Spread.of(taken[(case.name, n)]).text() for n in sizes.hot_processes)])
    medians = {key: Spread.of(rates).median for key, rates in taken.items()}
    notes = _notes(medians, [case.name for case in played], sizes.hot_processes)
    plotted = [Line(case.name, [(float(n), medians[(case.name, n)]) for n in sizes.hot_processes]) for case in played]
    plot = lines("Hot spots", "processes", "events/s", plotted)
    data = {f"{name} x{processes}": rates for (name, processes), rates in taken.items()}
    return Figure("hot_spots", "Hot spots", rows, notes, plot, data)


def _notes(medians: dict[tuple[str, int], float], names: list[str], processes: tuple[int, ...]) -> list[str]:
    spread, *hot = names
    best = max(medians[(spread, n)] for n in processes)
    notes = []
    for name in hot:
        share = max(medians[(name, n)] for n in processes) / best
        worst = min(medians[(name, n)] / medians[(spread, n)] for n in processes)
        target = f"; target {TARGET}" if name == hot[0] else ""
        notes.append(f"**{name}: {share:.2f} of the spread-out figure** at its best, {worst:.2f} at its worst{target}.")
    return notes
