"""An issuer of logins on loopback: discovery, keys, a code for whoever asks, and id tokens signed with a key of its own."""

from __future__ import annotations

import base64
import hashlib
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import uvicorn
from joserfc import jwt
from joserfc.jwk import RSAKey
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from incentive_fleet.console.serving import ConsoleServer
from incentive_fleet.settings import Settings
from tests.contract.brokers_under_test import eventually

CLIENT_ID, CLIENT_SECRET = "console", "a secret that only these two know"


@dataclass
class Issuer:
    """`claims` are of whoever logs in next; `signs_with` another key than it publishes makes a forger of it."""

    url: str = ""
    claims: dict[str, Any] = field(default_factory=dict)
    key: RSAKey = field(default_factory=lambda: RSAKey.generate_key(2048, parameters={"kid": "k1"}))
    signs_with: RSAKey | None = None
    algorithms: list[str] = field(default_factory=lambda: ["RS256"])  # that it says it signs with
    forges: Callable[[dict[str, Any]], object] | None = None  # what it gives for an id token of these claims
    discovery: str | None = None  # what it says of itself, where that is not what an issuer says
    ends_sessions_at: str | None = None  # its page for logging out, if it has one
    codes: dict[str, dict[str, str]] = field(default_factory=dict)

    def routes(self) -> list[Route]:
        return [
            Route("/.well-known/openid-configuration", self._discover),
            Route("/keys", self._keys),
            Route("/authorize", self._authorize),
            Route("/token", self._token, methods=["POST"]),
        ]

    async def _discover(self, request: Request) -> Response:
        if self.discovery is not None:
            return Response(self.discovery)
        more = {"end_session_endpoint": self.ends_sessions_at} if self.ends_sessions_at else {}
        return JSONResponse(
            more
            | {
                "issuer": self.url,
                "authorization_endpoint": f"{self.url}/authorize",
                "token_endpoint": f"{self.url}/token",
                "jwks_uri": f"{self.url}/keys",
                "id_token_signing_alg_values_supported": self.algorithms,
                "response_types_supported": ["code"],
                "subject_types_supported": ["public"],
            }
        )

    async def _keys(self, request: Request) -> Response:
        return JSONResponse({"keys": [self.key.as_dict(private=False)]})

    async def _authorize(self, request: Request) -> Response:
        asked, code = dict(request.query_params), secrets.token_urlsafe(16)
        assert (asked["client_id"], asked["response_type"], asked["code_challenge_method"]) == (
            CLIENT_ID,
            "code",
            "S256",
        )
        self.codes[code] = asked
        return RedirectResponse(f"{asked['redirect_uri']}?{urlencode({'code': code, 'state': asked['state']})}", 302)

    async def _token(self, request: Request) -> Response:
        form = await request.form()
        asked = self.codes.pop(str(form["code"]))
        basic = base64.b64decode(request.headers["authorization"].removeprefix("Basic ")).decode()
        digest = hashlib.sha256(str(form["code_verifier"]).encode()).digest()
        if (
            basic.partition(":")[0] != CLIENT_ID
            or base64.urlsafe_b64encode(digest).rstrip(b"=").decode() != asked["code_challenge"]
        ):
            return JSONResponse({"error": "invalid_grant"}, 400)
        now = int(time.time())
        claims = {
            "iss": self.url,
            "aud": CLIENT_ID,
            "iat": now,
            "exp": now + 60,
            "nonce": asked["nonce"],
            **self.claims,
        }
        claims = {name: value for name, value in claims.items() if value is not None}
        token = (
            self.forges(claims)
            if self.forges
            else jwt.encode(
                {"alg": "RS256", "kid": (self.signs_with or self.key).kid or "k1"}, claims, self.signs_with or self.key
            )
        )
        return JSONResponse({"access_token": "unused", "token_type": "Bearer", "id_token": token})


def console_behind(issuer: Issuer, database_url: str, public_url: str, **more: Any) -> Settings:
    """A console's settings by which this issuer says who logs in."""
    return Settings(
        database_url=database_url,
        public_url=public_url,
        oidc_issuer=issuer.url,
        oidc_client_id=CLIENT_ID,
        oidc_client_secret=CLIENT_SECRET,
        session_key="k" * 32,
        **more,
    )


@contextmanager
def issuing() -> Iterator[Issuer]:
    """An issuer while the body runs."""
    issuer = Issuer()
    server = ConsoleServer(
        uvicorn.Config(Starlette(routes=issuer.routes()), host="127.0.0.1", port=0, log_config=None, lifespan="off")
    )
    thread = threading.Thread(target=server.run, name="issuer", daemon=True)
    thread.start()
    try:
        eventually(lambda: server.started)
        issuer.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        yield issuer
    finally:
        server.should_exit = True
        thread.join(10)
