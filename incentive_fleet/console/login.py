"""Logging in and out by OIDC: the issuer says who a browser's person is and which roles they have; a signed cookie keeps it.

It decides nothing about what a visitor may; visitors.py does. Without an issuer there is nothing here but the session of a form.
"""

from __future__ import annotations

import logging
import secrets
import time
from typing import Any, Final

from authlib.integrations.base_client import OAuthError
from authlib.integrations.starlette_client import OAuth
from httpx2 import HTTPError
from joserfc.errors import JoseError
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from incentive_fleet.console.answers import answer
from incentive_fleet.console.visitors import roles_of
from incentive_fleet.errors import DatabaseUnavailable, Refused, SettingsError
from incentive_fleet.settings import Settings

CALLBACK: Final = "/login/callback"
NAME_MAX: Final = 200
ISSUER_S: Final = 10.0
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


def routes(settings: Settings) -> list[Route]:
    """Of logging in and out; none where there is no issuer."""
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
    door = _Door(settings, oauth.issuer)
    return [
        Route("/login", door.ask),
        Route(CALLBACK, door.come_back),
        Route("/logout", door.leave, methods=["POST"]),
    ]


class _Door:
    def __init__(self, settings: Settings, issuer: Any) -> None:
        self._issuer = issuer
        self._back = f"{settings.public_url}{CALLBACK}"
        self._claim = settings.oidc_roles_claim

    async def ask(self, request: Request) -> Response:
        """Send the browser to the issuer."""
        try:
            answered: Response = await self._issuer.authorize_redirect(request, self._back)
        except (HTTPError, OAuthError, *NONSENSE) as error:
            return _away(request, error)
        return answered

    async def come_back(self, request: Request) -> Response:
        """Believe what the issuer signed for us, in this login that this browser began, and nothing else."""
        try:
            metadata = await self._issuer.load_server_metadata()
            listed = metadata.get("id_token_signing_alg_values_supported") or ()
            # Whatever it lists, some are no signature, and those that a shared secret makes no keys of ours check.
            metadata["id_token_signing_alg_values_supported"] = [one for one in SIGNATURES if one in listed] or [
                "RS256"
            ]
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
        after = request.session.get("next", "/")
        request.session.clear()  # what was begun before the login does not go on after it
        request.session.update(name=name, roles=sorted(roles), at=int(time.time()))
        return RedirectResponse(after if _is_ours(after) else "/", 303)

    async def leave(self, request: Request) -> Response:
        """Forget this browser's login. The issuer's own goes on."""
        request.session.clear()
        return RedirectResponse("/login", 303)


def _name(claims: dict[str, Any]) -> str:
    """What the trail calls this person: an address that the issuer has verified, else the issuer's own name for them. Nothing
    that people can give themselves, for four eyes compare it."""
    email = claims.get("email") if claims.get("email_verified") is True else None
    name = email or claims.get("sub")
    return name if isinstance(name, str) and len(name) <= NAME_MAX and name.isprintable() else ""


def _is_ours(path: object) -> bool:
    return isinstance(path, str) and path.startswith("/") and not path.startswith(("//", "/\\"))


def _away(request: Request, error: Exception) -> Response:
    log.warning("the issuer of logins cannot be reached", extra={"error": type(error).__name__})
    return answer(request, DatabaseUnavailable("the issuer of logins cannot be reached"))
