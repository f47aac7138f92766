"""The relay against a real outbox and a real broker: nothing is stepped over, nothing is lost, one failure stays one."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import psycopg
import pytest

from incentive_fleet.brokers.rabbitmq.publisher import RabbitMQPublisher
from incentive_fleet.embedded.rabbitmq import RabbitMQ
from incentive_fleet.errors import SettingsError
from incentive_fleet.ledger.connection import connect
from incentive_fleet.names import outcomes_exchange
from incentive_fleet.producers.relay import any_left, relay_once, relay_round, unpublished
from incentive_fleet.producers.relay_loop import RelayPace, RelaySummary, run_relay
from incentive_fleet.stopping import Stop

APPLIED = "incentives-applied.v1"
INSERT = "INSERT INTO outbox (order_id, fact, sequence, type, body) VALUES (%s, 'placing', 1, %s, %s)"


@pytest.fixture
def exchange(channel: Any, prefix: str) -> Iterator[str]:
    """The outcomes' exchange with a queue of the same name bound for `incentives-applied.v1` alone."""
    name = outcomes_exchange(prefix)
    channel.exchange_declare(name, "topic", durable=True, auto_delete=False)
    channel.queue_declare(name, durable=True, auto_delete=False)
    channel.queue_bind(name, name, APPLIED)
    yield name
    channel.queue_delete(name)
    channel.exchange_delete(name)


@pytest.fixture
def publisher(rabbitmq: RabbitMQ, exchange: str) -> Iterator[RabbitMQPublisher]:
    with RabbitMQPublisher(rabbitmq.url, exchange) as publisher:
        yield publisher


@pytest.fixture
def arrived(channel: Any, exchange: str) -> Callable[[], list[str]]:
    """The ids of the outcomes that arrived since the last call."""

    def ids() -> list[str]:
        got = iter(lambda: channel.basic_get(exchange, no_ack=True), None)
        return [json.loads(message.body)["id"] for message in got]

    return ids


@pytest.fixture
def database(database_url: str) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


def write(database: psycopg.Connection[tuple[object, ...]], *ids: str, type_: str = APPLIED) -> None:
    for id_ in ids:
        database.execute(INSERT, (f"order-{id_}", type_, json.dumps({"id": id_, "type": type_})))


def run(database_url: str, publishers: dict[str, Any], until_idle_s: float | None = 0.01) -> RelaySummary:
    return run_relay(database_url, publishers, stop=Stop(), pace=RelayPace(until_idle_s=until_idle_s, pause_max_s=0.2))


def away() -> RabbitMQPublisher:
    return RabbitMQPublisher("amqp://127.0.0.1:1//", "nowhere")  # nothing listens on port 1


def test_an_outcome_is_published_in_order_and_its_mark_removed(
    database_url: str, database: Any, publisher: RabbitMQPublisher, arrived: Callable[[], list[str]]
) -> None:
    write(database, *"abc")
    with closing(connect(database_url)) as connection:
        assert relay_once(connection, {"rabbitmq": publisher}, 2)["rabbitmq"].published == 2
        assert unpublished(connection) == {"rabbitmq": 1, "sns": 3}
        assert relay_once(connection, {"rabbitmq": publisher}, 2)["rabbitmq"].published == 1
        assert relay_once(connection, {"rabbitmq": publisher}, 2)["rabbitmq"].published == 0
        assert not any_left(connection, "rabbitmq")
    assert arrived() == ["a", "b", "c"]


def published(database: psycopg.Connection[tuple[object, ...]]) -> list[tuple[object, ...]]:
    return database.execute("SELECT destination, outcomes, outbox_ids::text FROM publications ORDER BY 1, 2").fetchall()


