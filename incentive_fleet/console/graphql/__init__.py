"""The API in GraphQL: types over plain values, loads in batches, limits on depth and cost."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response


async def endpoint(request: Request) -> Response:
    """Answer a query."""
    return JSONResponse({"errors": [{"message": "not yet"}]}, 501)
