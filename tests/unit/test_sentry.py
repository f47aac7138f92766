"""Unexpected errors at a local Sentry: what arrives, how often, that nothing private does, and that nobody waits for it."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from incentive_fleet.addresses import described
from incentive_fleet.embedded.process import free_port
from incentive_fleet.errors import BrokerUnavailable, Malformed, SettingsError
from incentive_fleet.literal import literal_json
from incentive_fleet.logs import PLACES_MAX, JsonLines, Traces
from incentive_fleet.release import version
from incentive_fleet.sentry import AGAIN_S, CHAIN_MAX, FRAMES_MAX, QUEUE_EVENTS, SentryHandler, reporting
from incentive_fleet.settings import Settings
from tests.canaries import CANARY, traces
from tests.sentry_ingest import Ingest, ingest

log = logging.getLogger("incentive_fleet.tests")
PLACE = "incentive_fleet/literal.py:literal_json"


def settings_for(sentry: Ingest, **more: str) -> Settings:
    return Settings.from_environment({"INCENTIVES_SENTRY_DSN": sentry.dsn} | more)


def caught(fault: Callable[[], Any]) -> Exception:
    try:
        fault()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def a_bug() -> Exception:
    """One within the product, whose words, notes, cause and variables repeat what it was given."""
    circle: list[Any] = [{"customer_id": CANARY}]
    circle.append(circle)

    def fail() -> None:
        try:
            raise KeyError(f"no such customer: {CANARY}")
        except KeyError as error:
            error.add_note(f"of {CANARY}")
            literal_json({CANARY: circle})

    error = caught(fail)
    error.args = (f"{error}: {CANARY}",)
    return error


def test_class_place_and_reason_arrive_and_nothing_that_was_given() -> None:
    with ingest() as sentry:
        with reporting(settings_for(sentry, INCENTIVES_SENTRY_ENVIRONMENT="trial")):
            log.error("unexpected error", extra={"events": 7, "error": CANARY} | Traces().told(a_bug()))
            log.error("a batch of %s failed", CANARY, exc_info=a_bug())
            log.error("no error is in this line, and nothing is told of it", extra={"error": CANARY})
        first, second = sentry.events
        assert traces(b"".join(sentry.raw).decode()) == []
    assert first["fingerprint"] == ["builtins.ValueError", PLACE, "unexpected error"]
    assert second["fingerprint"] == ["builtins.ValueError", PLACE, "a batch of %s failed"]
    assert first["extra"] == {"times": 7}
    assert (first["environment"], first["release"]) == ("trial", f"incentive-fleet@{version()}")
    assert first["level"] == "error"
    cause, error = first["exception"]["values"]
    assert (cause["type"], error["type"], error["value"]) == ("KeyError", "ValueError", "unexpected error")
    *_, ours = [frame for frame in error["stacktrace"]["frames"] if frame["in_app"]]
    assert (ours["filename"], ours["function"]) == tuple(PLACE.split(":"))
    assert error["stacktrace"]["frames"][-1]["filename"] == "json/encoder.py"
    frames = [frame for value in (cause, error) for frame in value["stacktrace"]["frames"]]
    assert all(set(frame) == {"filename", "function", "lineno", "in_app"} for frame in frames)
    assert not any(frame["filename"].startswith("/") for frame in frames)
    assert not {"breadcrumbs", "user", "request", "modules", "contexts"} & first.keys()


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (Malformed("wrong-type", f"customer_id is {CANARY}"), "wrong-type"),
        (psycopg.errors.NumericValueOutOfRange(f"row {CANARY} is out of range"), "22003"),
        (BrokerUnavailable(f"amqp://user:{CANARY}@host"), "said"),
    ],
)
def test_of_our_own_errors_and_the_database_s_the_code_is_told_and_not_the_words(error: Exception, reason: str) -> None:
    with ingest() as sentry:
        with reporting(settings_for(sentry)):
            log.critical("said", exc_info=error)
        assert traces(b"".join(sentry.raw).decode()) == []
    [event] = sentry.events
    assert event["fingerprint"] == [f"{type(error).__module__}.{type(error).__qualname__}", "unknown", reason]
    assert event["level"] == "fatal"


class Kept:
    """Takes events as Sentry's client does, and keeps them."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def capture_event(self, event: dict[str, Any]) -> None:
        self.events.append(event)

    def close(self, timeout: float) -> None:
        pass


def record_of(error: BaseException, said: str = "unexpected error") -> logging.LogRecord:
    about = {"name": "incentive_fleet", "levelno": logging.ERROR, "levelname": "ERROR", "msg": said}
    return logging.makeLogRecord(about | {"exc_info": (type(error), error, error.__traceback__)})


def test_an_error_that_goes_on_is_told_once_and_then_counted() -> None:
    kept, now = Kept(), [0.0]
    handler = SentryHandler(kept, lambda: now[0])
    for now[0] in (0.0, *[AGAIN_S - 1] * 400, AGAIN_S, *[AGAIN_S + 1] * 30):
        handler.handle(record_of(a_bug()))
    handler.close()
    assert [event["extra"]["times"] for event in kept.events] == [1, 401, 30]
    assert len({tuple(event["fingerprint"]) for event in kept.events}) == 1
    assert ["exception" in event for event in kept.events] == [True, False, False]


