"""How often Python looks for cyclic garbage, and which memory goes back to the system.

Batches make no garbage and hold tens of thousands of objects, so looking costs a fifth of a worker's time at Python's own
thresholds and finds nothing; what errors leave behind is still found, later. The console's pages do leave some, and whoever asks
just then waits while it is looked for: there it is done as often as Python does by itself, so that each time is short.
"""

from __future__ import annotations

import ctypes
import gc
from typing import Final

YOUNG_MAX: Final = 50_000  # new objects between two looks; a batch of 500 holds 20,000, and the rest is some 5 MB

M_TRIM_THRESHOLD: Final = -1  # malloc.h; setting one of the two ends the raising of both
M_MMAP_THRESHOLD: Final = -3
LARGE_BYTES: Final = 2**20  # more than the rows of a table that a batch of 500 writes
SPARE_BYTES: Final = 4 * LARGE_BYTES  # what a batch needs for its texts, and the next one again


def set_aside() -> None:
    """What exists by now is never looked at again: to be called when all is imported, by a process that has one task."""
    gc.collect()
    gc.freeze()


def look_seldom() -> None:
    """The same for a process that does nothing but consume, and what comes is looked at seldom."""
    set_aside()
    gc.set_threshold(YOUNG_MAX, 20, 20)


def return_large_blocks() -> None:
    """Have memory of 1 MiB and more go back to the system as soon as it is free, and of the rest what is spare beyond 4 MiB. The
    C library of Debian and most others raises these bounds by itself up to 32 and 64 MiB, once a large block was freed, and would
    keep what a few huge bodies needed; at the bounds that it begins with, each batch gives back what the next one asks for."""
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):  # musl has none, and needs none
        mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)
        mallopt(M_TRIM_THRESHOLD, SPARE_BYTES)
