"""Spans of batches, sent by OTLP over HTTP to INCENTIVES_OTLP_ENDPOINT; needs the extra `telemetry`. Off, nothing is imported.

A batch is one span with a span a phase below it, linked to the trace of each of its events: it belongs to all of them and to
none. What cannot be sent is dropped and said now and then; it keeps no batch waiting.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, cast

from incentive_fleet.errors import SettingsError
from incentive_fleet.events.traceparent import TraceParent, read_traceparent
from incentive_fleet.measuring import Batch
from incentive_fleet.release import version
from incentive_fleet.settings import Settings, variable

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.trace import SpanContext

log = logging.getLogger(__name__)

EXPORT_TIMEOUT_S: Final = 2.0  # of one request; at the end of a process all that is left has this long
SEND_EVERY_S: Final = 2.0
QUEUE_SPANS: Final = 4_096  # waiting to be sent; beyond, the newest are dropped
LINKS_MAX: Final = 5_000  # of a span: the largest batch. OpenTelemetry's own bound of 128 would drop most
SYSTEMS: Final = {"sqs": "aws_sqs"}  # what messaging.system calls our sources, where it is another word


def resource_of(settings: Settings) -> Resource:
    """Who sends: the same for spans and metrics. Raises SettingsError without the extra."""
    try:
        from opentelemetry.sdk.resources import Resource
    except ImportError:
        needs = "needs the packages of incentive-fleet[telemetry]"
        raise SettingsError(f"{variable('otlp_endpoint')} is set, and {needs}.") from None
    instance = f"{socket.gethostname()}:{os.getpid()}"
    names = {"service.name": "incentives", "service.namespace": settings.prefix, "service.version": version()}
    return Resource.create({**names, "service.instance.id": instance})


def endpoint(settings: Settings, signal: str) -> str:
    """Where a signal goes."""
    return f"{(settings.otlp_endpoint or '').rstrip('/')}/v1/{signal}"


class Spans:
    """The spans of one process. Thread-safe; `close` sends what is left, within its bound."""

    def __init__(self, settings: Settings) -> None:
        resource = resource_of(settings)
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace import SpanLimits, TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        self._provider = TracerProvider(resource=resource, span_limits=SpanLimits(max_links=LINKS_MAX))
        self._provider.add_span_processor(
            BatchSpanProcessor(
                cast(Any, Told(OTLPSpanExporter(endpoint(settings, "traces"), timeout=EXPORT_TIMEOUT_S), "traces")),
                max_queue_size=QUEUE_SPANS,
                schedule_delay_millis=SEND_EVERY_S * 1_000,
                export_timeout_millis=EXPORT_TIMEOUT_S * 1_000,
            )
        )
        self._tracer = self._provider.get_tracer("incentive_fleet", version())

    def tell(self, batch: Batch) -> None:
        """One batch, whose phases are over."""
        if not batch.laps:
            return
        from opentelemetry.trace import Link, SpanKind, set_span_in_context

        parents = filter(None, map(read_traceparent, batch.traceparents))
        at = _on_the_clock()
        attributes: dict[str, str | int] = {
            "messaging.system": SYSTEMS.get(batch.source, batch.source),
            "messaging.operation.type": "process",
            "messaging.operation.name": "process",
            "messaging.batch.message_count": batch.events,
        }
        span = self._tracer.start_span(
            "process batch",
            kind=SpanKind.CONSUMER,
            links=[Link(_context_of(parent)) for parent in parents],
            attributes=attributes,
            start_time=at(min(lap.began for lap in batch.laps)),
        )
        below = set_span_in_context(span)
        for lap in batch.laps:
            self._tracer.start_span(lap.phase, below, start_time=at(lap.began)).end(at(lap.ended))
        span.end(at(max(lap.ended for lap in batch.laps)))

    def close(self, within_s: float) -> None:
        """Send what is left, for no longer than this."""
        closing = threading.Thread(target=self._provider.shutdown, name="spans", daemon=True)
        closing.start()
        closing.join(within_s)


def _context_of(parent: TraceParent) -> SpanContext:
    from opentelemetry.trace import SpanContext, TraceFlags

    flags = TraceFlags(TraceFlags.SAMPLED if parent.sampled else TraceFlags.DEFAULT)
    return SpanContext(int(parent.trace_id, 16), int(parent.span_id, 16), is_remote=True, trace_flags=flags)


def _on_the_clock() -> Callable[[float], int]:
    offset_ns = time.time_ns() - int(time.perf_counter() * 1e9)
    return lambda moment: offset_ns + int(moment * 1e9)


class Told:
    """An exporter of OpenTelemetry's that says once that its collector is away, and once that it is back."""

    def __init__(self, exporter: Any, what: str) -> None:
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # it would say so at each try
        self._exporter = exporter
        self._what = what
        self._well = True

    def export(self, batch: Any, **options: Any) -> Any:
        """As the exporter does."""
        result = self._exporter.export(batch, **options)
        well = result.name == "SUCCESS"
        if well != self._well:
            self._well = well
            told = "are sent again" if well else "cannot be sent and are dropped"
            log.log(logging.INFO if well else logging.WARNING, "%s %s", self._what, told)
        return result

    def shutdown(self, *arguments: Any, **options: Any) -> None:
        """As the exporter does."""
        self._exporter.shutdown(*arguments, **options)

    def force_flush(self, timeout_millis: float = 0) -> bool:
        """Nothing is kept here."""
        return True
