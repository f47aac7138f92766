"""Recovery: what is away is waited for and costs no message anything; a bug costs its culprit alone; a lost claim is no error.

Postgres here is a server of the module's own, for it is crashed.
"""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from incentive_fleet.brokers.memory import MemoryBroker, MemoryTransport
from incentive_fleet.brokers.message_headers import FAILURE
from incentive_fleet.brokers.messages import Delivery
from incentive_fleet.consumers.consumer import Consumer
from incentive_fleet.consumers.core import HOST, Core
from incentive_fleet.consumers.worker import DRAINED
from incentive_fleet.embedded import sample_shop
from incentive_fleet.embedded.postgres import Postgres
from incentive_fleet.ledger.session import Session
from incentive_fleet.settings import Settings
from incentive_fleet.stopping import Stop
from tests.brokers_and_workers import SOURCES, Brokers, Source, log_of, said, start_worker
from tests.chaos.faulty_proxy import FaultyProxy
from tests.contract.brokers_under_test import eventually
from tests.parts import fresh_database
from tests.shop import balances, calm_balances, faults, open_shop

SHOP = sample_shop.Shop(12, seed=4, refunds=0.5)
EVENTS = [body for _, body in sample_shop.events(SHOP)]
IDLE_S = 0.3
# The bug strikes the placing of one order; NUL in its text is what Postgres would refuse to keep.
CULPRIT = "s-000003"
BUG = f"""
from incentive_fleet.events.models import OrderPlaced
from incentive_fleet.ledger import batch

without_bug = batch.take_effect

def with_bug(working, campaigns, fact):
    if fact.order_id == "{CULPRIT}" and isinstance(fact.data, OrderPlaced):
        raise ZeroDivisionError("a bug\\x00 in the rules")
    return without_bug(working, campaigns, fact)

batch.take_effect = with_bug
"""


BROKER_SETTINGS = {"sqs_visibility_s": 2}


@pytest.fixture
def url(own_postgres: Postgres, own_template: str) -> Iterator[str]:
    """A ledger with the shop's campaigns and grants."""
    own_postgres.start()
    with fresh_database(own_postgres, own_template) as url:
        open_shop(url, SHOP)
        yield url


@pytest.fixture(scope="module")
def calm(own_postgres: Postgres, own_template: str) -> dict[str, int]:
    with fresh_database(own_postgres, own_template) as url:
        open_shop(url, SHOP)
        return calm_balances(url, EVENTS)


@pytest.fixture
def settings(brokers: Brokers, url: str) -> Settings:
    return brokers.settings.model_copy(update={"database_url": url})


