"""How often Python looks for cyclic garbage. Batches make none and hold tens of thousands of objects, so looking costs a
fifth of a worker's time at Python's own thresholds and finds nothing; what errors leave behind is still found, later."""

from __future__ import annotations

import gc
from typing import Final

YOUNG_MAX: Final = 50_000  # new objects between two looks; a batch of 500 holds 20,000, and the rest is some 5 MB


def look_seldom() -> None:
    """For a process that does nothing but consume: to be called when all is imported. What exists by then is never looked at."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_MAX, 20, 20)
