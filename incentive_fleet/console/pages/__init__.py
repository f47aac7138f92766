"""The console's pages: HTML made here, refreshed in parts by htmx. A module a page; each asks what the command line asks."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from incentive_fleet.console.pages import acts, campaigns, customers, letters, oddities, orders, runs, status
from incentive_fleet.console.pages.shell import page


def routes() -> list[Route]:
    """Of all pages."""
    return [
        route
        for module in (status, letters, acts, runs, customers, orders, campaigns, oddities)
        for route in module.routes()
    ]


def wants_page(request: Request) -> bool:
    """Whether a person's browser asks, rather than a program."""
    return "text/html" in request.headers.get("accept", "") or "hx-request" in request.headers


def error_page(request: Request, status_code: int, reason: str, detail: str, headers: Mapping[str, str]) -> Response:
    """An error as a page, or as a part of one."""
    shown = {"status_code": status_code, "reason": reason, "detail": detail}
    return page(request, "error.html", shown, status_code=status_code, headers=headers)
