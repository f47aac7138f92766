"""Logs: ECS' names in JSON, lines for people on a terminal, a traceback once, and nothing in them that an event or a secret is."""

from __future__ import annotations

import json
import logging
import sys
import threading
from collections.abc import Iterator
from io import StringIO
from typing import Any

import pytest

from incentive_fleet.brokers.rabbitmq import RABBITMQ
from incentive_fleet.errors import DatabaseUnavailable
from incentive_fleet.logs import (
    CULPRIT,
    LINES_MAX,
    PLACES_MAX,
    SELDOM_S,
    HumanLines,
    JsonLines,
    Seldom,
    Traces,
    seldom,
    start_logging,
)
from incentive_fleet.measuring import Tally
from incentive_fleet.settings import Settings
from incentive_fleet.telemetry.lines import TOLD, shown, telling
from incentive_fleet.telemetry.table import COUNTED

LOGGER, NAME = "incentive_fleet.test", "ann"


@pytest.fixture
def loggers() -> Iterator[None]:
    """What `start_logging` changes is put back."""
    root, ours = logging.getLogger(), logging.getLogger("incentive_fleet")
    others = {name: logging.getLogger(name).level for name in ("pika", "psycopg")}
    handlers, level, our_level = root.handlers[:], root.level, ours.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    ours.setLevel(our_level)
    for name, before in others.items():
        logging.getLogger(name).setLevel(before)


class Terminal(StringIO):
    def __init__(self, is_one: bool) -> None:
        super().__init__()
        self.is_one = is_one

    def isatty(self) -> bool:
        return self.is_one


def written(monkeypatch: pytest.MonkeyPatch, *, terminal: bool = False, level: str = "info", form: str = "auto") -> str:
    """What lines of each level become."""
    monkeypatch.setattr(sys, "stderr", screen := Terminal(terminal))
    start_logging(level, form)
    log = logging.getLogger(LOGGER)
    log.debug("fine print")
    log.info("worker was stopped", extra={"worker": 3})
    try:
        dict[str, int]()["ann"]
    except KeyError:
        log.exception("a probe failed", extra={"part": "sq s", "error": "a\nb"})
    return screen.getvalue()


def test_json_lines_have_ecs_names_and_ours_apart(loggers: None, monkeypatch: pytest.MonkeyPatch) -> None:
    info, error = (json.loads(line) for line in written(monkeypatch).splitlines())
    assert info["message"] == "worker was stopped"
    assert (info["log.level"], info["log.logger"], info["incentives.worker"]) == ("info", LOGGER, 3)
    assert info["@timestamp"].endswith("+00:00")
    assert isinstance(info["process.pid"], int)
    assert (error["log.level"], error["error.type"], error["error.message"]) == ("error", "KeyError", "a\nb")
    assert "test_logs.py" in error["error.stack_trace"]
    known = {"@timestamp", "message", "ecs.version", "service.name", "log.level", "log.logger", "process.pid"}
    known |= {"error.type", "error.message", "error.stack_trace"}
    assert all(name in known or name.startswith("incentives.") for line in (info, error) for name in line)


