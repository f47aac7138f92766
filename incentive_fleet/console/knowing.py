"""Finds out who asks, before anything is answered: a token of the API, a login of this browser, or, where there is no login,
whoever is on this machine. Who is none of these gets the page of the login, or 401."""

from __future__ import annotations

import asyncio
import getpass
import time
from collections import OrderedDict
from datetime import UTC, datetime
from typing import Final

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from incentive_fleet.console import pages
from incentive_fleet.console.answers import answer
from incentive_fleet.console.login import CALLBACK
from incentive_fleet.console.pacing import Paces, address_of
from incentive_fleet.console.premises import Premises
from incentive_fleet.console.shields import STATIC
from incentive_fleet.console.visitors import EVERYTHING, Visitor, roles_of
from incentive_fleet.errors import FleetError, Refused
from incentive_fleet.ledger.api_tokens import PATTERN, holder_of

OPEN: Final = ("/login", CALLBACK)  # what anybody may have, and all that is static
KNOWN_S: Final = 10.0  # for which a token is believed without asking again: a revoked one is good for no longer
KNOWN_MAX: Final = 1_000
PATH_MAX: Final = 500  # of the page to come back to after a login, which the cookie keeps


class Knowing:
    """ASGI middleware, within the one of sessions."""

    def __init__(self, app: ASGIApp, premises: Premises, paces: Paces) -> None:
        self._app = app
        self._premises = premises
        self._paces = paces
        self._has_login = premises.settings.oidc_issuer is not None
        self._session_s = premises.settings.session_hours * 3_600
        self._known: OrderedDict[str, tuple[float, Visitor]] = OrderedDict()  # the event loop's, as the next
        self._looked_up: dict[str, asyncio.Task[Visitor]] = {}  # at this moment

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            request = Request(scope)
            try:
                visitor = scope["visitor"] = await self._visitor(request)
            except FleetError as error:
                await answer(request, error)(scope, receive, send)
                return
            if visitor is None and scope["path"] not in OPEN and not scope["path"].startswith(STATIC):
                await _first_log_in(request)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _visitor(self, request: Request) -> Visitor | None:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return await self._holder(token.strip(), address_of(request, self._premises.settings.serve_proxies))
        if not self._has_login:
            return Visitor(getpass.getuser(), EVERYTHING, "local")
        kept = request.session
        if "name" not in kept or time.time() - float(kept.get("at", 0)) > self._session_s:
            return None
        return Visitor(kept["name"], roles_of(kept["roles"]), "login")

    async def _holder(self, token: str, address: str) -> Visitor:
        until, visitor = self._known.get(token, (0.0, None))
        if visitor is not None and until >= time.monotonic():
            return visitor
        if PATTERN.fullmatch(token) is None:
            raise _wrong()
        asked = self._looked_up.get(token)
        if asked is None:
            if visitor is None:  # guessing is slow; a token that was good waits for nobody who guesses
                self._paces.require(None, address)
            asked = self._looked_up[token] = asyncio.create_task(run_in_threadpool(self._look_up, token))
            asked.add_done_callback(lambda task: self._learn(token, task))
        return await asyncio.shield(asked)  # others wait for it too

    def _learn(self, token: str, task: asyncio.Task[Visitor]) -> None:
        del self._looked_up[token]
        if task.cancelled() or isinstance(task.exception(), Refused):
            self._known.pop(token, None)
        elif task.exception() is None:
            self._known[token] = (time.monotonic() + KNOWN_S, task.result())
            while len(self._known) > KNOWN_MAX:
                self._known.popitem(last=False)

    def _look_up(self, token: str) -> Visitor:
        with self._premises.connections.own() as connection:
            holder = holder_of(connection, token, datetime.now(UTC))
        if holder is None:
            raise _wrong()
        return Visitor(holder.name, roles_of(holder.roles), "token")


def _wrong() -> Refused:
    return Refused("bad-token", "the token is wrong, revoked or past its time")


def _first_log_in(request: Request) -> Response:
    if request.method == "GET" and pages.wants_page(request):
        request.session["next"] = request.url.path if len(request.url.path) <= PATH_MAX else "/"
        return RedirectResponse("/login", 303)
    return answer(request, Refused("login-needed", "nobody is logged in, and no token came with the request"))
