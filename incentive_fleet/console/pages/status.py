"""The first page: how everything stands, live by Server-Sent Events while somebody looks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any, Final

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from incentive_fleet.console.pages.charts import chart
from incentive_fleet.console.pages.looking import Lookout, Sighting, lookout_of
from incentive_fleet.console.pages.shell import fill, page
from incentive_fleet.console.premises import premises_of, still_known, visitor_of
from incentive_fleet.console.visitors import Work

FIRST_S: Final = 2.0  # that the page waits for the first look; the rest comes live
LIVE_S: Final = 600.0  # then the browser asks anew
TICK_S: Final = 0.5
AGAIN_MS: Final = 3_000
CAUSES_SHOWN: Final = 10


def routes() -> list[Route]:
    """Of this page."""
    return [Route("/", show), Route("/status/events", events)]


def show(request: Request) -> Response:
    """The page."""
    visitor_of(request).require(Work.LOOK)
    return page(request, "status.html", _shown(lookout_of(request).seen(FIRST_S)))


async def events(request: Request) -> Response:
    """The page's inside, again and again as a new look is there."""
    visitor_of(request).require(Work.LOOK)
    return StreamingResponse(
        _stream(request, lookout_of(request)),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def _stream(request: Request, lookout: Lookout) -> AsyncIterator[str]:
    yield f"retry: {AGAIN_MS}\n\n"
    if not lookout.listeners.acquire(blocking=False):
        yield "event: full\ndata: full\n\n"
        return
    try:
        stop, until, told = premises_of(request).stop, time.monotonic() + LIVE_S, 0
        while not stop.is_set() and time.monotonic() < until and await still_known(request):
            seen = await run_in_threadpool(lookout.seen)
            if seen is not None and seen.number != told:
                told = seen.number
                yield _event(await run_in_threadpool(fill, request, "status_inside.html", _shown(seen)))
            await asyncio.sleep(TICK_S)
    finally:
        lookout.listeners.release()


def _event(html: str) -> str:
    data = "\n".join(f"data: {line}" for line in html.splitlines() if line.strip())
    return f"event: status\n{data}\n\n"


def _shown(seen: Sighting | None) -> dict[str, Any]:
    if seen is None:
        return {"seen": None}
    return {
        "seen": seen.status,
        "causes_shown": CAUSES_SHOWN,
        "minutes": round((seen.samples[-1].at - seen.samples[0].at) / 60),
        "charts": {
            name: chart([(one.at, getattr(one, name)) for one in seen.samples]) for name in ("rate", "lag_s", "letters")
        },
    }
