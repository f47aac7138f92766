"""How often Python looks for cyclic garbage. Batches make none and hold tens of thousands of objects, so looking costs a
fifth of a worker's time at Python's own thresholds and finds nothing; what errors leave behind is still found, later. In the
console, whoever asks just then would wait until all that it has imported was looked at."""

from __future__ import annotations

import ctypes
import gc
from typing import Final

YOUNG_MAX: Final = 50_000  # new objects between two looks; a batch of 500 holds 20,000, and the rest is some 5 MB

M_MMAP_THRESHOLD: Final = -3  # malloc.h; setting it ends the raising
LARGE_BYTES: Final = 128 * 1024


def look_seldom() -> None:
    """For a process that does nothing but consume or serve: to be called when all is imported. What exists by then is never
    looked at."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_MAX, 20, 20)


def return_large_blocks() -> None:
    """Have memory of 128 KiB and more go back to the system as soon as it is free. The C library of Debian and most others
    raises that bound by itself up to 32 MiB, once a large block was freed, and would keep what a few huge bodies needed."""
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):  # musl has none, and needs none
        mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)