def test_one_error_that_is_logged_on_its_way_out_is_one() -> None:
    kept, error = Kept(), a_bug()
    handler = SentryHandler(kept)
    for said in ("consumer failed", "process failed"):
        handler.handle(record_of(error, said))
    handler.close()
    assert [event["fingerprint"][2] for event in kept.events] == ["consumer failed"]


def test_kinds_frames_and_causes_are_bounded() -> None:
    def deep(levels: int) -> None:
        if levels:
            deep(levels - 1)
        raise ValueError

    def chained(causes: int) -> None:
        try:
            deep(200) if causes == 0 else chained(causes - 1)
        except ValueError:
            deep(200)

    kept = Kept()
    handler = SentryHandler(kept)
    handler.handle(record_of(caught(lambda: chained(10))))
    for number in range(3 * PLACES_MAX):
        handler.handle(record_of(a_bug(), f"said {number}"))
    handler.close()
    assert len(kept.events) == PLACES_MAX
    values = kept.events[0]["exception"]["values"]
    assert len(values) == CHAIN_MAX
    assert all(len(value["stacktrace"]["frames"]) == FRAMES_MAX for value in values)
    assert len(json.dumps(kept.events[0])) < 100_000


def test_a_sentry_that_takes_and_never_answers_holds_nobody_up() -> None:
    """Ends while the other side still waits; the queue is full long before, and the rest is dropped."""
    with ingest() as sentry:
        sentry.open.clear()
        with reporting(settings_for(sentry), left_s=lambda: 0.1):
            for number in range(PLACES_MAX):
                log.error("unexpected error %d" % number, exc_info=a_bug())  # noqa: UP031  (many kinds)
        assert not sentry.open.is_set()
        assert QUEUE_EVENTS < PLACES_MAX
        assert sentry.events == []


def test_a_sentry_that_is_away_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    away = Settings.from_environment({"INCENTIVES_SENTRY_DSN": f"http://publickey@127.0.0.1:{free_port()}/42"})
    with reporting(away):
        for number in range(3):
            log.error(f"unexpected error {number}", exc_info=a_bug())
    lost = [record for record in caplog.records if record.message.startswith("unexpected errors cannot be sent")]
    assert [vars(record)["why"] for record in lost] == ["network"]


def test_what_ends_a_process_is_told_and_goes_on() -> None:
    with ingest() as sentry:
        with pytest.raises(ValueError, match="in the end"), reporting(settings_for(sentry)):
            raise ValueError("in the end")
        with pytest.raises(BrokerUnavailable), reporting(settings_for(sentry)):
            raise BrokerUnavailable("this is no bug")
    assert [event["fingerprint"][2] for event in sentry.events] == ["process failed"]


def test_a_line_of_the_log_is_the_same_with_it_and_without() -> None:
    error = a_bug()
    told = Traces().told(error)
    line = logging.makeLogRecord({"name": "incentive_fleet", "msg": "unexpected error"} | told)
    assert "culprit" not in json.dumps(json.loads(JsonLines().format(line)))


def test_without_the_packages_the_start_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentry_sdk", None)
    told = r"INCENTIVES_SENTRY_DSN is set, and needs the packages of incentive-fleet\[sentry\]\."
    with ingest() as sentry, pytest.raises(SettingsError, match=told), reporting(settings_for(sentry)):
        raise AssertionError("it must not start")


def test_off_nothing_of_it_is_imported() -> None:
    script = (
        "import sys; from incentive_fleet.settings import Settings; from incentive_fleet.sentry import reporting\n"
        "import incentive_fleet.consumers.worker, incentive_fleet.telemetry.watching\n"
        "with reporting(Settings()): pass\n"
        "sys.exit('sentry_sdk' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


@pytest.mark.parametrize(
    "dsn",
    [
        f"https://sentry.example.org/42?{CANARY}",
        f"https://{CANARY}@sentry.example.org/",
        f"https://{CANARY}@sentry.example.org/project",
        f"https://{CANARY}@sentry.example.org/42/{CANARY}",
        f"sentry://{CANARY}@sentry.example.org/42",
        f"https://{CANARY} @sentry.example.org/42",
    ],
)
def test_a_wrong_address_of_sentry_is_named_and_never_repeated(dsn: str) -> None:
    with pytest.raises(SettingsError, match="INCENTIVES_SENTRY_DSN cannot be read") as raised:
        Settings.from_environment({"INCENTIVES_SENTRY_DSN": dsn})
    assert traces(str(raised.value)) == []


@pytest.mark.parametrize("dsn", [f"https://{CANARY}@o1.ingest.example.org/42", f"http://{CANARY}:{CANARY}@h:9000/a/42"])
def test_an_address_of_sentry_is_read_and_its_key_is_told_to_nobody(dsn: str) -> None:
    assert Settings.from_environment({"INCENTIVES_SENTRY_DSN": dsn}).sentry_dsn == dsn
    assert traces(described(dsn)) == []
