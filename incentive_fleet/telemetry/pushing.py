"""Pushes what /metrics tells by OTLP over HTTP, for who collects by push: an OpenTelemetry collector, Datadog's agent. It needs
the extra `telemetry`. Names, labels and bounds are those of the page; what cannot be sent is told by the next push.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, cast

from incentive_fleet.measuring import Key, bounds_of
from incentive_fleet.release import version
from incentive_fleet.settings import Settings
from incentive_fleet.telemetry.exposition import Exposition
from incentive_fleet.telemetry.table import METRICS, Metric
from incentive_fleet.tracing import EXPORT_TIMEOUT_S, Told, endpoint, resource_of

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import Metric as Exported
    from opentelemetry.sdk.resources import Resource

EVERY_S: Final = 60.0  # OpenTelemetry's own default
UNITS: Final = {"_seconds": "s", "_bytes": "By"}  # by UCUM; all else is a number of things

log = logging.getLogger(__name__)


@contextmanager
def pushing(settings: Settings, exposition: Exposition, every_s: float = EVERY_S) -> Iterator[None]:
    """Push while the body runs, and once more at its end. Raises SettingsError without the extra."""
    resource = resource_of(settings)
    exporter = open_exporter(settings)
    over, began_ns = threading.Event(), time.time_ns()

    def push() -> None:
        exporter.export(_data(exposition, resource, began_ns))

    def run() -> None:
        while not over.wait(every_s):
            exposition.read()
            push()
        push()

    thread = threading.Thread(target=run, name="otlp", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(EXPORT_TIMEOUT_S + 1.0)
        exporter.shutdown()


def open_exporter(settings: Settings) -> Told:
    """To the collector of the settings; the packages of the extra must be there."""
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter

    return Told(OTLPMetricExporter(endpoint(settings, "metrics"), timeout=EXPORT_TIMEOUT_S), "metrics")


def _data(exposition: Exposition, resource: Resource, began_ns: int) -> Any:
    from opentelemetry.sdk.metrics.export import MetricsData, ResourceMetrics, ScopeMetrics
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope

    scope = InstrumentationScope("incentive_fleet", version())
    metrics = list(_metrics(exposition, began_ns, time.time_ns()))
    return MetricsData([ResourceMetrics(resource, [ScopeMetrics(scope, metrics, "")], "")])


def _metrics(exposition: Exposition, began_ns: int, now_ns: int) -> Iterator[Exported]:
    from opentelemetry.sdk.metrics.export import AggregationTemporality, Gauge, NumberDataPoint, Sum
    from opentelemetry.sdk.metrics.export import Metric as Exported

    plain, spreads = exposition.figures()
    for name, values in plain.items():
        metric = METRICS[name]
        counter = metric.type == "counter"
        points = [
            NumberDataPoint(_attributes(metric, labels), began_ns if counter else cast(int, None), now_ns, value)
            for labels, value in values.items()
        ]
        data = Sum(points, AggregationTemporality.CUMULATIVE, True) if counter else Gauge(points)
        yield Exported(name, metric.help, _unit(name), data)
    yield from _histograms(spreads, began_ns, now_ns)


def _histograms(spreads: dict[Key, list[float]], began_ns: int, now_ns: int) -> Iterator[Exported]:
    from opentelemetry.sdk.metrics.export import AggregationTemporality, Histogram, HistogramDataPoint
    from opentelemetry.sdk.metrics.export import Metric as Exported

    points: dict[str, list[HistogramDataPoint]] = {}
    for (name, *labels), spread in spreads.items():
        counts = [int(times) for times in spread[:-1]]
        unknown = cast(float, None)  # the least and the largest are not kept
        point = HistogramDataPoint(
            attributes=_attributes(METRICS[name], tuple(labels)),
            start_time_unix_nano=began_ns,
            time_unix_nano=now_ns,
            count=sum(counts),
            sum=spread[-1],
            bucket_counts=counts,
            explicit_bounds=bounds_of(name),
            min=unknown,
            max=unknown,
        )
        points.setdefault(name, []).append(point)
    for name, found in points.items():
        yield Exported(name, METRICS[name].help, _unit(name), Histogram(found, AggregationTemporality.CUMULATIVE))


def _attributes(metric: Metric, labels: tuple[str, ...]) -> dict[str, Any]:
    return dict(zip(metric.labels, labels, strict=True))


def _unit(name: str) -> str:
    return next((unit for ending, unit in UNITS.items() if name.endswith(ending)), "1")
