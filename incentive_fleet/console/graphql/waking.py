"""An event loop that only wakes coroutines which wait for each other: it knows no socket and no signal, so one a request is cheap.

The fields of an answer wait for nothing but the others beside them. It never blocks; whoever waits for the world blocks the thread.
"""

from __future__ import annotations

from asyncio import BaseEventLoop
from typing import Any


class _NoSockets:
    """What a loop asks for the world's news."""

    def select(self, _timeout: float | None) -> list[Any]:
        return []

    def close(self) -> None:
        pass


class Waking(BaseEventLoop):
    """Belongs to one thread; close it."""

    def __init__(self) -> None:
        super().__init__()
        self._selector = _NoSockets()

    def _process_events(self, _events: list[Any]) -> None:
        pass

    def _write_to_self(self) -> None:
        pass
