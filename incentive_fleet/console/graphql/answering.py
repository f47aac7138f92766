"""Answers a request of the API, in a thread: the event loop only carries bytes, so no query holds up another one's.

Fields that wait for a batch are woken by an event loop of the request's own, which knows no socket: reading blocks the thread,
and nothing else.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable
from contextlib import closing, suppress
from functools import cache
from time import monotonic
from types import CoroutineType
from typing import Any, Final, TypeGuard

from anyio import CapacityLimiter, to_thread
from graphql import DocumentNode, ExecutionResult, GraphQLSchema, execute
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from incentive_fleet.console.graphql import errors
from incentive_fleet.console.graphql.documents import Documents, InvalidQuery, is_mutation
from incentive_fleet.console.graphql.executing import PlainExecutor
from incentive_fleet.console.graphql.limits import cost_of
from incentive_fleet.console.graphql.reading import Asking
from incentive_fleet.console.graphql.requests import ApiRequest, NotOurs, asked_by
from incentive_fleet.console.graphql.schema import executable
from incentive_fleet.console.graphql.waking import Waking
from incentive_fleet.console.premises import Premises, premises_of, visitor_of
from incentive_fleet.console.visitors import Visitor
from incentive_fleet.errors import FleetError, Refused, TransientError

COST_HEADER: Final = "X-Query-Cost"
THREADS: Final = 20  # beside those that the pages have: programs that ask for much hold up no person

log = logging.getLogger(__name__)


@cache
def _schema() -> GraphQLSchema:
    return executable()


@cache
def _documents() -> Documents:
    return Documents(_schema())


async def endpoint(request: Request) -> Response:
    """/graphql."""
    try:
        visitor = visitor_of(request)
        asked = await asked_by(request)
    except NotOurs as error:
        return _refused(Refused("not-allowed", error.detail), error.status)
    except Refused as refused:
        return _refused(refused, 401 if refused.reason == "login-needed" else 400)
    try:
        return await to_thread.run_sync(answer, premises_of(request), visitor, asked, limiter=_threads(request))
    except Exception as error:  # a bug, which leaves the process as a code and nothing else
        log.exception("a query could not be answered")
        return _response({"errors": errors.refusal(error)}, 500)


def _threads(request: Request) -> CapacityLimiter:
    """Of the server, made with its first request: it belongs to one event loop."""
    state = request.app.state
    if not hasattr(state, "graphql_threads"):
        state.graphql_threads = CapacityLimiter(THREADS)
    threads: CapacityLimiter = state.graphql_threads
    return threads


def answer(premises: Premises, visitor: Visitor, asked: ApiRequest) -> Response:
    """The response. It blocks, for as long as the deadline and a wait for a connection allow."""
    ends_at = monotonic() + asked.deadline_s
    try:
        prepared = _documents().ready(asked.query, asked.extensions)
        operation = prepared.operation(asked.operation)
        if is_mutation(operation) and not asked.by_post:
            return _refused(Refused("not-allowed", "a mutation comes by POST"), 405, {"Allow": "POST"})
        cost = cost_of(_schema(), prepared.document, operation, asked.variables)
    except InvalidQuery as invalid:
        return _response({"errors": errors.faults(invalid)}, 400)
    except FleetError as refused:
        return _refused(refused, 400)
    asking = Asking(premises, visitor, ends_at)
    with suppress(TransientError), closing(asking):  # what was read was read, however the transaction ends
        result = _executed(prepared.document, asked, asking)
    return _told(result, cost)


def _executed(document: DocumentNode, asked: ApiRequest, asking: Asking) -> ExecutionResult:
    result = execute(
        _schema(),
        document,
        context_value=asking,
        variable_values=asked.variables,
        operation_name=asked.operation,
        is_awaitable=_is_coroutine,
        executor_class=PlainExecutor,
    )
    if isinstance(result, ExecutionResult):
        return result
    with closing(Waking()) as loop:
        return loop.run_until_complete(result)


def _is_coroutine(value: object) -> TypeGuard[Awaitable[Any]]:
    """No resolver returns anything else that is awaited, and every value of an answer is asked."""
    return type(value) is CoroutineType


def _told(result: ExecutionResult, cost: int) -> Response:
    document: dict[str, Any] = {"data": result.data}
    status = 200
    if result.errors:
        document = {"errors": errors.failures(result.errors)} | document
        if result.data is None and all(error.path is None for error in result.errors):  # variables: nothing was run
            del document["data"]
            status = 400
    return _response(document, status, {COST_HEADER: str(cost)})


def _refused(error: FleetError, status: int, headers: dict[str, str] | None = None) -> Response:
    entries = errors.refusal(error)
    return _response({"errors": entries}, 200 if errors.is_not_found(entries) else status, headers)


def _response(document: dict[str, Any], status: int, headers: dict[str, str] | None = None) -> Response:
    return Response(to_json(document), status, headers, "application/json")
