"""An order: its life as a timeline, what each line got of each incentive, refusals in sentences, outcomes, anomalies.

An order's number comes in the body of a form and is never part of an address (handles.py).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from incentive_fleet.console.pages.handles import seal, unseal
from incentive_fleet.console.pages.shell import Fields, away, form, page, text_of
from incentive_fleet.console.premises import premises_of, visitor_of
from incentive_fleet.console.visitors import Work
from incentive_fleet.incentives.anomalies import MEANINGS as ANOMALIES
from incentive_fleet.ledger.order_history import OrderHistory, Row, order_history
from incentive_fleet.ledger.statement_pages import transfer_meaning

NAME_MAX: Final = 200
TITLES: Final = {
    "placing": "Placed",
    "final-basket": "Final basket",
    "delivery": "Delivered",
    "cancelling": "Cancelled",
}
REFUND: Final = "refund:"
# Of transfers that are no wallet's, which the statement therefore has no words for.
COUPONS: Final = {"coupon": "discount given by a coupon", "coupon_reversal": "discount of a coupon taken back"}


@dataclass(slots=True)
class Step:
    """Something that happened to the order, with what it booked and told."""

    title: str
    happened_at: str
    fact: Row | None = None
    transfers: list[Row] = field(default_factory=list)
    outcomes: list[Row] = field(default_factory=list)


def routes() -> list[Route]:
    """Of these pages."""
    return [
        Route("/orders", ask),
        Route("/orders/find", form(Work.READ, find), methods=["POST"]),
        Route("/orders/{handle}", show),
    ]


def ask(request: Request) -> Response:
    """Which order?"""
    visitor_of(request).require(Work.READ)
    return page(request, "orders.html", {"missing": None})


def find(request: Request, fields: Fields) -> Response:
    """To the order that the form names."""
    order = text_of(fields, "order", most=NAME_MAX, needed=True, exact=True)
    return away(f"/orders/{seal(premises_of(request).settings, 'order', order)}")


def show(request: Request) -> Response:
    """Everything of one order."""
    visitor = visitor_of(request)
    visitor.require(Work.READ)
    order = unseal(premises_of(request).settings, "order", request.path_params["handle"])
    with premises_of(request).connections.to(Work.READ, visitor) as connection:
        history = order_history(connection, order)
    if history is None:
        return page(request, "orders.html", {"missing": order}, status_code=404)
    shown = {"order": history, "steps": timeline(history), "anomaly_means": ANOMALIES, "counts": _counts(history)}
    return page(request, "order.html", shown)


def timeline(history: OrderHistory) -> list[Step]:
    """What happened, oldest first by its own time; what was booked stands with the fact behind it."""
    steps = {fact["fact"]: Step(_title(fact["fact"]), fact["happened_at"], fact) for fact in history.facts}
    for transfer in history.transfers:
        cause = transfer["cause"]
        step = steps.setdefault(cause, Step(_title(cause), transfer["happened_at"]))
        step.transfers.append(transfer | {"meaning": _meaning(transfer, history.order_id)})
    for outcome in history.outcomes:
        step = steps.setdefault(outcome["fact"], Step(_title(outcome["fact"]), outcome["created_at"]))
        step.outcomes.append(outcome | {"told": _indented(outcome["body"])})
    return sorted(steps.values(), key=lambda step: step.happened_at)


def _title(fact: str) -> str:
    if fact.startswith(REFUND):
        return f"Refund {fact.removeprefix(REFUND)}"
    return TITLES.get(fact, fact)


def _meaning(transfer: Row, order_id: str) -> str:
    kind = transfer["kind"]
    return COUPONS[kind] if kind in COUPONS else transfer_meaning(kind, order_id, transfer["lot_no"], transfer["cause"])


def _indented(body: Any) -> str:
    document = json.loads(body) if isinstance(body, str | bytes) else body
    return json.dumps(document, ensure_ascii=False, indent=2)


def _counts(history: OrderHistory) -> list[Row]:
    """Per line of what counts now: its value, the share of each incentive that it bore, and what came back."""
    decision = history.final_basket or history.decision
    if decision is None:
        return []
    gone = {line["line_id"]: line["reversed_value"] for line in (history.progress or {}).get("lines", [])}
    return [
        {
            "line_id": line["line_id"],
            "unit_price": line["unit_price"],
            "gross": line["gross"],
            "discount": sum(_share(coupon["shares"], place) for coupon in decision["coupons"]),
            "credit": _share(decision["credit"]["shares"], place),
            "earned": sum(_share(earn["shares"], place) for earn in decision["earned"]),
            "reversed": gone.get(line["line_id"], 0),
        }
        for place, line in enumerate(decision["lines"])
    ]


def _share(shares: list[int], place: int) -> int:
    return shares[place] if place < len(shares) else 0
