"""This host: its Python and its clock."""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Iterator
from typing import Final

from incentive_fleet.findings import NOTE, OK, UNKNOWN, Finding, Question, version_finding

PYTHON: Final = Question(
    "host-python",
    "version of Python",
    "Nobody has run this release of the fleet on that release of Python.",
    "Take a release of docs/deploy/support.md, or run the suite on yours.",
)
CLOCK: Final = Question(
    "host-clock",
    "synchronization of the clock",
    "A clock that nothing keeps drifts: the audit trail is dated wrong, and AWS refuses what is signed minutes off.",
    "Let NTP (chrony, systemd-timesyncd, or the host of the container) keep it.",
)
TIME_ERROR: Final = 5  # adjtimex(2): the clock is not synchronized
TIMEX_BYTES: Final = 512  # more than the struct has anywhere; all zero, it asks and sets nothing


def checks() -> tuple[Question, ...]:
    """Every code that `examine` may find."""
    return (PYTHON, CLOCK)


def examine() -> Iterator[Finding]:
    """What this host is set to."""
    yield version_finding(PYTHON, "Python", platform.python_version())
    yield _clock()


def _clock() -> Finding:
    """By the kernel's word; it is the same in a container."""
    try:
        state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.create_string_buffer(TIMEX_BYTES))
    except (AttributeError, OSError):
        return CLOCK.found(UNKNOWN, "not knowable on this system")
    if state < 0:
        return CLOCK.found(UNKNOWN, f"not knowable: {os.strerror(ctypes.get_errno())}")
    return CLOCK.found(NOTE if state == TIME_ERROR else OK, "not kept" if state == TIME_ERROR else "kept")
