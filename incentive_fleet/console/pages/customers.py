"""A customer: what is there now and how it came to that, by currency; each transfer back to its event.

A customer's name comes in the body of a form and is never part of an address (handles.py).
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from incentive_fleet.console.pages.charts import Chart, chart
from incentive_fleet.console.pages.handles import seal, unseal
from incentive_fleet.console.pages.shell import Fields, asked, away, form, number_of, page, text_of
from incentive_fleet.console.premises import premises_of, visitor_of
from incentive_fleet.console.visitors import Work
from incentive_fleet.ledger.snapshot import snapshot
from incentive_fleet.ledger.statement_pages import NEWEST, StatementLine, statement_pages
from incentive_fleet.ledger.wallet_statement import wallet_heads, wallet_lots

ROWS: Final = 25  # transfers of one page
CHARTED: Final = 1_000  # transfers that a chart goes back
NAME_MAX: Final = 200


def routes() -> list[Route]:
    """Of these pages."""
    return [
        Route("/customers", ask),
        Route("/customers/find", form(Work.READ, find), methods=["POST"]),
        Route("/customers/{handle}", show),
    ]


def ask(request: Request) -> Response:
    """Which customer?"""
    visitor_of(request).require(Work.READ)
    return page(request, "customers.html", {"missing": None})


def find(request: Request, fields: Fields) -> Response:
    """To the customer that the form names."""
    customer = text_of(fields, "customer", most=NAME_MAX, needed=True, exact=True)
    return away(f"/customers/{seal(premises_of(request).settings, 'customer', customer)}")


def show(request: Request) -> Response:
    """Everything of one customer; of one currency older transfers, where the address says below which."""
    visitor, handle = visitor_of(request), request.path_params["handle"]
    visitor.require(Work.READ)
    customer = unseal(premises_of(request).settings, "customer", handle)
    below = number_of(request.query_params.get("below", ""), "below")
    only, every = asked(request, "currency") or None, "lots" in request.query_params
    with premises_of(request).connections.to(Work.READ, visitor) as connection, snapshot(connection):
        heads = [
            head for head in wallet_heads(connection, [customer])[customer] if only is None or head.currency == only
        ]
        lots = wallet_lots(connection, [customer], all_lots=every)
        keys = [(customer, head.currency) for head in heads]
        pages = statement_pages(connection, keys, below=below or NEWEST, limit=CHARTED)
    if not heads:
        return page(request, "customers.html", {"missing": customer}, status_code=404)
    wallets = [
        {
            "head": head,
            "lots": lots.get(key, []),
            "lines": pages[key][:ROWS],
            "following": pages[key][ROWS - 1].transfer_id if len(pages[key]) > ROWS else None,
            "chart": _balances(pages[key]),
            "since": pages[key][-1].booked_at if pages[key] else None,
        }
        for head, key in zip(heads, keys, strict=True)
    ]
    shown: dict[str, Any] = {"customer": customer, "wallets": wallets, "below": below, "every": every}
    return page(request, "customer.html", {**shown, "address": f"/customers/{handle}"})


def _balances(lines: list[StatementLine]) -> Chart | None:
    """What could be spent, by the time of booking; lines come newest first."""
    points = [(datetime.fromisoformat(line.booked_at).timestamp(), float(line.balance_after)) for line in lines[::-1]]
    return chart(points, steps=True)
