"""How an error of ours becomes an answer: a page for a person's browser, JSON for a program, the same reason code in both."""

from __future__ import annotations

from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from incentive_fleet.console import pages
from incentive_fleet.errors import FleetError, PermanentError, Refused, StatementTimedOut, TransientError

AGAIN_S: Final = 2  # after which a retry may help
STATUSES: Final = {
    "login-needed": 401,
    "bad-token": 401,
    "login-failed": 403,
    "role-missing": 403,
    "not-from-our-pages": 403,
    "not-found": 404,
    "unknown-run": 404,
    "unknown-dead-letter": 404,
    "too-large": 413,
    "wrong-host": 421,
    "too-many-requests": 429,
}
OF_HTTP: Final = {404: "not-found", 405: "not-allowed"}


def reason_and_status(error: FleetError) -> tuple[str, int]:
    """The stable code of an error, and the HTTP status that goes with it."""
    if isinstance(error, Refused | PermanentError):
        return error.reason, STATUSES.get(error.reason, 422)
    if isinstance(error, StatementTimedOut):
        return "deadline-passed", 504
    return ("not-available", 503) if isinstance(error, TransientError) else ("failed", 500)


def answer(request: Request, error: Exception) -> Response:
    """The answer to an error of this product's, or of Starlette's own."""
    if isinstance(error, HTTPException):
        return _told(request, OF_HTTP.get(error.status_code, "not-allowed"), error.status_code, error.detail)
    assert isinstance(error, FleetError)
    reason, status = reason_and_status(error)
    return _told(request, reason, status, error.detail if isinstance(error, Refused | PermanentError) else str(error))


def _told(request: Request, reason: str, status: int, detail: str) -> Response:
    headers = {"Retry-After": str(AGAIN_S)} if status in (429, 503, 504) else {}
    if pages.wants_page(request):
        return pages.error_page(request, status, reason, detail, headers)
    return JSONResponse({"error": {"reason": reason, "detail": detail}}, status, headers)
