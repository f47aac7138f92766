"""`incentives status` on a real fleet: what it tells, what is new, and that nothing that is away keeps it."""

from __future__ import annotations

import json
import signal
import sys
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from click.testing import CliRunner

from incentive_fleet.brokers.registry import by_source
from incentive_fleet.cli.commands.status import span
from incentive_fleet.cli.root import cli
from incentive_fleet.dead_letters.collector import run_collector
from incentive_fleet.embedded import sample_shop
from incentive_fleet.ledger.connection import connect
from incentive_fleet.ledger.looks import keep_look, last_look
from incentive_fleet.ledger.processes import FORGOTTEN_S, SILENT_S, Serving, beat, gone, read_processes
from incentive_fleet.measuring import Tally
from incentive_fleet.settings import Settings
from incentive_fleet.stopping import Stop
from incentive_fleet.telemetry.heartbeat import figures_of
from incentive_fleet.telemetry.status import PART_S
from tests.brokers_and_workers import SOURCES, Brokers, environment_of, settings_of, start
from tests.command import Ran, incentives
from tests.contract.brokers_under_test import eventually
from tests.integration.test_docs import documented, keys
from tests.running import Hung, nowhere, refused_port
from tests.shop import open_shop

SHOP = sample_shop.Shop(20, seed=5, refunds=0.5)
EVENTS = [body for _, body in sample_shop.events(SHOP)]
PROGRAM = [sys.executable, "-m", "incentive_fleet.cli.main"]
PATIENCE_S = 60
# Objects whose keys are names: of sources, destinations, reasons, figures of a job.
OPEN = {
    "anomalies",
    "outbox",
    "processes[].sources",
    "processes[].published_per_s",
    "jobs.verify.figures",
    "jobs.verify-full.figures",
}


@pytest.fixture
def brokers(rabbitmq: Any, localstack: Any, database_url: str) -> Iterator[Brokers]:
    open_shop(database_url, SHOP)
    values = settings_of(
        f"t{uuid.uuid4().hex[:8]}",
        rabbitmq_url=rabbitmq.url,
        aws_endpoint_url=localstack.endpoint_url,
        database_url=database_url,
    )
    brokers = Brokers(values)
    brokers.apply()
    yield brokers
    brokers.close()


@contextmanager
def running(settings: Settings, folder: Path, *words: str) -> Iterator[Any]:
    process = start([*PROGRAM, *words], settings, folder / f"{words[0]}.log", folder / words[0])
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


