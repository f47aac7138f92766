"""A request of the API as HTTP brings it: POST with JSON, or GET for queries alone; bounded, and checked before anything runs.

A form of another site can send neither: a POST must be `application/json`, which browsers send across sites only when asked
first, and a GET changes nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from pydantic_core import from_json
from starlette.requests import Request

from incentive_fleet.console.connections import DEADLINE_S
from incentive_fleet.errors import Refused

DEADLINE_HEADER: Final = "X-Deadline-Ms"
DEADLINE_MS_MAX: Final = 30_000
NESTING_MAX: Final = 50  # of variables
_WRITTEN_NUL: Final = re.compile(r"\x00|\\u(0000|\{0+\})")
MEMBERS: Final = ("query", "operationName", "variables", "extensions")


@dataclass(frozen=True, slots=True)
class ApiRequest:
    """What was asked."""

    query: str | None
    operation: str | None
    variables: dict[str, Any]
    extensions: Any
    deadline_s: float
    by_post: bool


class NotOurs(Exception):
    """A request that is none of the API, with the status that says so."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


async def asked_by(request: Request) -> ApiRequest:
    """Read it. Raises NotOurs and Refused (malformed)."""
    if request.method != "POST":
        document = _of_parameters(request)
    else:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise NotOurs(415, "the body must be application/json")
        document = _json(await request.body(), "the body")
        if not isinstance(document, dict):
            raise Refused("malformed", "the body is no JSON object")
    query, operation = (_text(document, name) for name in MEMBERS[:2])
    variables = document.get("variables")
    if variables is not None and not isinstance(variables, dict):
        raise Refused("malformed", "variables is no object")
    if query is not None and _WRITTEN_NUL.search(query):
        raise Refused("malformed", "query holds the character NUL, which no stored text has")
    _refuse_nul(variables, NESTING_MAX)
    extensions = document.get("extensions")
    return ApiRequest(query, operation, variables or {}, extensions, deadline_of(request), request.method == "POST")


def deadline_of(request: Request) -> float:
    """How many seconds the request may take. Raises Refused (malformed)."""
    given = request.headers.get(DEADLINE_HEADER)
    if given is None:
        return DEADLINE_S
    if not given.isascii() or not given.isdigit() or len(given) > 9 or not 1 <= int(given) <= DEADLINE_MS_MAX:
        raise Refused("malformed", f"{DEADLINE_HEADER} is {given[:50]!r}: must be 1 to {DEADLINE_MS_MAX} milliseconds")
    return int(given) / 1_000


def _of_parameters(request: Request) -> dict[str, Any]:
    given: dict[str, Any] = {name: request.query_params.get(name) for name in MEMBERS}
    for name in MEMBERS[2:]:
        if given[name] is not None:
            given[name] = _json(given[name].encode("utf-8", "surrogatepass"), name)
    return given


def _json(text: bytes, what: str) -> Any:
    try:
        return from_json(text, allow_inf_nan=False)
    except ValueError as error:
        raise Refused("malformed", f"{what} is not JSON: {error}") from None


def _text(document: dict[str, Any], name: str) -> str | None:
    value = document.get(name)
    if value is not None and not isinstance(value, str):
        raise Refused("malformed", f"{name} is no text")
    return value


def _refuse_nul(value: Any, levels: int) -> None:
    if levels == 0:
        raise Refused("malformed", f"variables are nested more than {NESTING_MAX} levels deep")
    if isinstance(value, str):
        if "\x00" in value:
            raise Refused("malformed", "variables hold the character NUL, which no stored text has")
    elif isinstance(value, dict):
        for name, inner in value.items():
            _refuse_nul(name, levels - 1)
            _refuse_nul(inner, levels - 1)
    elif isinstance(value, list):
        for inner in value:
            _refuse_nul(inner, levels - 1)
