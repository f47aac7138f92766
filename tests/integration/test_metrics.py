"""/metrics of real processes: one answers for all workers, the dead included, and tells of ledger and brokers what it can."""

from __future__ import annotations

import os
import signal
import sys
import time
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from incentive_fleet.brokers import declare
from incentive_fleet.embedded import sample_shop
from incentive_fleet.embedded.postgres import Postgres
from incentive_fleet.embedded.process import free_port
from incentive_fleet.settings import Settings
from tests.brokers_and_workers import SOURCES, Brokers, settings_of, start
from tests.chaos.faults import Fleet
from tests.contract.brokers_under_test import eventually
from tests.parts import fresh_database
from tests.shop import calm_balances, open_shop
from tests.unit.test_metrics import Samples, samples

SHOP = sample_shop.Shop(20, seed=5, refunds=0.5)
EVENTS = [body for _, body in sample_shop.events(SHOP)]
PATIENCE_S = 60
# The program, whose gauges are read again after half a second: the real bounds would make the tests wait for a minute.
IMPATIENT = """
import incentive_fleet.telemetry.readings as readings
readings.EVERY_S = readings.MONEY_EVERY_S = 0.5
from incentive_fleet.cli.main import main
main()
"""
PROGRAM = [sys.executable, "-c", IMPATIENT]
CONSUME = [*PROGRAM, "consume", "--from", "all", "--processes", "2"]


