"""Runs beside which nobody else ran: waiting for a quiet machine, and knowing afterwards whether it stayed so.

Everything that the benchmark starts descends from this process, so whatever CPU its descendants did not use was used by
others. A run with noisy neighbours is taken again, a bounded number of times; the quietest is kept, and the page says what
others used meanwhile.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import TypeVar

from benchmarks.measuring import TICKS, cpu_s

Result = TypeVar("Result")

SHARE_MOST = 0.08  # of the machine's CPU, used by others during a run that is kept at once
ATTEMPTS = 4
LOOK_S = 1.0
PATIENCE_S = 60.0  # before each attempt

_shares: list[float] = []
patient = True  # a quick look at whether everything runs does not wait


def in_quiet(attempt: Callable[[], Result]) -> Result:
    """The result of the quietest of a few attempts; the first that is quiet enough ends them."""
    best: tuple[float, Result] | None = None
    for _ in range(ATTEMPTS if patient else 1):
        _wait_until_quiet()
        before, began = _others_s(), time.monotonic()
        result = attempt()
        share = _share(before, began)
        if best is None or share < best[0]:
            best = (share, result)
        if share <= SHARE_MOST:
            break
    assert best is not None
    _shares.append(best[0])
    return best[1]


def told() -> str:
    """A sentence on the runs since the last call."""
    if not _shares:
        return ""
    sentence = (
        f"Other programs used {median(_shares):.0%} of the machine's CPU during the median run and {max(_shares):.0%} during"
        " the noisiest."
    )
    _shares.clear()
    return sentence


def _wait_until_quiet() -> None:
    deadline = time.monotonic() + (PATIENCE_S if patient else 0)
    while time.monotonic() < deadline:
        before, began = _others_s(), time.monotonic()
        time.sleep(LOOK_S)
        if _share(before, began) <= SHARE_MOST:
            return


def _share(before: float, began: float) -> float:
    return max(0.0, (_others_s() - before) / ((time.monotonic() - began) * (os.cpu_count() or 1)))


def _others_s() -> float:
    """CPU seconds that the machine has spent, less those of this process and all that came of it."""
    fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    user, nice, system, _idle, _waiting, interrupts, soft_interrupts, stolen = fields
    busy = user + nice + system + interrupts + soft_interrupts + stolen
    return busy / TICKS - cpu_s(os.getpid())
