"""Traces without a collector: what is a traceparent, what a batch's span says, and that nothing of it exists while it is off."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import Any

import pytest

from incentive_fleet.errors import SettingsError
from incentive_fleet.events.traceparent import TraceParent, read_traceparent, trace_id_of
from incentive_fleet.measuring import LAPS_MAX, Batch, Lap, Tally
from incentive_fleet.settings import Settings
from incentive_fleet.tracing import LINKS_MAX, Spans
from tests.otlp import attributes_of, collector

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (f"00-{TRACE}-{SPAN}-01", TraceParent(TRACE, SPAN, True)),
        (f"00-{TRACE}-{SPAN}-00", TraceParent(TRACE, SPAN, False)),
        (f"00-{TRACE}-{SPAN}-03", TraceParent(TRACE, SPAN, True)),
        (f"cc-{TRACE}-{SPAN}-01-what-comes-later", TraceParent(TRACE, SPAN, True)),
        (f"00-{TRACE}-{SPAN}-01-more", None),  # version 00 has four fields
        (f"ff-{TRACE}-{SPAN}-01", None),
        (f"00-{TRACE.upper()}-{SPAN}-01", None),
        (f"00-{'0' * 32}-{SPAN}-01", None),
        (f"00-{TRACE}-{'0' * 16}-01", None),
        (f"00-{TRACE}-{SPAN}-1", None),
        (f"00-{TRACE}-{SPAN}-01\n", None),
        (f" 00-{TRACE}-{SPAN}-01", None),
        ("", None),
        (None, None),
    ],
)
def test_a_traceparent_is_what_the_standard_says(text: str | None, found: TraceParent | None) -> None:
    assert read_traceparent(text) == found
    assert trace_id_of(text) == (found.trace_id if found else None)


def test_a_batch_is_linked_to_each_of_its_events_however_many_they_are() -> None:
    parents = [f"00-{number:032x}-{number:016x}-01" for number in range(1, 1_001)]
    began = time.perf_counter()
    batch = Batch(
        "sqs", 1_002, [Lap("lock", began, began + 0.25), Lap("commit", began + 0.25, began + 0.5)], [*parents, "bad"]
    )
    with collector() as otlp:
        spans = Spans(Settings(otlp_endpoint=otlp.url))
        spans.tell(batch)
        spans.tell(Batch("sqs"))  # nothing came
        spans.close(10)
    (whole,) = (span for span in otlp.spans if span.name == "process batch")
    assert [int.from_bytes(one.trace_id) for one in whole.links] == list(range(1, 1_001))
    assert len(parents) < LINKS_MAX
    told = attributes_of(whole)
    assert (told["messaging.system"], told["messaging.batch.message_count"]) == ("aws_sqs", 1_002)
    assert whole.end_time_unix_nano - whole.start_time_unix_nano == pytest.approx(5e8, abs=1e6)
    assert [span.name for span in otlp.spans if span.parent_span_id == whole.span_id] == ["lock", "commit"]
    assert abs(whole.start_time_unix_nano - time.time_ns()) < 60e9


def test_a_collector_that_is_away_keeps_nobody_and_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    spans = Spans(Settings(otlp_endpoint="http://127.0.0.1:9"))
    began = time.monotonic()
    for _ in range(50):
        spans.tell(Batch("sqs", 1, [Lap("lock", 0, 1)], []))
    assert time.monotonic() - began < 5
    spans.close(10)
    assert time.monotonic() - began < 15
    ours = [record.message for record in caplog.records if record.name.startswith("incentive_fleet")]
    assert ours == ["traces cannot be sent and are dropped"]


def test_a_batch_that_is_tried_for_hours_keeps_a_bounded_number_of_phases() -> None:
    tally = Tally(batch=Batch("sqs"))
    for _ in range(LAPS_MAX * 2):
        tally.phase("lock", time.perf_counter())
    assert tally.batch is not None
    assert len(tally.batch.laps) == LAPS_MAX


OFF = """
import sys
import incentive_fleet.consumers.worker, incentive_fleet.telemetry.watching
assert not [name for name in sys.modules if name.startswith("opentelemetry")]
"""


def test_nothing_of_opentelemetry_is_imported_while_it_is_off() -> None:
    subprocess.run([sys.executable, "-c", OFF], check=True)


def test_without_the_packages_the_setting_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    missing: dict[str, Any] = dict.fromkeys(("opentelemetry.sdk.resources", "opentelemetry.sdk", "opentelemetry"))
    for name in [*missing, *(name for name in sys.modules if name.startswith("opentelemetry"))]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(SettingsError, match=r"INCENTIVES_OTLP_ENDPOINT is set, and needs .*\[telemetry\]"):
        Spans(Settings(otlp_endpoint="http://collector:4318"))


@pytest.mark.parametrize(
    "endpoint", ["collector:4318", "http://ann:geheim@collector:4318", "http://collector/?key=geheim"]
)
def test_an_endpoint_is_an_address_without_a_secret(endpoint: str) -> None:
    with pytest.raises(SettingsError, match="INCENTIVES_OTLP_ENDPOINT") as caught:
        Settings.from_environment({"INCENTIVES_OTLP_ENDPOINT": endpoint})
    assert "geheim" not in str(caught.value)
