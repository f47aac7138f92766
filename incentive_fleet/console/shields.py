"""What every answer has and every request must have: headers that keep a browser in bounds, a host that is ours, a body of a
bounded size that comes within a bounded time. It counts the answers too.

It knows no visitor; guard.py looks at those.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from incentive_fleet.console.answers import answer
from incentive_fleet.errors import FleetError, Refused
from incentive_fleet.measuring import Tally
from incentive_fleet.settings import Settings

POLICY: Final = "; ".join(
    (
        *("default-src 'none'", "script-src 'self'", "style-src 'self'", "img-src 'self' data:", "connect-src 'self'"),
        *("form-action 'self'", "base-uri 'none'", "frame-ancestors 'none'"),
    )
)
HEADERS: Final = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",  # with no-referrer, a browser says of our own forms that they come from nowhere
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
HSTS: Final = "max-age=31536000"
LOOPBACK: Final = re.compile(r"(localhost|127\.0\.0\.1|\[::1\])(:[0-9]{1,5})?", re.ASCII | re.IGNORECASE)
STATIC: Final = "/static/"  # the same for everybody
SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
REQUESTS: Final = "incentives_http_requests_total"
PATH_MAX: Final = 4_000  # characters
BODY_MAX: Final = 1024 * 1024
BODY_S: Final = 10.0
AREAS: Final = ("graphql", "static", "login")  # of the metrics; all else is "pages"
UNEXPECTED: Final = "something went wrong here that nobody expected; it is in the log"

log = logging.getLogger(__name__)


class _CutOff(Exception):
    """The connection ended before the body did."""


class Shields:
    """ASGI middleware, before all others. `tally` is the event loop's."""

    def __init__(self, app: ASGIApp, settings: Settings, tally: Tally) -> None:
        self._app = app
        self._tally = tally
        public = urlsplit(settings.public_url or "")
        self._hosts = re.compile(re.escape(public.netloc), re.IGNORECASE) if public.netloc else LOOPBACK
        self._has_tls = public.scheme == "https"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, area = time.perf_counter(), scope["path"].lstrip("/").partition("/")[0]
        begun: list[Message] = []

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                begun.append(message)
                self._dress(scope, message)
                labels = (area if area in AREAS else "pages", str(message["status"]))
                self._tally.add(REQUESTS, *labels)
                self._tally.observe("incentives_http_request_seconds", labels[0], value=time.perf_counter() - began)
            await send(message)

        try:
            self._require_our_host(Headers(scope=scope).get("host", ""))
            _require_a_path(scope["path"])
            # Nobody reads a body that asks for nothing to be done, so none is taken in.
            receive = handing_on(b"", receive) if scope["method"] in SAFE else await _whole(receive)
        except Refused as refused:
            await answer(Request(scope), refused)(scope, receive, counted)
            return
        except _CutOff:
            return  # who is gone hears nothing, and half a request is none
        try:
            await self._app(scope, receive, counted)
        except Exception:
            log.exception("a request failed", extra={"area": area if area in AREAS else "pages"})
            if begun:
                raise  # half an answer is none: the connection ends
            await answer(Request(scope), FleetError(UNEXPECTED))(scope, receive, counted)

    def _dress(self, scope: Scope, message: Message) -> None:
        headers = MutableHeaders(scope=message)
        for name, value in HEADERS.items():
            headers.setdefault(name, value)
        if self._has_tls:
            headers.setdefault("Strict-Transport-Security", HSTS)
        headers.setdefault("Cache-Control", "max-age=3600" if scope["path"].startswith(STATIC) else "no-store")

    def _require_our_host(self, host: str) -> None:
        """A name that somebody else points at us is not ours: a page of theirs would speak to us as if it were."""
        if self._hosts.fullmatch(host) is None:
            raise Refused("wrong-host", f"the request is for {host!r}, which is not this console's name")


def _require_a_path(path: str) -> None:
    """Raises Refused (not-found) for one that no page has: nothing stored holds NUL, and Python reads no number that long."""
    if not path.startswith("/") or len(path) > PATH_MAX or "\x00" in path:
        raise Refused(
            "not-found", f"no page has that address: it begins with /, and has up to {PATH_MAX:,} characters, none NUL"
        )


async def _whole(receive: Receive) -> Receive:
    """Read the body to its end; what then hands it on. Raises Refused (too-large, too-slow) and _CutOff."""
    parts: list[bytes] = []
    size, more = 0, True
    try:
        async with asyncio.timeout(BODY_S):
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise _CutOff
                parts.append(message.get("body", b""))
                size, more = size + len(parts[-1]), message.get("more_body", False)
                if size > BODY_MAX:
                    raise Refused("too-large", f"the body has more than {BODY_MAX:,} bytes")
    except TimeoutError:
        raise Refused("too-slow", f"the body did not come within {BODY_S:g} s") from None
    return handing_on(b"".join(parts), receive)


def handing_on(body: bytes, receive: Receive) -> Receive:
    """What gives a body that was read already once more, and then what comes after it."""
    left = [body]

    async def next_message() -> Message:
        if left:
            return {"type": "http.request", "body": left.pop(), "more_body": False}
        return await receive()

    return next_message
