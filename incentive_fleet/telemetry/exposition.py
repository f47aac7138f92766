"""The page /metrics: what the process has counted and what was read of its parts, as Prometheus reads it.

It holds no figure itself. One process answers for all its workers (ADR 26); nothing on the page is without a bound.
"""

from __future__ import annotations

import asyncio
import operator
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import ExitStack, contextmanager
from functools import partial
from math import inf
from typing import Any, Final

from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector, CollectorRegistry
from psycopg import Connection

from incentive_fleet.brokers.contract import Broker
from incentive_fleet.measuring import Key, Tally, bounds_of
from incentive_fleet.release import version
from incentive_fleet.settings import Settings
from incentive_fleet.stopping import Stop
from incentive_fleet.telemetry import figures
from incentive_fleet.telemetry.bounds import Admitted, Values, bounded, by_metric, largest
from incentive_fleet.telemetry.readings import EVERY_S, MONEY_EVERY_S, SCRAPE_WAIT_S, Ledger, Levels, Queues, Reading
from incentive_fleet.telemetry.table import METRICS, Metric

OLDEST: Final = "_oldest_seconds"  # of such gauges "other" is the oldest of the rest, of all else their sum
# Whose largest are told, where that is another metric: the two must speak of the same campaigns and causes.
LIKE: Final = {
    "incentives_campaign_budget_minor_units": "incentives_campaign_net_spend_minor_units",
    "incentives_open_dead_letters_oldest_seconds": "incentives_open_dead_letters",
}


class Exposition(Collector):
    """Gathers whenever it is asked. `page` belongs to one event loop, the rest to any thread."""

    def __init__(self, tally: Callable[[], Tally], readings: Sequence[Reading], wait_s: float = SCRAPE_WAIT_S) -> None:
        self._wait_s = wait_s
        self._tally = tally
        self._readings = readings
        self._admitted = Admitted()
        self._lock = threading.Lock()
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    async def page(self) -> tuple[str, bytes]:
        """Content type and body. What is not read within `wait_s` is told as it was read last, or not at all."""
        await asyncio.gather(
            *(_patiently(asked, self._wait_s) for reading in self._readings if (asked := reading.ask()))
        )
        return CONTENT_TYPE_LATEST, generate_latest(self._registry)

    def read(self) -> None:
        """Read anew what it is time for, as `page` does; for whoever has no event loop."""
        wait([asked for reading in self._readings if (asked := reading.ask())], SCRAPE_WAIT_S)

    def figures(self) -> tuple[dict[str, Values], dict[Key, list[float]]]:
        """What is known now, within its bounds: counters and gauges by their labels, and the spreads of histograms."""
        tally = self._tally()
        series = dict(tally.sums) | tally.levels
        for reading in self._readings:
            series |= reading.levels()
        found = by_metric(series)
        with self._lock:
            plain = {
                name: self._bounded(METRICS[name], values, found.get(LIKE.get(name, ""), values))
                for name, values in found.items()
            }
        return plain, dict(tally.spreads)

    def collect(self) -> Iterable[Family]:
        """Every family that has a value now."""
        plain, spreads = self.figures()
        yield InfoMetricFamily("incentives_build", "The release that runs.", {"version": version()})
        for name, values in plain.items():
            metric = METRICS[name]
            kind = CounterMetricFamily if metric.type == "counter" else GaugeMetricFamily
            family = kind(name, metric.help, labels=metric.labels)
            for labels, value in sorted(values.items()):
                family.add_metric(labels, value)
            yield family
        yield from _histograms(spreads)

    def _bounded(self, metric: Metric, values: Values, like: Values) -> Values:
        if metric.top is None:
            return values
        if metric.type == "counter":
            return bounded(values, self._admitted.of(metric.name, values, metric.top), operator.add)
        fold = max if metric.name.endswith(OLDEST) else operator.add
        return bounded(values, largest(like, metric.top), fold)


def _histograms(series: dict[Key, list[float]]) -> Iterator[Family]:
    families: dict[str, HistogramMetricFamily] = {}
    for (name, *labels), spread in sorted(series.items()):
        metric = METRICS[name]
        family = families.setdefault(name, HistogramMetricFamily(name, metric.help, labels=metric.labels))
        buckets, below = [], 0.0
        for bound, times in zip((*bounds_of(name), inf), spread[:-1], strict=True):
            below += times
            buckets.append((str(float(bound)) if bound < inf else "+Inf", below))
        family.add_metric(labels, buckets, spread[-1])
    yield from families.values()


async def _patiently(asked: Future[None], wait_s: float) -> None:
    try:
        async with asyncio.timeout(wait_s):
            await asyncio.wrap_future(asked)
    except TimeoutError:  # the reading goes on; a later scrape finds what it brought
        return


BACKLOG, LETTERS, SERVER, MONEY = "backlog", "dead-letters", "server", "money"
OF_LEDGER: Final[dict[str, list[tuple[str, Callable[[Connection[Any]], Levels], float]]]] = {
    BACKLOG: [(BACKLOG, figures.of_backlog, EVERY_S)],
    LETTERS: [(LETTERS, figures.of_dead_letters, EVERY_S)],
    SERVER: [(SERVER, figures.of_server, EVERY_S)],
    MONEY: [("campaigns", figures.of_campaigns, MONEY_EVERY_S), (MONEY, figures.of_money, MONEY_EVERY_S)],
}


@contextmanager
def exposing(
    settings: Settings, brokers: Iterable[Broker], stop: Stop, tally: Callable[[], Tally], parts: Iterable[str]
) -> Iterator[Exposition]:
    """The page of a process that counts in `tally`, with the gauges of these parts of the ledger and of these brokers."""
    url = settings.need_database_url()
    with ExitStack() as stack:
        readings: list[Reading] = []
        ledger = Ledger(url)
        stack.callback(ledger.close)
        for name, read, every_s in (one for part in parts for one in OF_LEDGER[part]):
            readings.append(Reading(name, partial(ledger.read, read), every_s))
        for broker in brokers:
            queues = Queues(broker, settings, stop)
            readings.append(Reading(broker.source, queues, EVERY_S))
            stack.callback(queues.close)
        for reading in readings:
            stack.callback(reading.end)  # runs before what it reads by is closed
        yield Exposition(tally, readings)
