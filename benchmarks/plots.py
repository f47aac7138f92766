"""Plots as SVG text: bars with their spread, and lines. Two plain kinds are all the benchmark needs, so no library."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH, LEFT, RIGHT, TOP, ROW = 760, 190, 110, 48, 30
COLOURS = ("#1b6e53", "#c2572b", "#3a5fa8", "#8a4f9e", "#7a7a32", "#444444", "#b0893a", "#2f8f9d")
STYLE = "font-family='Helvetica, Arial, sans-serif' font-size='13' fill='#222'"


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar: median, and least and most as a whisker. `ours` colours it."""

    label: str
    median: float
    least: float
    most: float
    ours: bool = False


@dataclass(frozen=True, slots=True)
class Line:
    label: str
    points: Sequence[tuple[float, float]]


def bars(title: str, unit: str, values: Sequence[Bar]) -> str:
    """Horizontal bars, the scale beginning at nought."""
    most = max(bar.most for bar in values) or 1.0
    room = WIDTH - LEFT - RIGHT
    height = TOP + ROW * len(values) + 20
    parts = [_text(16, 26, f"{title} ({unit})", bold=True)]
    for number, bar in enumerate(values):
        y = TOP + ROW * number
        length, low, high = (room * value / most for value in (bar.median, bar.least, bar.most))
        colour = COLOURS[0] if bar.ours else "#9aa5a0"
        parts.append(_text(LEFT - 8, y + 17, bar.label, anchor="end"))
        parts.append(f"<rect x='{LEFT}' y='{y + 4}' width='{length:.1f}' height='18' fill='{colour}'/>")
        middle = y + 13
        parts.append(_path([(LEFT + low, middle), (LEFT + high, middle)], "#222", 1.5))
        parts.append(_text(LEFT + high + 8, y + 17, _number(bar.median)))
    return _document(height, parts)


def lines(title: str, x_unit: str, y_unit: str, values: Sequence[Line], *, logarithmic: bool = False) -> str:
    """Lines over a shared horizontal scale; `logarithmic` is for the vertical one."""
    height, bottom = 380, 330
    left, right = 70, WIDTH - 190
    xs = sorted({x for line in values for x, _ in line.points})
    ys = [y for line in values for _, y in line.points if not logarithmic or y > 0]
    low, high = (min(ys), max(ys)) if logarithmic else (0.0, max(ys, default=1.0) or 1.0)
    if logarithmic:
        low, high = 10 ** math.floor(math.log10(low)), 10 ** math.ceil(math.log10(high) + 1e-9)

    def across(x: float) -> float:
        return left + (right - left) * ((x - xs[0]) / ((xs[-1] - xs[0]) or 1))

    def up(y: float) -> float:
        share = math.log(max(y, low) / low) / math.log(high / low) if logarithmic else y / high
        return bottom - (bottom - TOP) * share

    parts = [_text(16, 26, f"{title} ({y_unit})", bold=True), _text((left + right) / 2, height - 12, x_unit, "middle")]
    ticks = _decades(low, high) if logarithmic else [high * step / 4 for step in range(5)]
    for tick in ticks:
        parts.append(_path([(left, up(tick)), (right, up(tick))], "#ddd", 1))
        parts.append(_text(left - 8, up(tick) + 4, _number(tick), "end"))
    for x in xs[:: max(1, len(xs) // 8)]:
        parts.append(_text(across(x), bottom + 18, _number(x), "middle"))
    for number, line in enumerate(values):
        colour = COLOURS[number % len(COLOURS)]
        places = [(across(x), up(y)) for x, y in line.points]
        parts.append(_path(places, colour, 2))
        if len(places) <= 20:
            parts += [f"<circle cx='{x:.1f}' cy='{y:.1f}' r='3' fill='{colour}'/>" for x, y in places]
        parts.append(_path([(right + 14, TOP + 20 * number), (right + 34, TOP + 20 * number)], colour, 3))
        parts.append(_text(right + 40, TOP + 20 * number + 4, line.label))
    return _document(height, parts)


def _decades(low: float, high: float) -> list[float]:
    return [10.0**power for power in range(round(math.log10(low)), round(math.log10(high)) + 1)]


def _number(value: float) -> str:
    if value >= 100 or value == 0:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _text(x: float, y: float, text: str, anchor: str = "start", *, bold: bool = False) -> str:
    weight = " font-weight='bold'" if bold else ""
    return f"<text x='{x:.1f}' y='{y:.1f}' text-anchor='{anchor}'{weight} {STYLE}>{escape(text)}</text>"


def _path(places: Sequence[tuple[float, float]], colour: str, width: float) -> str:
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    return f"<polyline points='{points}' fill='none' stroke='{colour}' stroke-width='{width}'/>"


def _document(height: float, parts: Sequence[str]) -> str:
    head = f"<svg xmlns='http://www.w3.org/2000/svg' width='{WIDTH}' height='{height:.0f}' role='img'>"
    return "\n".join([head, "<rect width='100%' height='100%' fill='white'/>", *parts, "</svg>", ""])
