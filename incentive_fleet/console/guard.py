"""What a known visitor's request must have besides: a browser's act comes from our own pages, and nobody asks more often than a
person or a program in its right mind does.

A token is sent by a program on purpose, never by a browser by itself, so it proves by itself where an act comes from.
"""

from __future__ import annotations

import hmac
import secrets
from typing import Final
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from incentive_fleet.console.answers import answer
from incentive_fleet.console.pacing import Paces, address_of
from incentive_fleet.console.shields import SAFE, STATIC, handing_on
from incentive_fleet.errors import Refused
from incentive_fleet.settings import Settings

FIELD: Final = "csrf_token"  # of a form
HEADER: Final = "x-csrf-token"
FORM: Final = "application/x-www-form-urlencoded"
FIELDS_MAX: Final = 1_000


class Guard:
    """ASGI middleware, within the one that knows visitors."""

    def __init__(self, app: ASGIApp, settings: Settings, paces: Paces) -> None:
        self._app = app
        self._origin = settings.public_url
        self._proxies = settings.serve_proxies
        self._paces = paces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request, visitor = Request(scope, receive), scope["visitor"]
        of_program = visitor is not None and visitor.way == "token"
        scope["csrf"] = "" if of_program else _secret_of(request)  # a program sends no form, and keeps no cookie
        try:
            self._paces.require(visitor, address_of(request, self._proxies))
            if scope["method"] not in SAFE and not of_program:
                receive = await self._require_our_page(request, receive)
        except Refused as refused:
            await answer(request, refused)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    async def _require_our_page(self, request: Request, receive: Receive) -> Receive:
        """Raises Refused (not-from-our-pages). A browser says where a form comes from, and ours bring a secret of the session."""
        origin = request.headers.get("origin")
        ours = self._origin or f"http://{request.headers.get('host', '')}"
        if origin is not None and origin.lower() != ours.lower():
            raise Refused("not-from-our-pages", f"the request comes from {origin!r}")
        body = await request.body()
        sent = request.headers.get(HEADER) or _field(request.headers.get("content-type", ""), body)
        if not hmac.compare_digest(sent.encode(), request.scope["csrf"].encode()):
            raise Refused("not-from-our-pages", "it lacks the session's secret; load the page again")
        return handing_on(body, receive)


def _secret_of(request: Request) -> str:
    """The session's. What anybody may have, and caches keep, begins no session."""
    fresh = secrets.token_urlsafe(32)
    kept = request.session.get("csrf") or (
        fresh if request.scope["path"].startswith(STATIC) else request.session.setdefault("csrf", fresh)
    )
    return str(kept)


def _field(content_type: str, body: bytes) -> str:
    if content_type.partition(";")[0].strip().lower() != FORM:
        return ""
    try:
        fields = parse_qs(body.decode("utf-8"), max_num_fields=FIELDS_MAX)
    except ValueError:
        return ""
    return fields.get(FIELD, [""])[0]
