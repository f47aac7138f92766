"""Lines and steps for a chart in SVG: values become points of a box of fixed size. Pure; the template draws them.

A chart is decoration beside its text: whoever cannot see it reads the same figures there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

WIDTH: Final = 600
HEIGHT: Final = 120
EDGE: Final = 4  # so that a line at the border is drawn whole


@dataclass(frozen=True, slots=True)
class Chart:
    """A line in `WIDTH` by `HEIGHT`, and the area below it. `zero` is where zero lies."""

    line: str
    area: str
    zero: float
    low: float
    high: float
    last: float


def chart(points: Sequence[tuple[float, float | None]], *, steps: bool = False) -> Chart | None:
    """Of (place, value) in order of place; what has no value is left out. None for fewer than two values."""
    known = [(place, value) for place, value in points if value is not None]
    if len(known) < 2:
        return None
    low = min(0.0, *(value for _, value in known))
    high = max(0.0, *(value for _, value in known))
    first, width = known[0][0], (known[-1][0] - known[0][0]) or 1.0

    def across(place: float) -> float:
        return round(EDGE + (place - first) / width * (WIDTH - 2 * EDGE), 1)

    def up(value: float) -> float:
        return round(HEIGHT - EDGE - (value - low) / ((high - low) or 1.0) * (HEIGHT - 2 * EDGE), 1)

    drawn: list[tuple[float, float]] = []
    for place, value in known:
        if steps and drawn:
            drawn.append((across(place), drawn[-1][1]))
        drawn.append((across(place), up(value)))
    line = " ".join(f"{x:g},{y:g}" for x, y in drawn)
    zero = up(0.0)
    area = f"{drawn[0][0]:g},{zero:g} {line} {drawn[-1][0]:g},{zero:g}"
    return Chart(line, area, zero, low, high, known[-1][1])


@dataclass(frozen=True, slots=True)
class Bars:
    """A bar for each value: (x, y, width, height)."""

    rects: list[tuple[float, float, float, float]]
    high: int
    total: int


def bars(values: Sequence[int]) -> Bars:
    """Of counts, in order."""
    high = max(values, default=0)
    step = (WIDTH - 2 * EDGE) / max(1, len(values))
    wide = round(min(step * 0.8, 40), 1)
    rects = []
    for place, value in enumerate(values):
        tall = round(value / (high or 1) * (HEIGHT - 2 * EDGE), 1)
        rects.append((round(EDGE + place * step, 1), round(HEIGHT - EDGE - tall, 1), wide, tall))
    return Bars(rects, high, sum(values))
