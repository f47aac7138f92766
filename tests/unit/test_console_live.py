"""The live status ends: with the process, after its minutes, and at once for one too many who look."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any, cast

import pytest

from incentive_fleet.console.pages import status
from incentive_fleet.console.pages.looking import LISTENERS_MAX, Lookout
from incentive_fleet.console.premises import Premises
from incentive_fleet.measuring import Tally
from incentive_fleet.settings import Settings
from incentive_fleet.stopping import Stop


async def known(_request: object) -> bool:
    return True


def _told(stop: Stop, lookout: Lookout) -> list[str]:
    """All that a listener is told until its stream ends."""
    premises = Premises(Settings(), cast("Any", None), stop, Tally())
    app = SimpleNamespace(state=SimpleNamespace(premises=premises))
    request = cast("Any", SimpleNamespace(app=app, scope={"still_known": known}))

    async def listen() -> list[str]:
        return [part async for part in status._stream(request, lookout)]

    # In a thread: a browser that drives another test has a loop in this one.
    with ThreadPoolExecutor(1) as threads:
        return threads.submit(lambda: asyncio.run(asyncio.wait_for(listen(), 20))).result()


def _left(lookout: Lookout) -> int:
    """How many more may listen."""
    taken = 0
    while lookout.listeners.acquire(blocking=False):
        taken += 1
    for _ in range(taken):
        lookout.listeners.release()
    return taken


def test_one_too_many_is_told_so_and_no_more() -> None:
    lookout = Lookout(Settings(), Stop())
    for _ in range(LISTENERS_MAX):
        assert lookout.listeners.acquire(blocking=False)
    assert _told(Stop(), lookout) == ["retry: 3000\n\n", "event: full\ndata: full\n\n"]
    assert _left(lookout) == 0, "one who was turned away gives no place back"


def test_a_stream_ends_with_the_process_and_gives_its_place_back() -> None:
    stop = Stop()
    stop.set()
    lookout = Lookout(Settings(), stop)
    assert _told(stop, lookout) == ["retry: 3000\n\n"]
    assert _left(lookout) == LISTENERS_MAX


def test_a_stream_ends_after_its_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "LIVE_S", 0.0)
    lookout = Lookout(Settings(), Stop())
    assert _told(Stop(), lookout) == ["retry: 3000\n\n"]
    assert _left(lookout) == LISTENERS_MAX


def test_an_event_is_one_whatever_lines_its_html_has() -> None:
    assert status._event("<p>a</p>\n\n  <p>b</p>\r\n") == "event: status\ndata: <p>a</p>\ndata:   <p>b</p>\n\n"
