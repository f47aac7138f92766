"""Bounds how many values a label may have whose values are not ours: the largest are told, the rest is "other". No I/O."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from incentive_fleet.measuring import OTHER, Key

Values = dict[tuple[str, ...], float]  # by the labels' values


def largest(values: Values, top: int) -> set[str]:
    """The first label's values with the largest sums; of equal ones the first by name."""
    sums: defaultdict[str, float] = defaultdict(float)
    for labels, value in values.items():
        sums[labels[0]] += value
    return set(sorted(sums, key=lambda name: (-sums[name], name))[:top])


def bounded(values: Values, kept: set[str], fold: Callable[[float, float], float]) -> Values:
    """The values of what is kept, and the rest as "other" for each combination of the further labels."""
    told: Values = {}
    for labels, value in values.items():
        key = labels if labels[0] in kept else (OTHER, *labels[1:])
        told[key] = fold(told[key], value) if key in told else value
    return told


@dataclass(slots=True)
class Admitted:
    """Which values of a counter's label are told. One that was told once stays: a counter that moved into "other" would look
    as if it had begun anew. One thread at a time."""

    _of: dict[str, set[str]] = field(default_factory=dict)

    def of(self, metric: str, values: Values, top: int) -> set[str]:
        """Those told before, and the largest of the others while there is room."""
        known = self._of.setdefault(metric, set())
        room = top - len(known)
        if room > 0:
            known |= largest({labels: value for labels, value in values.items() if labels[0] not in known}, room)
        return known


def by_metric(series: Mapping[Key, float]) -> dict[str, Values]:
    """The series of each metric."""
    found: defaultdict[str, Values] = defaultdict(dict)
    for key, value in series.items():
        found[key[0]][key[1:]] = value
    return found