def test_a_batch_leaves_one_publication_that_tells_what_was_confirmed(
    database_url: str, database: Any, publisher: RabbitMQPublisher
) -> None:
    """What a broker refused lies between the ranges; what is still marked is not among them."""
    write(database, *"ab")
    write(database, "refused", type_="nobody.v1")
    write(database, *"cd")
    (first,) = database.execute("SELECT min(outbox_id) FROM outbox").fetchone()
    with closing(connect(database_url)) as connection:
        done = relay_round(connection, "rabbitmq", publisher, 4)
        assert (done.published, [one.outbox_id for one in done.rejected]) == (3, [first + 2])
        assert published(database) == [("rabbitmq", 3, f"{{[{first},{first + 2}),[{first + 3},{first + 4})}}")]
        again = relay_round(connection, "rabbitmq", publisher, 4, set_aside=[first + 2])
        assert again.published == 1
        assert relay_round(connection, "rabbitmq", publisher, 4).published == 0  # refused again
        assert len(published(database)) == 2


def test_an_outcome_that_commits_late_is_not_stepped_over(
    database_url: str, database: Any, publisher: RabbitMQPublisher, arrived: Callable[[], list[str]]
) -> None:
    with psycopg.connect(database_url) as slow:
        write(slow, "first")  # takes the smaller id, and commits last
        write(database, "second")
        run(database_url, {"rabbitmq": publisher})
        assert arrived() == ["second"]
    run(database_url, {"rabbitmq": publisher})
    assert arrived() == ["first"]


def test_two_relays_publish_each_outcome_once(
    database_url: str,
    database: Any,
    rabbitmq: RabbitMQ,
    exchange: str,
    publisher: RabbitMQPublisher,
    arrived: Callable[[], list[str]],
) -> None:
    ids = [str(number) for number in range(300)]
    write(database, *ids)

    def relay(publisher: RabbitMQPublisher) -> RelaySummary:
        stop = Stop()
        return run_relay(database_url, {"rabbitmq": publisher}, stop=stop, pace=RelayPace(7, 0.05, poll_s=0.01))

    with RabbitMQPublisher(rabbitmq.url, exchange) as other, ThreadPoolExecutor(2) as threads:
        summaries = list(threads.map(relay, (publisher, other)))
    assert sum(summary.published["rabbitmq"] for summary in summaries) == 300
    assert Counter(arrived()) == Counter(ids)


def test_a_destination_that_is_away_does_not_hold_up_the_other(
    database_url: str, database: Any, publisher: RabbitMQPublisher, caplog: pytest.LogCaptureFixture
) -> None:
    write(database, "a", "b")
    stop = Stop()
    publishers = {"sns": away(), "rabbitmq": publisher}
    with ThreadPoolExecutor(1) as threads, caplog.at_level(logging.INFO, "incentive_fleet"):
        running = threads.submit(run_relay, database_url, publishers, stop=stop, pace=RelayPace(pause_max_s=0.05))
        with closing(connect(database_url)) as connection:
            while any_left(connection, "rabbitmq"):
                stop.wait(0.01)
        while not running.done() and not any("paused" in record.message for record in caplog.records):
            stop.wait(0.01)
        stop.set()
        summary = running.result()
    assert summary.published == {"sns": 0, "rabbitmq": 2}
    assert summary.unpublished == {"sns": 2}
    paused = [record for record in caplog.records if "paused" in record.message]
    assert len(paused) == 1  # one line for the change of state, however many tries
    assert paused[0].__dict__["destination"] == "sns"


def test_sessions_that_the_database_ends_are_opened_again(
    database_url: str, database: Any, publisher: RabbitMQPublisher, arrived: Callable[[], list[str]]
) -> None:
    stop = Stop()
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(
            run_relay, database_url, {"rabbitmq": publisher}, stop=stop, pace=RelayPace(pause_max_s=0.05)
        )
        kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'incentives-relay-rabbitmq'"
        while not database.execute(kill).fetchall():
            assert not running.done()
        write(database, "a")
        with closing(connect(database_url)) as connection:
            while any_left(connection, "rabbitmq"):
                assert not running.done()
                stop.wait(0.01)
        stop.set()
        assert running.result().published == {"rabbitmq": 1}
    assert arrived() == ["a"]


