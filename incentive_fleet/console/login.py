"""Logging in and out by OIDC: the issuer says who a browser's person is and which roles they have; a row of the database keeps
it, and a signed cookie names the row.

It decides nothing about what a visitor may; visitors.py does. Without an issuer there is nothing here but the session of a form.
"""

from __future__ import annotations

import logging
import secrets
import time
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from authlib.integrations.base_client import OAuthError
from authlib.integrations.starlette_client import OAuth
from httpx2 import HTTPError
from joserfc.errors import JoseError
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from incentive_fleet.certificates import certificate_fault
from incentive_fleet.console.answers import answer
from incentive_fleet.console.pages.shell import page
from incentive_fleet.console.premises import Premises
from incentive_fleet.console.visitors import Role, roles_of
from incentive_fleet.errors import DatabaseUnavailable, Refused, SettingsError
from incentive_fleet.ledger.console_logins import begin_login, end_login
from incentive_fleet.settings import Settings

LOGIN: Final = "/login"
CALLBACK: Final = "/login/callback"
LEFT: Final = "/logged-out"
NAME_MAX: Final = 200
ISSUER_S: Final = 10.0
BELIEVED_S: Final = 600.0  # what the issuer says of itself, its keys too: one that it withdraws is good for no longer
SIGNATURES: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
NONSENSE: Final = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    RuntimeError,
)  # of what an issuer says, in its library
NEEDED: Final = ("public_url", "oidc_client_id", "oidc_client_secret", "session_key")

log = logging.getLogger(__name__)


def require_whole(settings: Settings) -> None:
    """Raises SettingsError where some settings of a login are there and others are missing."""
    missing = [f"INCENTIVES_{name.upper()}" for name in NEEDED if getattr(settings, name) is None]
    if settings.oidc_issuer is not None and missing:
        raise SettingsError(f"INCENTIVES_OIDC_ISSUER is set, so {' and '.join(missing)} must be set too.")


def sessions(settings: Settings) -> Middleware:
    """The signed cookie. Where nobody logs in it holds a form's secret only, and the key lives as long as the process."""
    secure = (settings.public_url or "").startswith("https://")
    return Middleware(
        SessionMiddleware,
        secret_key=settings.session_key or secrets.token_urlsafe(32),
        session_cookie="__Host-incentives" if secure else "incentives",
        max_age=settings.session_hours * 3_600,
        same_site="lax",  # the issuer sends the browser back to us
        https_only=secure,
    )


def routes(premises: Premises) -> list[Route]:
    """Of logging in and out; none where there is no issuer."""
    settings = premises.settings
    if settings.oidc_issuer is None:
        return []
    oauth = OAuth()
    oauth.register(
        name="issuer",
        client_id=settings.oidc_client_id,
        client_secret=settings.oidc_client_secret,
        server_metadata_url=f"{settings.oidc_issuer.rstrip('/')}/.well-known/openid-configuration",
        client_kwargs={"scope": "openid email profile", "code_challenge_method": "S256", "timeout": ISSUER_S},
    )
    door = _Door(premises, oauth.issuer)
    return [
        Route(LOGIN, door.ask),
        Route(CALLBACK, door.come_back),
        Route("/logout", door.leave, methods=["POST"]),
        Route(LEFT, door.left),
    ]


class _Door:
    def __init__(self, premises: Premises, issuer: Any) -> None:
        self._premises = premises
        self._issuer = issuer
        self._back = f"{premises.settings.public_url}{CALLBACK}"
        self._claim = premises.settings.oidc_roles_claim

    async def ask(self, request: Request) -> Response:
        """Send the browser to the issuer."""
        try:
            await self._metadata()
            answered: Response = await self._issuer.authorize_redirect(request, self._back)
        except (HTTPError, OAuthError, *NONSENSE) as error:
            return _away(request, error)
        return answered

    async def _metadata(self) -> dict[str, Any]:
        """What the issuer says of itself, asked anew from time to time. Raises as its library does."""
        kept: dict[str, Any] = self._issuer.server_metadata
        if time.time() - kept.get("_loaded_at", 0.0) > BELIEVED_S:
            for name in ("_loaded_at", "jwks"):
                kept.pop(name, None)
        metadata: dict[str, Any] = await self._issuer.load_server_metadata()
        listed = metadata.get("id_token_signing_alg_values_supported") or ()
        # Whatever it lists, some are no signature, and those that a shared secret makes no keys of ours check.
        metadata["id_token_signing_alg_values_supported"] = [one for one in SIGNATURES if one in listed] or ["RS256"]
        return metadata

    async def come_back(self, request: Request) -> Response:
        """Believe what the issuer signed for us, in this login that this browser began, and nothing else."""
        try:
            await self._metadata()
            token = await self._issuer.authorize_access_token(request)
        except HTTPError as error:
            return _away(request, error)
        except (OAuthError, JoseError, *NONSENSE) as error:
            log.warning("a login failed", extra={"error": type(error).__name__})
            return answer(request, Refused("login-failed", "the issuer did not vouch for this login; try again"))
        claims = token.get("userinfo") or {}
        name, roles = _name(claims), roles_of(claims.get(self._claim))
        if not name or not roles:
            why = f"the claim {self._claim!r} of the login names none of the four roles"
            return answer(request, Refused("role-missing", why if name else "the login has neither email nor sub"))
        login_id = await run_in_threadpool(self._begin, name, roles)
        after = request.session.get("next", "/")
        request.session.clear()  # what was begun before the login does not go on after it
        request.session["login"] = login_id
        return RedirectResponse(after if _is_ours(after) else "/", 303)

    def _begin(self, name: str, roles: frozenset[Role]) -> str:
        now = datetime.now(UTC)
        until = now + timedelta(hours=self._premises.settings.session_hours)
        with self._premises.connections.own() as connection:
            return begin_login(connection, name, sorted(roles), now, until)

    async def leave(self, request: Request) -> Response:
        """End this browser's login, for whoever has its cookie. The issuer's own goes on."""
        login_id = request.session.get("login")
        if login_id is not None:  # a program has none
            await run_in_threadpool(self._end, login_id)
        request.session.clear()
        return RedirectResponse(LEFT, 303)

    def _end(self, login_id: str) -> None:
        with self._premises.connections.own() as connection:
            end_login(connection, login_id)

    async def left(self, request: Request) -> Response:
        """A page that begins no login: the issuer, where this person may still be logged in, would let them in again at once."""
        try:
            await self._metadata()
            end = (await self._issuer.create_logout_url(client_id=self._issuer.client_id))["url"]
        except (HTTPError, OAuthError, *NONSENSE):
            end = ""  # it is away, or has no such page
        return page(request, "logged_out.html", {"end": end if end.startswith(("https://", "http://")) else ""})


def _name(claims: dict[str, Any]) -> str:
    """What the trail calls this person: an address that the issuer has verified, else the issuer's own name for them. Nothing
    that people can give themselves, for four eyes compare it."""
    email = claims.get("email") if claims.get("email_verified") is True else None
    name = email or claims.get("sub")
    return name if isinstance(name, str) and len(name) <= NAME_MAX and name.isprintable() else ""


def _is_ours(path: object) -> bool:
    return isinstance(path, str) and path.startswith("/") and not path.startswith(("//", "/\\"))


def _away(request: Request, error: Exception) -> Response:
    told = {"error": type(error).__name__} | ({"why": why} if (why := certificate_fault(error)) else {})
    log.warning("the issuer of logins cannot be reached", extra=told)
    return answer(request, DatabaseUnavailable("the issuer of logins cannot be reached"))
