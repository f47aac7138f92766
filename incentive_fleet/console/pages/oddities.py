"""What waits, and what is odd: facts without their order, and anomalies that a person has to look at and resolve."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from incentive_fleet.console.pages.handles import unseal
from incentive_fleet.console.pages.shell import Fields, away, form, page, text_of
from incentive_fleet.console.premises import premises_of, visitor_of
from incentive_fleet.console.visitors import Work
from incentive_fleet.errors import Refused
from incentive_fleet.incentives.anomalies import MEANINGS
from incentive_fleet.ledger.anomalies import AnomalyKey, list_anomalies, resolve_anomaly
from incentive_fleet.ledger.waiting import list_waiting

ROWS: Final = 50
HOURS_MAX: Final = 876_000


def routes() -> list[Route]:
    """Of these pages."""
    return [
        Route("/waiting", waiting),
        Route("/anomalies", anomalies),
        Route("/anomalies/resolve", form(Work.BOOK, resolve), methods=["POST"]),
    ]


def waiting(request: Request) -> Response:
    """Facts that wait, the longest waiting first."""
    hours = _hours_of(request.query_params.get("hours", ""))
    after = _row_of(request)
    with premises_of(request).connections.to(Work.READ, visitor_of(request)) as connection:
        found = list_waiting(
            connection,
            now=datetime.now(UTC),
            older_than=timedelta(hours=hours),
            limit=ROWS + 1,
            after=None if after is None else (datetime.fromisoformat(after[0]), after[1], after[2]),
        )
    last = found[ROWS - 1] if len(found) > ROWS else None
    following = None if last is None else [last.since, last.order_id, last.fact]
    return page(request, "waiting.html", {"facts": found[:ROWS], "following": following, "hours": hours})


def anomalies(request: Request) -> Response:
    """Open ones, or all; those noticed first, first."""
    every, after = "all" in request.query_params, _row_of(request)
    with premises_of(request).connections.to(Work.READ, visitor_of(request)) as connection:
        found = list_anomalies(
            connection,
            limit=ROWS + 1,
            include_resolved=every,
            after=None if after is None else (datetime.fromisoformat(after[0]), AnomalyKey(*after[1:])),
        )
    last = found[ROWS - 1] if len(found) > ROWS else None
    shown = {
        "anomalies": found[:ROWS],
        "following": None if last is None else [last.noticed_at, last.order_id, last.reason, last.subject],
        "every": every,
        "meanings": MEANINGS,
        "resolved": "resolved" in request.query_params,
    }
    return page(request, "anomalies.html", shown)


def resolve(request: Request, fields: Fields) -> Response:
    """Note who looked, and what came of it."""
    premises, visitor = premises_of(request), visitor_of(request)
    key = unseal(premises.settings, "row", text_of(fields, "anomaly", most=8_000, needed=True))
    note = text_of(fields, "because", needed=True)
    with premises.connections.to(Work.BOOK, visitor) as connection:
        resolve_anomaly(connection, AnomalyKey(*key), visitor.name, note, datetime.now(UTC))
    return away("/anomalies?resolved")


def _row_of(request: Request) -> Any:
    """Behind which row a page begins: an order's number is part of it, so the address has its handle."""
    handle = request.query_params.get("after")
    return None if handle is None else unseal(premises_of(request).settings, "row", handle)


def _hours_of(text: str) -> float:
    try:
        hours = float(text.replace(",", ".")) if text else 0.0
    except ValueError:
        hours = -1.0
    if not 0 <= hours <= HOURS_MAX:
        raise Refused("bad-field", f"hours is {text[:50]!r}: a number from 0 to {HOURS_MAX:,} is needed")
    return hours