@pytest.fixture(autouse=True)
def _two_looks_are_close(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("incentive_fleet.cli.commands.status.RATE_OVER_S", 0.1)


def status(settings: Settings, *more: str) -> Ran:
    """In this process, which saves the start; the tests that are about an end use one of their own."""
    env = {**environment_of(settings), "COLUMNS": "80", "INCENTIVES_ACTOR": "ann"}
    done = CliRunner().invoke(cli, ["status", *more], env=env)
    assert (done.exit_code, done.stderr) == (0, ""), done
    return Ran(done.exit_code, done.stdout, done.stderr)


def document(settings: Settings) -> Any:
    return status(settings, "--format", "json").document


def source(found: Any, name: str) -> Any:
    [one] = [one for one in found["sources"] if one["source"] == name]
    return one


def processes(url: str) -> dict[str, Any]:
    with closing(connect(url)) as connection:
        return {one.process.activity: one for one in read_processes(connection)}


def test_one_screen_tells_of_everything(brokers: Brokers, database_url: str, tmp_path: Path) -> None:
    settings = brokers.settings
    for name in SOURCES:
        brokers.publish(name, [*EVENTS, b"no event"])
    before = document(settings)
    for name in SOURCES:
        assert source(before, name)["ready"] == len(EVENTS) + 1
        assert (source(before, name)["out_per_s"], source(before, name)["dead"]) == (0, 0)
    assert (before["processes"], before["letters"], before["jobs"], before["since"]) == ([], [], {}, None)
    assert [part["state"] for part in before["parts"]] == ["reached"] * 3
    words = ("consume", "--from", "all", "--processes", "2")
    with running(settings, tmp_path, *words) as fleet, running(settings, tmp_path, "relay") as relay:
        eventually(lambda: letters(database_url) == 2, PATIENCE_S)
        eventually(lambda: settled(database_url) == set(SOURCES), PATIENCE_S)
        assert incentives("ledger", "verify", env=environment_of(settings)).code == 0
        after = document(settings)
        assert keys(after, OPEN) == keys(documented("status"), OPEN)
        assert {one["activity"] for one in after["processes"]} == {"fleet", "relay"}
        [told] = [one for one in after["processes"] if one["activity"] == "fleet"]
        assert told["workers"] == {"wanted": 2, "alive": 2, "restarts": 0}
        assert told["pid"] == fleet.pid
        for name in SOURCES:
            assert source(after, name)["ready"] == 0
        assert [(one["cause"], one["letters"]) for one in after["letters"]] == [("not-json", 2)]
        screen = status(settings).out
        assert max(map(len, screen.splitlines())) <= 80, screen
        assert f"{fleet.pid}" in screen
        assert "2 of 2" in screen
        assert "not-json" in screen
        assert "dead letters  2 open\n" in screen
        assert "expire        never ran" in screen
        for process in (fleet, relay):
            process.send_signal(signal.SIGTERM)
        assert (fleet.wait(60), relay.wait(60)) == (0, 0)
    assert document(settings)["processes"] == [], "what has ended says so"
    assert "No fleet runs: nothing is consumed." in status(settings).out


def letters(url: str) -> int:
    with psycopg.connect(url) as connection:
        return int(connection.execute("SELECT count(*) FROM dead_letters").fetchall()[0][0])


def settled(url: str) -> set[str]:
    """The sources of which the fleet has told that something was settled."""
    fleet = processes(url).get("fleet")
    return set(fleet.figures["sources"]) if fleet else set()


def test_what_is_new_is_what_came_since_the_last_look(brokers: Brokers, database_url: str) -> None:
    settings = brokers.settings
    collect(brokers, b"no event")
    assert "1 open\n" in status(settings).out
    collect(brokers, b"neither")
    assert "2 open, 1 new since 2" in status(settings).out
    assert "2 open, 0 new since 2" in status(settings).out
    collect(brokers, b"nor this")
    for _ in range(2):  # a program that looks is nobody, and moves nothing
        assert [one["new"] for one in document(settings)["letters"]] == [1]
    assert "3 open, 1 new since 2" in status(settings).out


def collect(brokers: Brokers, body: bytes) -> None:
    brokers.bury("rabbitmq", [body])
    run_collector([by_source("rabbitmq")], brokers.settings, Stop(), 0.2, Counter())


def test_the_last_verify_and_expire_stand_on_the_screen(brokers: Brokers, database_url: str) -> None:
    environment = environment_of(brokers.settings)
    assert incentives("ledger", "verify", env=environment).code == 0
    assert incentives("expire", "--as-of", "2026-01-01T00:00:00Z", env=environment).code == 0
    screen = status(brokers.settings).out
    assert all(f"{job} " in screen for job in ("verify", "verify-full", "expire"))
    assert screen.count(", well\n") == 3
    with psycopg.connect(database_url) as owner:
        owner.execute("UPDATE wallets SET balance = balance + 1 WHERE balance > 0")
    assert incentives("ledger", "verify", env=environment).code == 1
    screen = " ".join(status(brokers.settings).out.split())
    assert "NOT WELL: balances, debits-and-credits, wallets-and-lots; the last that went well: " in screen
    jobs = document(brokers.settings)["jobs"]
    assert (jobs["verify"]["well"], jobs["verify"]["runs"], jobs["expire"]["well"]) == (False, 2, True)
    assert jobs["verify"]["well_age_s"] > jobs["verify"]["age_s"]


def test_each_part_that_is_away_is_a_line_and_the_rest_is_told(brokers: Brokers, tmp_path: Path) -> None:
    away = {"INCENTIVES_RABBITMQ_URL": f"amqp://guest:secret@127.0.0.1:{refused_port()}/%2F"}
    ran = incentives("status", "--format", "json", env=environment_of(brokers.settings) | away)
    assert ran.code == 0, ran.err
    states = {part["part"]: part["state"] for part in ran.document["parts"]}
    assert states["database"] == states["sqs"] == "reached"
    assert states["rabbitmq"] != "reached"
    assert source(ran.document, "rabbitmq")["ready"] is None
    assert source(ran.document, "sqs")["ready"] == 0
    assert "secret" not in ran.out


@pytest.mark.parametrize("hang", [False, True], ids=["refused", "hung"])
def test_with_every_part_away_it_ends_in_time_and_says_so(tmp_path: Path, hang: bool) -> None:
    with closing(Hung()) as hung:
        began = time.monotonic()
        ran = incentives("status", env=nowhere(hung.port if hang else refused_port(), tmp_path))
        assert time.monotonic() - began < 2 * PART_S + 12, "two looks, the pause between them and the start"
    assert ran.code == 0, ran.err
    for part in ("database", "sqs", "rabbitmq"):
        assert f"{part} timed-out: no answer within 5 s" in ran.out or f"{part} unreachable: " in ran.out
    assert "reached: nothing" in ran.out


def test_it_looks_again_until_it_is_told_to_end(brokers: Brokers, tmp_path: Path) -> None:
    with running(brokers.settings, tmp_path, "status", "--watch", "1", "--format", "text") as watching:
        eventually(lambda: (tmp_path / "status").read_text().count("verify-full") >= 3, PATIENCE_S)
        watching.send_signal(signal.SIGINT)
        assert watching.wait(30) == 130
    assert "Stopped by SIGINT." in (tmp_path / "status.log").read_text()


def test_the_settings_are_needed(tmp_path: Path) -> None:
    ran = incentives("status", env={"HOME": str(tmp_path)})
    assert ran.code == 2
    assert "INCENTIVES_DATABASE_URL" in ran.err


def test_a_killed_fleet_is_seen_as_silent_and_then_forgotten(database_url: str) -> None:
    mine, other = (Serving(uuid4(), host, 1, "fleet", "0.1.0") for host in ("mine", "other"))
    with closing(connect(database_url)) as connection:
        for process in (mine, other, mine):
            beat(connection, process, {"workers": {}})
        assert [(one.process.host, one.silent) for one in read_processes(connection)] == [
            ("mine", False),
            ("other", False),
        ]
        age(database_url, SILENT_S + 1, "other")
        assert [one.silent for one in read_processes(connection)] == [False, True]
        age(database_url, FORGOTTEN_S, "other")
        assert [one.process for one in read_processes(connection)] == [mine]
        beat(connection, mine, {"workers": {}})
        assert connection.execute("SELECT count(*) FROM serving_processes").fetchall() == [(1,)]
        gone(connection, mine)
        assert read_processes(connection) == []


def age(url: str, seconds: float, host: str) -> None:
    with psycopg.connect(url) as owner:
        owner.execute(
            "UPDATE serving_processes SET seen_at = seen_at - make_interval(secs => %s) WHERE host = %s",
            (seconds, host),
        )


def test_looks_are_kept_by_name_and_for_ninety_days(database_url: str) -> None:
    with closing(connect(database_url)) as connection:
        assert last_look(connection, "ann") is None
        [(now,)] = connection.execute("SELECT now()").fetchall()
        keep_look(connection, "ann", now)
        keep_look(connection, "x" * 10_000, now)
        assert last_look(connection, "ann") == last_look(connection, "x" * 10_000) == now
        assert last_look(connection, "bob") is None
        with psycopg.connect(database_url) as owner:
            owner.execute("UPDATE status_looks SET looked_at = now() - interval '91 days' WHERE looker = 'ann'")
        keep_look(connection, "bob", now)
        assert last_look(connection, "ann") is None


def test_rates_and_lag_are_those_since_the_last_word() -> None:
    before, now = Tally(), Tally()
    for tally, acked in ((before, 100), (now, 160)):
        tally.add("incentives_deliveries_total", "sqs", "q", "ack", by=acked)
        tally.add("incentives_deliveries_total", "sqs", "q", "retry", by=acked * 9)
        tally.add("incentives_deliveries_total", "sqs", "q", "dead-letter", by=acked / 2)
        tally.observe("incentives_publish_to_commit_seconds", "sqs", "message", value=2.0, times=100)
    now.observe("incentives_publish_to_commit_seconds", "sqs", "message", value=0.5, times=60)
    now.level("incentives_last_received_age_seconds", "sqs", "q", now=3.0)
    now.level("incentives_paused", "consuming", "broker-unavailable", now=1)
    now.level("incentives_paused", "collecting", "broker-unavailable", now=0)
    told = figures_of(now, before, 10.0)
    assert told["sources"] == {"sqs": {"out_per_s": 9.0, "oldest_s": 3.0, "lag_s": 0.5}}
    assert told["paused"] == [["consuming", "broker-unavailable"]]
    json.dumps(told)


def test_of_the_workers_ages_the_oldest_counts() -> None:
    """A sum of ages is nobody's age; of bytes and of pauses the sum is what there is."""
    total = Tally()
    for held, age_s in ((5, 30.0), (7, 40.0), (0, 10.0)):
        worker = Tally()
        worker.level("incentives_held_bytes", now=held)
        worker.level("incentives_last_received_age_seconds", "sqs", "q", now=age_s)
        total.merge(worker)
    assert total.levels == {("incentives_held_bytes",): 12, ("incentives_last_received_age_seconds", "sqs", "q"): 40.0}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0 s"), (9.94, "9.9 s"), (10, "10 s"), (119, "119 s"), (120, "2 min"), (7_200, "2 h"), (200_000, "2 d")],
)
def test_a_length_of_time_is_one_number_and_its_unit(seconds: float, text: str) -> None:
    assert span(seconds) == text
