"""Finds out who asks, before anything is answered: a token of the API, a login of this browser, or, where there is no login,
whoever is on this machine. Who is none of these gets the page of the login, or 401.

Neither a token nor a cookie is believed for what it says: both name a row, and what the row says counts."""

from __future__ import annotations

import asyncio
import getpass
import time
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from incentive_fleet.console import pages
from incentive_fleet.console.answers import answer
from incentive_fleet.console.login import CALLBACK, LEFT, LOGIN
from incentive_fleet.console.pacing import Paces, address_of
from incentive_fleet.console.premises import Premises
from incentive_fleet.console.shields import STATIC
from incentive_fleet.console.visitors import EVERYTHING, Visitor, roles_of
from incentive_fleet.errors import FleetError, Refused, TransientError
from incentive_fleet.ledger.api_tokens import PATTERN, holder_of
from incentive_fleet.ledger.console_logins import login_of

OPEN: Final = (LOGIN, CALLBACK, LEFT)  # what anybody may have, and all that is static
KNOWN_S: Final = 10.0  # for which a token or login is believed without asking again: an ended one is good for no longer
KNOWN_MAX: Final = 1_000
PATH_MAX: Final = 500  # of the page to come back to after a login, which the cookie keeps


class Knowing:
    """ASGI middleware, within the one of sessions."""

    def __init__(self, app: ASGIApp, premises: Premises, paces: Paces) -> None:
        self._app = app
        self._premises = premises
        self._paces = paces
        self._has_login = premises.settings.oidc_issuer is not None
        self._known: OrderedDict[str, tuple[float, Visitor]] = OrderedDict()  # the event loop's, as the next
        self._looked_up: dict[str, asyncio.Task[Visitor | None]] = {}  # at this moment

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            request = Request(scope)
            for_anybody = scope["path"] in OPEN or scope["path"].startswith(STATIC)
            try:
                visitor = scope["visitor"] = await self._visitor(request, for_anybody)
                # It takes the request: one that it kept would refer to itself.
                scope["still_known"] = self._still_known
            except FleetError as error:
                await answer(request, error)(scope, receive, send)
                return
            if visitor is None and not for_anybody:
                await _first_log_in(request)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _visitor(self, request: Request, for_anybody: bool) -> Visitor | None:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return await self._holder(token.strip(), address_of(request, self._premises.settings.serve_proxies))
        if not self._has_login:
            return Visitor(getpass.getuser(), EVERYTHING, "local")
        login_id = request.session.get("login")
        if login_id is None:
            return None
        try:
            return await self._believed(f"login {login_id}", lambda: self._look_up_login(login_id))
        except TransientError:
            if for_anybody:  # the page that says so has a style
                return None
            raise

    async def _still_known(self, request: Request) -> bool:
        try:
            return await self._visitor(request, for_anybody=False) is not None
        except TransientError:  # nobody could be asked; what is open shows that
            return True
        except Refused:
            return False

    async def _holder(self, token: str, address: str) -> Visitor:
        if PATTERN.fullmatch(token) is None:
            raise _wrong()
        if token not in self._known and token not in self._looked_up:
            self._paces.require(None, address)  # guessing is slow; a token that was good waits for nobody who guesses
        visitor = await self._believed(token, lambda: self._look_up(token))
        if visitor is None:
            raise _wrong()
        return visitor

    async def _believed(self, proof: str, look_up: Callable[[], Visitor | None]) -> Visitor | None:
        until, visitor = self._known.get(proof, (0.0, None))
        if visitor is not None and until >= time.monotonic():
            return visitor
        asked = self._looked_up.get(proof)
        if asked is None:
            asked = self._looked_up[proof] = asyncio.create_task(run_in_threadpool(look_up))
            asked.add_done_callback(lambda task: self._learn(proof, task))
        return await asyncio.shield(asked)  # others wait for it too

    def _learn(self, proof: str, task: asyncio.Task[Visitor | None]) -> None:
        del self._looked_up[proof]
        if not task.cancelled() and task.exception() is not None:
            return  # nobody could be asked: what was believed is asked again by the next
        visitor = None if task.cancelled() else task.result()
        if visitor is None:
            self._known.pop(proof, None)
            return
        self._known[proof] = (time.monotonic() + KNOWN_S, visitor)
        while len(self._known) > KNOWN_MAX:
            self._known.popitem(last=False)

    def _look_up(self, token: str) -> Visitor | None:
        with self._premises.connections.own() as connection:
            holder = holder_of(connection, token, datetime.now(UTC))
        return Visitor(holder.name, roles_of(holder.roles), "token") if holder else None

    def _look_up_login(self, login_id: str) -> Visitor | None:
        with self._premises.connections.own() as connection:
            login = login_of(connection, login_id, datetime.now(UTC))
        return Visitor(login.name, roles_of(login.roles), "login") if login else None


def _wrong() -> Refused:
    return Refused("bad-token", "the token is wrong, revoked or past its time")


def _first_log_in(request: Request) -> Response:
    if request.method == "GET" and pages.wants_page(request):
        request.session["next"] = request.url.path if len(request.url.path) <= PATH_MAX else "/"
        return RedirectResponse(LOGIN, 303)
    return answer(request, Refused("login-needed", "nobody is logged in, and no token came with the request"))