def scrape(port: int | None) -> Samples:
    """Every sample; none while nobody listens."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            return samples(answer.read().decode())
    except ConnectionError:
        return {}
    except OSError as error:
        if isinstance(getattr(error, "reason", None), ConnectionError):
            return {}
        raise


def total(found: Samples, name: str, *labels: str) -> float:
    return sum(value for key, value in found.items() if key[0] == name and key[1 : 1 + len(labels)] == labels)


@pytest.fixture
def url(own_postgres: Postgres, own_template: str) -> Iterator[str]:
    with fresh_database(own_postgres, own_template) as url:
        open_shop(url, SHOP)
        yield url


@pytest.fixture
def brokers(rabbitmq: Any, localstack: Any) -> Iterator[Brokers]:
    brokers = Brokers(
        settings_of(f"t{uuid.uuid4().hex[:8]}", rabbitmq_url=rabbitmq.url, aws_endpoint_url=localstack.endpoint_url)
    )
    brokers.apply()
    yield brokers
    brokers.close()


def ends_with(process: Any, number: signal.Signals) -> int:
    process.send_signal(number)
    return int(process.wait(60))


def test_a_fleet_tells_of_its_workers_its_ledger_and_its_brokers(
    own_postgres: Postgres, url: str, brokers: Brokers, tmp_path: Path
) -> None:
    settings: Settings = brokers.settings.model_copy(update={"database_url": url, "health_port": free_port()})
    fleet = Fleet(settings, tmp_path / "log")
    fleet.process = start(CONSUME, settings, fleet.log)
    try:
        eventually(lambda: total(scrape(settings.health_port), "incentives_workers_alive") == 2, PATIENCE_S)
        for source in SOURCES:  # the same on both: one of the two is a duplicate
            brokers.publish(source, [*EVENTS, b"no event"])
        eventually(
            lambda: total(scrape(settings.health_port), "incentives_deliveries_total") == 2 * len(EVENTS) + 2,
            PATIENCE_S,
        )
        found = scrape(settings.health_port)
        new, again = (found["incentives_events_total", outcome] for outcome in ("applied", "duplicate"))
        assert new + total(found, "incentives_events_total", "waiting") == again == len(EVENTS)
        for source in SOURCES:
            assert total(found, "incentives_deliveries_total", source) == len(EVENTS) + 1
            assert found["incentives_publish_to_commit_seconds_count", source, "message"] == len(EVENTS)
            assert 0 <= found["incentives_publish_to_commit_seconds_sum", source, "message"] < 60 * len(EVENTS)
        assert found["incentives_dead_letters_total", "not-json"] == 2
        assert total(found, "incentives_redemptions_total") > 0
        assert total(found, "incentives_batch_events_sum") >= 2 * len(EVENTS)
        phases = {"receive", "decode", "lock", "decide", "write", "commit", "settle"}
        assert {key[1] for key in found if key[0] == "incentives_batch_phase_seconds_count"} == phases
        assert found["incentives_held_bytes",] == 0
        tells_of_parts(settings)
        outlives_a_worker(settings, fleet, found)
        own_postgres.kill()
        eventually(lambda: scrape(settings.health_port)["incentives_reading_up", "backlog"] == 0, PATIENCE_S)
        began = time.monotonic()
        found = scrape(settings.health_port)
        assert time.monotonic() - began < 5
        assert ("incentives_waiting_facts",) not in found
        assert found["incentives_reading_up", "rabbitmq"] == 1
        brokers.publish("rabbitmq", EVENTS[:1])
        eventually(
            lambda: scrape(settings.health_port).get(("incentives_paused", "consuming", "database-unavailable")) == 1,
            PATIENCE_S,
        )
        own_postgres.start()
        eventually(lambda: scrape(settings.health_port)["incentives_reading_up", "backlog"] == 1, PATIENCE_S)
        eventually(
            lambda: scrape(settings.health_port)["incentives_paused", "consuming", "database-unavailable"] == 0,
            PATIENCE_S,
        )
        assert fleet.end(signal.SIGTERM) == 0
    finally:
        if fleet.process.poll() is None:
            fleet.process.kill()
            fleet.process.wait()


def tells_of_parts(settings: Settings) -> None:
    def letters() -> float:
        return total(scrape(settings.health_port), "incentives_open_dead_letters", "not-json")

    eventually(lambda: letters() == 2, PATIENCE_S)  # collected, and read anew: once in fifteen seconds
    found = scrape(settings.health_port)
    assert {key[1] for key in found if key[0] == "incentives_reading_up" and found[key] == 1} == {
        *("backlog", "dead-letters", "server", "campaigns", "money"),
        *SOURCES,
    }
    assert found["incentives_open_dead_letters_oldest_seconds", "not-json"] >= 0
    assert found["incentives_outbox_unpublished", "sns"] == found["incentives_outbox_unpublished", "rabbitmq"] > 0
    assert found["incentives_outbox_oldest_seconds", "sns"] > 0
    assert found["incentives_liability_minor_units", "wallet", "EUR"] > 0
    assert total(found, "incentives_campaign_net_spend_minor_units") > 0
    assert found["incentives_database_connections", "incentives metrics"] == 1
    assert found["incentives_database_connections_max",] > 0
    for source in SOURCES:
        roles = {key[3] for key in found if key[:2] == ("incentives_queue_messages", source)}
        assert roles == ({"source", "dead-letter"} if source == "sqs" else {"source", "retry", "dead-letter"})
    assert total(found, "incentives_collected_total", "new") == 2


def outlives_a_worker(settings: Settings, fleet: Fleet, before: Samples) -> None:
    os.kill(fleet.workers()[0], signal.SIGKILL)
    eventually(lambda: total(scrape(settings.health_port), "incentives_worker_restarts_total") == 1, PATIENCE_S)
    found = scrape(settings.health_port)
    for name in ("incentives_events_total", "incentives_deliveries_total", "incentives_batch_events_sum"):
        assert total(found, name) == total(before, name)


def test_the_relay_and_the_collector_tell_of_themselves(database_url: str, rabbitmq: Any, tmp_path: Path) -> None:
    values = settings_of(
        f"t{uuid.uuid4().hex[:8]}", rabbitmq_url=rabbitmq.url, aws_region=None, database_url=database_url
    )
    open_shop(database_url, SHOP)
    declare.apply(values)
    calm_balances(database_url, EVENTS)
    ports = free_port(), free_port()
    commands = ["relay"], ["dlq", "collect"]
    processes = [
        start(
            [*PROGRAM, *words],
            values.model_copy(update={"health_port": port}),
            tmp_path / words[0],
        )
        for port, words in zip(ports, commands, strict=True)
    ]
    try:
        relay, collect = ports
        eventually(
            lambda: total(scrape(relay), "incentives_relay_published_total") == outcomes(database_url),
            PATIENCE_S,
        )
        found = scrape(relay)
        assert {key[1] for key in found if key[0] == "incentives_reading_up"} == {"backlog", "server"}
        eventually(lambda: total(scrape(collect), "incentives_reading_up") == 3, PATIENCE_S)
        assert scrape(collect)["incentives_open_dead_letters", "none"] == 0
        assert [ends_with(process, signal.SIGTERM) for process in processes] == [0, 0]
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
                process.wait()


def outcomes(url: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT count(*) FROM outbox").fetchone()
    assert row is not None
    return int(row[0])
