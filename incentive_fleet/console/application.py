"""The web process as one ASGI application: routes, and how an error of ours becomes an answer.

Handlers are plain functions, which Starlette runs in its threads. It starts nothing and listens nowhere; serving.py does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from incentive_fleet.console import graphql, login, pages, shields
from incentive_fleet.console.premises import Premises
from incentive_fleet.errors import FleetError, PermanentError, Refused, StatementTimedOut, TransientError

STATIC: Final = Path(__file__).parent / "static"
AGAIN_S: Final = 2  # after which a retry may help
STATUSES: Final = {"login-needed": 401, "role-missing": 403, "not-found": 404, "too-many-requests": 429}


def application(premises: Premises) -> Starlette:
    """The whole of it."""
    app = Starlette(
        routes=[
            *login.routes(premises.settings),
            Route("/graphql", graphql.endpoint, methods=["GET", "POST"]),
            Mount("/static", StaticFiles(directory=STATIC), name="static"),
            *pages.routes(),
        ],
        middleware=[
            Middleware(shields.Shields, settings=premises.settings),
            *login.middleware(premises.settings),
        ],
        exception_handlers={FleetError: _answer, HTTPException: _not_here},
    )
    app.state.premises = premises
    return app


def reason_and_status(error: FleetError) -> tuple[str, int]:
    """The stable code of an error, and the HTTP status that goes with it."""
    if isinstance(error, Refused | PermanentError):
        return error.reason, STATUSES.get(error.reason, 422)
    if isinstance(error, StatementTimedOut):
        return "deadline-passed", 504
    return ("not-available", 503) if isinstance(error, TransientError) else ("failed", 500)


def _answer(request: Request, error: Exception) -> Response:
    assert isinstance(error, FleetError)
    reason, status = reason_and_status(error)
    headers = {"Retry-After": str(AGAIN_S)} if status in (429, 503, 504) else {}
    if pages.wants_page(request):
        return pages.error_page(request, status, reason, str(error), headers)
    return JSONResponse({"error": {"reason": reason, "detail": str(error)}}, status, headers)


def _not_here(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    reason = "not-found" if error.status_code == 404 else "not-allowed"
    if pages.wants_page(request):
        return pages.error_page(request, error.status_code, reason, error.detail, {})
    return JSONResponse({"error": {"reason": reason, "detail": error.detail}}, error.status_code, error.headers)
