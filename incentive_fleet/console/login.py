"""How a visitor becomes known: a login by OIDC, a token of the API, or nothing of the kind, on loopback only.

It decides nothing about what a visitor may; visitors.py does.
"""

from __future__ import annotations

import getpass

from starlette.middleware import Middleware
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from incentive_fleet.console.visitors import EVERYTHING, Visitor
from incentive_fleet.settings import Settings


def routes(settings: Settings) -> list[Route]:
    """Of logging in and out."""
    return []


def middleware(settings: Settings) -> list[Middleware]:
    """What finds out who asks, before anything is answered."""
    return [Middleware(_Local)]


class _Local:
    """Whoever is on this machine, as the one who started the process."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._visitor = Visitor(getpass.getuser(), EVERYTHING, "local")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["visitor"] = self._visitor
        await self._app(scope, receive, send)
