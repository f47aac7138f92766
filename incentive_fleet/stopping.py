"""The stop: one order to end that reaches every wait, and how long the end may take.

Whatever can wait for long (a receive, a pause, a confirm, a connection) is given the stop and asks it. It never ends a
thread or a process by itself; who serves signals does (cli/interrupts.py).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from math import inf
from typing import Final

from incentive_fleet.errors import TransientError

DRAIN_S: Final = 25.0  # as INCENTIVES_DRAIN_S: Kubernetes and ECS kill after 30
SLICE_S: Final = 0.2  # how long a wait for something else goes on before it looks at the stop again
GIVE_BACK_S: Final = 2.0  # of the drain, a quarter at the most, kept for giving back what is held


class DrainCut(TransientError):
    """The drain was over before everything had ended. What was under way comes again; a retry helps."""


class Stop:
    """Set once, for good. Thread-safe, but not for signal handlers: they may interrupt a thread that holds its lock."""

    def __init__(self, drain_s: float = DRAIN_S) -> None:
        self.drain_s = drain_s
        self._event = threading.Event()
        self._since = inf  # monotonic
        self._children: list[Stop] = []

    def child(self) -> Stop:
        """A stop that is set with this one, or by itself before."""
        child = Stop(self.drain_s)
        self._children.append(child)
        if self.is_set():
            child.set()
        return child

    def set(self) -> None:
        """Begin to drain. Idempotent."""
        if not self._event.is_set():
            self._since = time.monotonic()
            self._event.set()
        for child in self._children:
            child.set()

    def is_set(self) -> bool:
        """Whether to end."""
        return self._event.is_set()

    @property
    def since(self) -> float | None:
        """When it was set, on the monotonic clock."""
        return None if self._since == inf else self._since

    def wait(self, seconds: float) -> bool:
        """Sleep, but no longer than until the stop; whether it is set."""
        return self._event.wait(max(0.0, seconds))

    def left_s(self) -> float:
        """What is left of the drain in seconds, 0 when it is over; without end while nobody said stop."""
        return max(0.0, self._since + self.drain_s - time.monotonic())

    def left_to_finish_s(self) -> float:
        """As `left_s`, less what is kept for giving back what could not be finished."""
        return max(0.0, self.left_s() - min(GIVE_BACK_S, self.drain_s / 4))

    def wait_for(
        self, changed: threading.Condition, done: Callable[[], bool], seconds: float, *, patience_s: float = 0.0
    ) -> bool:
        """Wait, holding `changed`, until `done`, at most `seconds`, and at most `patience_s` beyond the stop."""
        until = time.monotonic() + seconds
        while not done():
            left_s = min(until, self._since + patience_s) - time.monotonic()
            if left_s <= 0:
                return False
            changed.wait(min(left_s, SLICE_S))
        return True


def join(threads: Iterable[threading.Thread], stop: Stop) -> bool:
    """Wait until the threads have ended; once the stop is set, no longer than its drain. Whether all have ended."""
    waiting = list(threads)
    while waiting := [thread for thread in waiting if thread.is_alive()]:
        if stop.left_s() <= 0:
            return False
        waiting[0].join(min(stop.left_s(), SLICE_S))
    return True
