"""The first page: how everything stands."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from incentive_fleet.console.pages.shell import page
from incentive_fleet.console.premises import visitor_of
from incentive_fleet.console.visitors import Work


def routes() -> list[Route]:
    """Of this page."""
    return [Route("/", show)]


def show(request: Request) -> Response:
    """The page."""
    visitor_of(request).require(Work.LOOK)
    return page(request, "status.html", {})
