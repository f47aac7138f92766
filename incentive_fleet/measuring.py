"""What one thread counts and how long its work took, in plain numbers: cheap to write, summed by whoever tells them.

It knows no name that telemetry/table.py does not have, prints nothing, and keeps a bounded number of series: what a label
would add beyond that is counted as "other".
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Final

Key = tuple[str, ...]  # the metric's name, and its labels' values in the table's order

SERIES_MAX: Final = 500  # of one metric in one thread
LAPS_MAX: Final = 200  # of one batch, which is halved and tried again where it fails
OTHER: Final = "other"
# Upper bounds: of seconds from a fast statement to an hour's backlog, of counts up to the largest batch.
SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3_600)
COUNTS: Final = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000)
BATCH_EVENTS: Final = "incentives_batch_events"
BATCH_PHASE: Final = "incentives_batch_phase_seconds"


def bounds_of(metric: str) -> tuple[float, ...]:
    """The upper bounds of a histogram's buckets; one more, without a bound, follows."""
    return COUNTS if metric == BATCH_EVENTS else SECONDS


@dataclass(frozen=True, slots=True)
class Lap:
    """One phase of a batch, on the clock of `perf_counter`."""

    phase: str
    began: float
    ended: float


@dataclass(slots=True)
class Batch:
    """What a trace tells of a batch, from receiving to settling."""

    source: str = ""
    events: int = 0
    laps: list[Lap] = field(default_factory=list)
    traceparents: list[str] = field(default_factory=list)  # of its events


@dataclass(slots=True)
class Tally:
    """Belongs to one thread; any other may read it, and then sees what was true a moment ago.

    `sums` only grow, `levels` are what is so now, `spreads` hold the observations of each bucket and, last, their sum.
    """

    sums: dict[Key, float] = field(default_factory=dict)
    levels: dict[Key, float] = field(default_factory=dict)
    spreads: dict[Key, list[float]] = field(default_factory=dict)
    batch: Batch | None = None  # the one under way, kept only where somebody traces
    _series: dict[str, int] = field(default_factory=dict)

    def add(self, metric: str, *labels: str, by: float = 1) -> None:
        """Something happened, `by` times."""
        key = (metric, *labels)
        if key not in self.sums:
            key = self._admit(key)
        self.sums[key] = self.sums.get(key, 0) + by

    def level(self, metric: str, *labels: str, now: float) -> None:
        """Something is so much now."""
        key = (metric, *labels)
        self.levels[key if key in self.levels else self._admit(key)] = now

    def observe(self, metric: str, *labels: str, value: float, times: int = 1) -> None:
        """Something took so long, or was so many; `times` when several did alike."""
        spread = self._spread((metric, *labels))
        spread[bisect_left(bounds_of(metric), value)] += times
        spread[-1] += value * times

    def observe_all(self, metric: str, *labels: str, values: Iterable[float]) -> None:
        """Several things took so long; what is below zero, for clocks differ, took no time."""
        spread, bounds, total = self._spread((metric, *labels)), bounds_of(metric), 0.0
        for value in values:
            spread[bisect_left(bounds, value)] += 1
            total += value if value > 0 else 0.0
        spread[-1] += total

    def phase(self, name: str, began: float) -> float:
        """A phase of a batch is over that began then (`perf_counter`); returns when the next one begins."""
        now = perf_counter()
        self.observe(BATCH_PHASE, name, value=now - began)
        if self.batch is not None and len(self.batch.laps) < LAPS_MAX:
            self.batch.laps.append(Lap(name, began, now))
        return now

    def _spread(self, key: Key) -> list[float]:
        spread = self.spreads.get(key)
        if spread is None:
            spread = self.spreads.setdefault(self._admit(key), [0.0] * (len(bounds_of(key[0])) + 2))
        return spread

    def _admit(self, key: Key) -> Key:
        number = self._series[key[0]] = self._series.get(key[0], 0) + 1
        return key if number <= SERIES_MAX else (key[0], *(OTHER for _ in key[1:]))

    def merge(self, other: Tally, *, levels: bool = True) -> None:
        """Add what another counted; without `levels` when it has ended, for then nothing is so any more."""
        for key, value in dict(other.sums).items():
            self.sums[key] = self.sums.get(key, 0) + value
        for key, spread in dict(other.spreads).items():
            held = self.spreads.setdefault(key, [0.0] * len(spread))
            self.spreads[key] = [one + more for one, more in zip(held, spread, strict=True)]
        if levels:
            for key, value in dict(other.levels).items():
                known = self.levels.get(key, 0)  # of ages the oldest counts, of all else the sum
                self.levels[key] = max(known, value) if key[0].endswith("_seconds") else known + value

    def document(self) -> dict[str, object]:
        """As JSON can carry it from a worker to its supervisor."""
        return {
            "sums": [[*key, value] for key, value in dict(self.sums).items()],
            "levels": [[*key, value] for key, value in dict(self.levels).items()],
            "spreads": [[*key, list(spread)] for key, spread in dict(self.spreads).items()],
        }


def from_document(document: Mapping[str, Iterable[list[Any]]]) -> Tally:
    """What `document` gave."""
    sums, levels, spreads = (
        {tuple(row[:-1]): row[-1] for row in document[part]} for part in ("sums", "levels", "spreads")
    )
    return Tally(sums, levels, spreads)


def sum_of(tallies: Iterable[Tally]) -> Tally:
    """All of them as one."""
    total = Tally()
    for tally in tallies:
        total.merge(tally)
    return total