def test_people_get_one_line_each_and_the_traceback_below(loggers: None, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = written(monkeypatch, terminal=True).splitlines()
    assert lines[0].endswith(" info     worker was stopped  worker=3")
    assert lines[1].endswith(' error    a probe failed  part="sq s" error="a\\nb" error_class=KeyError')
    assert len(lines) > 3
    assert all(line.startswith("    ") for line in lines[2:])


@pytest.mark.parametrize(
    ("terminal", "form", "is_json"), [(True, "json", True), (False, "text", False), (False, "auto", True)]
)
def test_a_setting_forces_either(
    loggers: None, monkeypatch: pytest.MonkeyPatch, terminal: bool, form: str, is_json: bool
) -> None:
    first = written(monkeypatch, terminal=terminal, form=form).splitlines()[0]
    assert first.startswith("{") == is_json


@pytest.mark.parametrize(("level", "lines"), [("debug", 3), ("info", 2), ("warning", 1), ("error", 1)])
def test_the_level_says_how_much(loggers: None, monkeypatch: pytest.MonkeyPatch, level: str, lines: int) -> None:
    assert len(written(monkeypatch, level=level).splitlines()) == lines


def test_a_line_repeats_no_words_that_are_not_ours_but_at_debug(loggers: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "'ann'" not in written(monkeypatch)
    assert "'ann'" in written(monkeypatch, level="debug")


def fail(cause: Exception | None = None) -> Exception:
    try:
        raise ValueError(f"customer {NAME}") from cause
    except ValueError as error:
        return error


def test_a_traceback_is_told_once_and_then_counted(loggers: None, monkeypatch: pytest.MonkeyPatch) -> None:
    written(monkeypatch)
    traces = Traces()
    told = [traces.told(fail(DatabaseUnavailable("the server is away"))) for _ in range(3)]
    trace = str(told[0]["traceback"])
    assert "in fail" in trace
    assert "DatabaseUnavailable" in trace or "the server is away" in trace
    assert "ann" not in trace
    assert told[1:] == [{CULPRIT: one[CULPRIT], "traceback_told_before": n} for n, one in enumerate(told[1:], 1)]


def test_places_are_remembered_up_to_a_bound() -> None:
    traces = Traces()
    kinds = [type(f"E{number}", (Exception,), {}) for number in range(PLACES_MAX + 5)]
    told = []
    for kind in kinds:
        try:
            raise kind
        except Exception as error:
            told.append(traces.told(error))
    assert sum("traceback" in one for one in told) == PLACES_MAX
    assert [one.keys() for one in told[PLACES_MAX:]] == [{CULPRIT}] * 5


def test_what_strangers_cause_is_told_once_a_minute_and_counted() -> None:
    now = [0.0]
    kept = Seldom(lambda: now[0])

    def told(words: str, name: str = "door") -> object:
        record = logging.LogRecord(name, logging.WARNING, "", 0, words, (), None)
        return kept.filter(record) and getattr(record, "kept_back", 0)

    assert [told("a login failed") for _ in range(500)] == [0] + [False] * 499
    assert told("the issuer is away") == 0
    assert told("a login failed", "another") == 0
    now[0] += SELDOM_S
    assert [told("a login failed") for _ in range(2)] == [499, False]
    for number in range(2 * LINES_MAX):
        told(f"kind {number}")
    assert len(kept._told) == LINES_MAX


def test_loggers_tell_everything_again_afterwards(caplog: pytest.LogCaptureFixture) -> None:
    log = logging.getLogger("door")
    with seldom("door"):
        log.warning("a login failed")
        log.warning("a login failed")
    log.warning("a login failed")
    assert [record.message for record in caplog.records] == ["a login failed"] * 2


def test_settings_are_told_without_their_secrets() -> None:
    settings = Settings(
        database_url="postgresql://ann:geheim@db.example/shop?sslpassword=geheim",
        rabbitmq_url="amqps://ann:geheim@mq.example/%2F",
        kms_key_id="alias/geheim",
        aws_region="eu-central-1",
    )
    told = shown(settings)
    assert "geheim" not in json.dumps(told)
    assert "ann" not in json.dumps(told)
    assert told["database_url"] == "postgresql://db.example/shop"
    assert (told["kms_key_id"], told["aws_region"], told["batch_size"]) == ("set", "eu-central-1", 500)


def records(caplog: pytest.LogCaptureFixture, message: str) -> list[dict[str, Any]]:
    return [vars(record) for record in caplog.records if record.message == message]


def test_a_process_tells_its_start_each_minute_and_its_end(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    tally = Tally()
    two = threading.Event()

    def counted() -> Tally:
        if len(records(caplog, "minute")) >= 2:
            two.set()
        return tally

    tally.add("incentives_events_total", "applied", by=5)
    with telling(Settings(), [RABBITMQ], "fleet", counted, every_s=0.02):
        tally.add("incentives_events_total", "applied", by=7)
        tally.add("incentives_dead_letters_total", "conflict")
        tally.level("incentives_paused", "consuming", "broker-unavailable", now=1)
        assert two.wait(30)
    (started,), (stopped,) = records(caplog, "started"), records(caplog, "stopped")
    minutes = records(caplog, "minute")
    assert (started["activity"], started["sources"], started["settings"]["prefix"]) == (
        "fleet",
        ["rabbitmq"],
        "incentives",
    )
    assert sum(minute.get("events", {}).get("applied", 0) for minute in minutes) in (7, 12)
    assert any(minute.get("events_per_s", 0) > 0 for minute in minutes)
    assert minutes[-1]["paused"] == ["consuming: broker-unavailable"]
    assert (stopped["events"], stopped["dead_letters"]) == ({"applied": 12}, {"conflict": 1})


def test_a_line_tells_of_all_work_that_a_process_counts() -> None:
    """What is counted by campaign is for the metrics: there are many of them."""
    counters = {metric.name for metric in COUNTED if metric.type == "counter"}
    assert counters - TOLD.keys() == {"incentives_redemptions_total", "incentives_refusals_total"}


def test_an_idle_day_is_a_line_a_minute() -> None:
    record = logging.makeLogRecord({"name": "incentive_fleet.telemetry.lines", "msg": "minute", "levelno": 20})
    vars(record).update(activity="fleet", seconds=60.0)
    assert len(JsonLines().format(record)) * 24 * 60 < 500_000
    assert len(HumanLines().format(record)) < 100
