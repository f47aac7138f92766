"""Failpoints: named steps at which a test can make this process die, as a power cut would: SIGKILL, no last words.

A hook for crash tests only. It does nothing unless INCENTIVES_TEST_FAULT is set when the process starts, to `step` or
`step:nth` (the nth time the step is met; the first by default). It never raises and never delays.
"""

from __future__ import annotations

import os
import signal
import threading

VARIABLE = "INCENTIVES_TEST_FAULT"


def _plan(value: str) -> tuple[str, int] | None:
    step, _, nth = value.partition(":")
    return (step, int(nth) if nth else 1) if step else None


_planned = _plan(os.environ.get(VARIABLE, ""))
_lock = threading.Lock()
_met = 0


def failpoint(step: str) -> None:
    """Die here if a test planned it; otherwise one comparison with None. Thread-safe."""
    if _planned is None or _planned[0] != step:
        return
    global _met
    with _lock:
        _met += 1
        if _met == _planned[1]:
            os.kill(os.getpid(), signal.SIGKILL)
