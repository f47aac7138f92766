"""Errors as GraphQL tells them: a message for people, and `extensions.code`, the reason code that every other way has too.

What nobody expected is logged once and told as `internal`: no stack, no driver's words leave the process.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any, Final

from graphql import GraphQLError

from incentive_fleet.console.answers import reason_and_status
from incentive_fleet.console.graphql.documents import NOT_FOUND, InvalidQuery
from incentive_fleet.errors import FleetError, PermanentError, Refused, StatementTimedOut

MALFORMED: Final = "malformed"
INTERNAL: Final = "internal"
WORDS_MAX: Final = 1_000  # characters of a message, which may repeat what was asked
TOLD_MAX: Final = 20  # errors of one answer: a list of 200 may fail 200 times
AWAY: Final = "the database is away, busy or not fit for this release; the same request may be answered in a moment"
LATE: Final = "the deadline of the request has passed"
UNEXPECTED: Final = "an unexpected error, which was logged"

log = logging.getLogger(__name__)


def code_and_message(error: Exception) -> tuple[str, str]:
    """What an error is called, and the sentence about it."""
    if not isinstance(error, FleetError):
        return INTERNAL, UNEXPECTED
    reason, _ = reason_and_status(error)
    if isinstance(error, Refused | PermanentError):
        return reason, error.detail
    return reason, LATE if isinstance(error, StatementTimedOut) else AWAY


def refusal(error: Exception) -> list[dict[str, Any]]:
    """The errors of a request of which nothing was run."""
    code, message = code_and_message(error)
    return [{"message": message[:WORDS_MAX], "extensions": {"code": code}}]


def faults(error: InvalidQuery) -> list[dict[str, Any]]:
    """What is wrong with a document."""
    return [_entry(fault, MALFORMED, fault.message) for fault in error.faults]


def failures(errors: Iterable[GraphQLError]) -> list[dict[str, Any]]:
    """The errors of fields, each unexpected one logged once, whichever fields met it."""
    told: list[dict[str, Any]] = []
    seen: set[int] = set()
    for error in errors:
        original = error.original_error
        if original is None or isinstance(original, GraphQLError):
            code, message = MALFORMED, error.message
        else:
            code, message = code_and_message(original)
            if code in (INTERNAL, "not-available", "failed") and id(original) not in seen:
                seen.add(id(original))
                _log(error, original, code)
        if len(told) < TOLD_MAX:
            told.append(_entry(error, code, message))
    return told


def _log(error: GraphQLError, original: Exception, code: str) -> None:
    fields = {"field": ".".join(str(step) for step in error.path or ()), "code": code}
    if code == INTERNAL:
        log.error("a field could not be answered", exc_info=original, extra=fields)
    else:
        log.warning("a field could not be answered", extra=fields | {"error": str(original)})


def _entry(error: GraphQLError, code: str, message: str) -> dict[str, Any]:
    entry: dict[str, Any] = {"message": message[:WORDS_MAX], "extensions": {"code": code}}
    if error.locations:
        entry["locations"] = [{"line": one.line, "column": one.column} for one in error.locations]
    if error.path:
        entry["path"] = error.path
    return entry


def is_not_found(entries: list[dict[str, Any]]) -> bool:
    """Whether a client is to send its query's text; clients expect that answer with the status 200."""
    return bool(entries[0]["message"] == NOT_FOUND)