@contextmanager
def running(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """A worker that the test leaves behind when it fails is killed."""
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def count(url: str, query: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute(query.encode()).fetchone()
    assert row is not None
    return int(row[0])


def blocked(url: str) -> int:
    """How many of the fleet's sessions wait for a lock."""
    return count(
        url,
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND wait_event_type = 'Lock' AND application_name LIKE 'incentives consume%'",
    )


@contextmanager
def held_up(url: str) -> Iterator[Callable[[], None]]:
    """No batch gets past its first statement until the body calls what it is given."""
    with psycopg.connect(url) as connection:
        connection.execute("LOCK TABLE orders IN ACCESS EXCLUSIVE MODE")
        yield connection.rollback


def test_the_held_batch_is_retried_by_itself_after_postgres_comes_back(
    own_postgres: Postgres, url: str, calm: dict[str, int], caplog: pytest.LogCaptureFixture
) -> None:
    broker, tried = MemoryBroker(), list[list[Delivery]]()
    for body in EVENTS:
        broker.publish(body, json.loads(body)["type"])

    class Recorded(Core):
        def process(self, deliveries: Any, *, carries_failures: bool) -> Any:
            tried.append(list(deliveries))
            return Core.process(self, deliveries, carries_failures=carries_failures)

    core = Recorded(Session(url), (5.0,), lambda: datetime.now(UTC))
    consumer = Consumer("held", MemoryTransport(broker), core, 500, 0.1, 0.2, Stop())
    own_postgres.kill()
    thread = threading.Thread(target=consumer.run, args=(0.1,))
    with caplog.at_level(logging.INFO, "incentive_fleet.pausing"):
        thread.start()
        eventually(lambda: len(tried) >= 3)
        own_postgres.start()
        thread.join(30)
    assert not thread.is_alive()
    assert tried[0]
    assert not any(tried[1:]), "the core held them all the time"
    assert {delivery.receive_count for delivery in tried[0]} == {1}
    states = [record.getMessage() for record in caplog.records if record.name == "incentive_fleet.pausing"]
    assert states == ["consuming paused", "consuming resumed"], f"after {len(tried)} tries"
    assert balances(url) == calm


@pytest.mark.parametrize("source", SOURCES)
def test_an_absence_of_postgres_beyond_the_visibility_counts_against_no_message(
    source: Source,
    own_postgres: Postgres,
    brokers: Brokers,
    settings: Settings,
    calm: dict[str, int],
    tmp_path: Path,
) -> None:
    url, visibility_s = settings.need_database_url(), 6
    settings = settings.model_copy(update={"sqs_visibility_s": visibility_s})
    log, out = tmp_path / "log", tmp_path / "out"
    brokers.publish(source, EVENTS)
    locker = psycopg.connect(url)
    locker.execute("LOCK TABLE orders IN ACCESS EXCLUSIVE MODE")
    with running(start_worker(source, settings, log=log, out=out)) as worker:
        eventually(lambda: blocked(url) == 1)
        own_postgres.kill()  # in the middle of a batch
        locker.close()
        eventually(lambda: said(log, "consuming paused"))
        # Nothing happens that could be waited for: the time itself is what the messages must outlive.
        threading.Event().wait(visibility_s + 1)
        own_postgres.start()
        eventually(lambda: count(url, "SELECT count(*) FROM facts") == len(EVENTS))
        eventually(lambda: said(log, "consuming resumed"))
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(20) == DRAINED
    assert [line["message"] for line in log_of(log)] == ["consuming paused", "consuming resumed"]
    counts = json.loads(out.read_text().splitlines()[-1])["counts"]
    assert counts.keys() <= {"applied", "waiting"}, "every message was held all the time, so none came twice"
    assert balances(url) == calm
    assert faults(url) == {}
    assert brokers.left(source) == {}
    assert brokers.letters(source) == []
    assert count(url, "SELECT count(*) FROM attempts") == 0


@pytest.mark.parametrize("source", SOURCES)
def test_a_bug_costs_its_culprit_alone_and_ends_in_the_dead_letters_with_its_history(
    source: Source, brokers: Brokers, settings: Settings, url: str, calm: dict[str, int], tmp_path: Path
) -> None:
    log = tmp_path / "log"
    before = datetime.now(UTC)
    brokers.publish(source, EVENTS)
    with running(start_worker(source, settings, until_idle_s=IDLE_S, log=log, script=BUG)) as worker:
        assert worker.wait(60) == 0
    [letter] = brokers.letters(source)
    failure = json.loads(letter.headers[FAILURE])
    attempts = len(settings.retry_delays_s) + 1
    assert letter.reason == "unexpected-error"
    assert json.loads(letter.body)["subject"] == CULPRIT
    assert (failure["attempts"], failure["error_class"], failure["host"]) == (
        attempts,
        "builtins.ZeroDivisionError",
        HOST,
    )
    assert "in the rules" in failure["message"]
    assert "with_bug" in failure["traceback"]
    first, last = (datetime.fromisoformat(failure[name]) for name in ("first_at", "last_at"))
    assert before <= first <= last - timedelta(seconds=0.9 * sum(settings.retry_delays_s))
    assert [line["attempts"] for line in said(log, "unexpected error")] == list(range(1, attempts + 1))
    assert count(url, "SELECT count(*) FROM facts") == len(EVENTS) - 1
    assert count(url, "SELECT count(*) FROM attempts") == 0, "nothing is counted for a message that is gone"
    # The bug is mended; what it kept out is sent again, and all is as if it had never been.
    brokers.publish(source, [letter.body])
    assert start_worker(source, settings, until_idle_s=IDLE_S).wait(60) == 0
    assert balances(url) == calm
    assert faults(url) == {}
    assert brokers.left(source) == {}


def test_a_visibility_that_ran_out_while_the_batch_ran_is_no_error(
    brokers: Brokers, settings: Settings, url: str, calm: dict[str, int], tmp_path: Path
) -> None:
    logs = [tmp_path / "first", tmp_path / "second"]
    with held_up(url) as let_go:
        brokers.publish("sqs", EVENTS)
        with running(start_worker("sqs", settings, until_idle_s=IDLE_S, log=logs[0])) as first:
            eventually(lambda: blocked(url) == 1)
            first.send_signal(signal.SIGSTOP)  # nobody extends the visibility any more
            with running(start_worker("sqs", settings, until_idle_s=IDLE_S, log=logs[1])) as second:
                eventually(lambda: blocked(url) == 2)  # the second one holds what the first believes to hold
                let_go()
                first.send_signal(signal.SIGCONT)
                assert (first.wait(60), second.wait(60)) == (0, 0)
    assert [log_of(log) for log in logs] == [[], []]
    assert balances(url) == calm
    assert faults(url) == {}
    assert brokers.left("sqs") == {}
    assert brokers.letters("sqs") == []


def test_a_channel_that_died_while_the_batch_ran_is_no_error(
    rabbitmq: Any, brokers: Brokers, settings: Settings, url: str, calm: dict[str, int], tmp_path: Path
) -> None:
    proxy, log = FaultyProxy(("127.0.0.1", rabbitmq.record.ports["amqp"])), tmp_path / "log"
    behind_proxy = settings.model_copy(update={"rabbitmq_url": f"amqp://guest:guest@127.0.0.1:{proxy.port}/%2F"})
    brokers.publish("rabbitmq", EVENTS)
    with (
        held_up(url) as let_go,
        running(start_worker("rabbitmq", behind_proxy, until_idle_s=IDLE_S, log=log)) as worker,
    ):
        eventually(lambda: blocked(url) == 1)
        proxy.cut()
        eventually(lambda: brokers.left("rabbitmq"))  # the broker has them back
        proxy.heal()
        let_go()
        assert worker.wait(60) == 0
    proxy.close()
    # The loss is told once; the same messages then come again as duplicates, and nothing else happens.
    assert [line["message"] for line in log_of(log)] == ["consuming paused", "consuming resumed"]
    assert balances(url) == calm
    assert faults(url) == {}
    assert brokers.left("rabbitmq") == {}
    assert brokers.letters("rabbitmq") == []


def test_a_broker_that_is_away_at_the_start_is_waited_for(
    rabbitmq: Any, brokers: Brokers, settings: Settings, url: str, calm: dict[str, int], tmp_path: Path
) -> None:
    proxy, log = FaultyProxy(("127.0.0.1", rabbitmq.record.ports["amqp"])), tmp_path / "log"
    proxy.cut()
    behind_proxy = settings.model_copy(update={"rabbitmq_url": f"amqp://guest:guest@127.0.0.1:{proxy.port}/%2F"})
    brokers.publish("rabbitmq", EVENTS)
    with running(start_worker("rabbitmq", behind_proxy, until_idle_s=IDLE_S, log=log)) as worker:
        eventually(lambda: said(log, "consuming paused"))
        proxy.heal()
        assert worker.wait(60) == 0
    proxy.close()
    assert [line["message"] for line in log_of(log)] == ["consuming paused", "consuming resumed"]
    assert balances(url) == calm
