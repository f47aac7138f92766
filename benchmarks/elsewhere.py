"""What would run on other machines and has to run on this one: the publisher of events, and the program that asks and times.

The publisher takes only the CPU that nobody else wants, and whoever asks is woken at once where the system lets it, so that neither
its waits nor its pauses are told as the server's. Nothing of the product gets another priority than it has by itself.
"""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from benchmarks.publishing import Wire, open_publisher

LAST, FIRST = 19, -10  # niceness
READY_S = 60.0


@contextmanager
def feeding(url: str, wires: Sequence[Wire], per_second: float) -> Iterator[None]:
    """A process of its own publishes them evenly while the block runs."""
    spawning = multiprocessing.get_context("spawn")
    ready = spawning.Event()
    feeder = spawning.Process(target=_feed, args=(url, wires, per_second, ready))
    feeder.start()
    try:
        if not ready.wait(READY_S):
            raise TimeoutError("the publisher did not start")
        yield
    finally:
        feeder.terminate()
        feeder.join()


def _feed(url: str, wires: Sequence[Wire], per_second: float, ready: Any) -> None:
    with open_publisher(url) as publisher:
        os.setpriority(os.PRIO_PROCESS, 0, LAST)
        ready.set()
        publisher.publish_on_schedule(list(wires), per_second)


@contextmanager
def timing() -> Iterator[bool]:
    """The block asks and times; whether it is woken before all others. Threads that it starts are too; processes must be started
    before."""
    before = os.getpriority(os.PRIO_PROCESS, 0)
    gc.collect()
    gc.disable()
    first = False
    try:
        with contextlib.suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, 0, FIRST)
            first = True
        yield first
    finally:
        os.setpriority(os.PRIO_PROCESS, 0, before)
        gc.enable()


def about() -> str:
    """A sentence on it for the page, true of this process' rights."""
    with timing() as first:
        asking = f"whoever asks has niceness {FIRST}" if first else "whoever asks has the priority of all others"
    return f"The publisher and whoever asks stand for other machines: the publisher has niceness {LAST}, and {asking}."