def test_a_refused_outcome_keeps_its_mark_and_lets_the_others_go(
    database_url: str,
    database: Any,
    publisher: RabbitMQPublisher,
    arrived: Callable[[], list[str]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    write(database, "lost-1", "lost-2", type_="nobody-listens.v1")
    write(database, "a", "b", "c")
    stop = Stop()
    summary = run_relay(database_url, {"rabbitmq": publisher}, stop=stop, pace=RelayPace(2, 0.01))
    assert summary.published == {"rabbitmq": 3}
    assert summary.refused == {"rabbitmq": 2}
    assert summary.unpublished == {"rabbitmq": 2, "sns": 5}
    assert arrived() == ["a", "b", "c"]
    (refused,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert "unroutable" in refused.message
    assert refused.__dict__["count"] == 2
    assert any("sns" in record.message and "does not serve" in record.message for record in caplog.records)


def test_a_destination_that_refuses_everything_ends_a_run_until_idle(
    database_url: str, database: Any, publisher: RabbitMQPublisher
) -> None:
    write(database, *"abcdef", type_="nobody-listens.v1")
    pace = RelayPace(until_idle_s=0.01, set_aside_max=3)
    summary = run_relay(database_url, {"rabbitmq": publisher}, stop=Stop(), pace=pace)
    assert summary.published == {"rabbitmq": 0}
    assert summary.unpublished is not None
    assert summary.unpublished["rabbitmq"] == 6


def test_a_missing_exchange_is_told_at_the_start(database_url: str, rabbitmq: RabbitMQ, prefix: str) -> None:
    with RabbitMQPublisher(rabbitmq.url, f"{prefix}.none") as publisher, pytest.raises(SettingsError, match="none"):
        run(database_url, {"rabbitmq": publisher})


def test_a_destination_that_the_shop_does_not_have_is_left_alone(
    database_url: str, database: Any, rabbitmq: RabbitMQ, prefix: str, publisher: RabbitMQPublisher
) -> None:
    database.execute("DELETE FROM destinations WHERE destination = 'sns'")
    write(database, "a")
    with RabbitMQPublisher(rabbitmq.url, f"{prefix}.none") as missing:
        assert run(database_url, {"sns": missing, "rabbitmq": publisher}).published == {"rabbitmq": 1}


RELAY = """
import sys
from incentive_fleet.brokers.rabbitmq.publisher import RabbitMQPublisher
from incentive_fleet.producers.relay_loop import RelayPace, run_relay
from incentive_fleet.stopping import Stop
database_url, rabbitmq_url, exchange = sys.argv[1:]
with RabbitMQPublisher(rabbitmq_url, exchange) as publisher:
    run_relay(database_url, {"rabbitmq": publisher}, stop=Stop(), pace=RelayPace(2, 0.01))
"""


@pytest.fixture
def relay_command(database_url: str, rabbitmq: RabbitMQ, exchange: str) -> list[str]:
    """A relay as a process of its own; its last words are the database's and the broker's URL, and the exchange."""
    return [sys.executable, "-c", RELAY, database_url, rabbitmq.url, exchange]


@pytest.mark.parametrize(
    ("fault", "before"),
    [
        ("relay-before-publish:2", "ab"),
        ("relay-after-publish:2", "abcd"),
    ],  # the latter publishes again, with the same ids
)
def test_a_relay_that_dies_loses_nothing(
    fault: str,
    before: str,
    database: Any,
    relay_command: list[str],
    publisher: RabbitMQPublisher,
    arrived: Callable[[], list[str]],
) -> None:
    write(database, *"abcde")
    died = subprocess.run(relay_command, env={**os.environ, "INCENTIVES_TEST_FAULT": fault}, check=False)
    assert died.returncode == -signal.SIGKILL
    assert arrived() == list(before)
    with closing(connect(relay_command[-3])) as connection:
        while any_left(connection, "rabbitmq"):  # the dead one's locks go when the server notices
            relay_round(connection, "rabbitmq", publisher, 500)
    assert arrived() == list("cde")
