"""Health over HTTP: alive as long as the supervisor is, ready only while every part can be reached and nobody is paused."""

from __future__ import annotations

import http.client
import json
import os
import select
import signal
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from incentive_fleet.consumers.health import ANSWERING_MAX, BOUNDS, READING_MAX, Bounds, Service, serving
from incentive_fleet.consumers.probes import Database, Part
from incentive_fleet.embedded import sample_shop
from incentive_fleet.embedded.postgres import Postgres
from incentive_fleet.embedded.process import free_port
from incentive_fleet.settings import Settings
from tests.brokers_and_workers import Brokers, settings_of, start
from tests.chaos.faults import CONSUME, Fleet
from tests.chaos.faulty_proxy import FaultyProxy
from tests.command import incentives
from tests.contract.brokers_under_test import eventually
from tests.parts import fresh_database
from tests.shop import open_shop

SHOP = sample_shop.Shop(3, seed=4)
PATIENCE_S = 60  # a fleet, a broker and a server start in some seconds, on a busy machine in many


@pytest.fixture
def url(own_postgres: Postgres, own_template: str) -> Iterator[str]:
    with fresh_database(own_postgres, own_template) as url:
        open_shop(url, SHOP)
        yield url


class Health:
    def __init__(self, port: int) -> None:
        self.port = port

    def ask(self, path: str) -> tuple[int, Any]:
        """Status and document; 0 while nobody listens."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        except ConnectionError:
            return 0, None
        finally:
            connection.close()

    def faults(self) -> set[str] | None:
        """What is not ready, by name; None while nobody listens. Alive all the time."""
        status, document = self.ask("/readyz")
        if document is None:
            return None
        assert self.ask("/healthz") == (200, {"status": "alive"})
        assert (status == 200) == (not document["faults"])
        return set(document["faults"])


def test_readiness_follows_the_parts_and_health_does_not(
    own_postgres: Postgres, url: str, rabbitmq: Any, localstack: Any, tmp_path: Path
) -> None:
    proxy = FaultyProxy(("127.0.0.1", rabbitmq.record.ports["amqp"]))
    direct = settings_of(
        f"t{uuid.uuid4().hex[:8]}", rabbitmq_url=rabbitmq.url, aws_endpoint_url=localstack.endpoint_url
    )
    brokers = Brokers(direct)
    brokers.apply()
    settings: Settings = direct.model_copy(
        update={
            "database_url": url,
            "health_port": free_port(),
            "rabbitmq_url": f"amqp://guest:guest@127.0.0.1:{proxy.port}/%2F",
        }
    )
    fleet = Fleet(settings, tmp_path / "log")
    fleet.process = start(CONSUME, settings, fleet.log)
    health = Health(settings.health_port or 0)
    try:
        eventually(lambda: health.faults() == set(), PATIENCE_S)
        assert health.ask("/elsewhere")[0] == 404
        own_postgres.kill()
        assert eventually(health.faults, PATIENCE_S) == {"database"}
        brokers.publish("sqs", [body for _, body in sample_shop.events(SHOP)])
        eventually(
            lambda: health.faults() == {"database", "fleet"}, PATIENCE_S
        )  # it holds what it cannot book, and says so
        own_postgres.start()
        eventually(lambda: health.faults() == set(), PATIENCE_S)
        proxy.close()
        eventually(lambda: health.faults() == {"rabbitmq", "fleet"}, PATIENCE_S)
        assert fleet.end(signal.SIGTERM) == 0
    finally:
        if fleet.process.poll() is None:
            fleet.process.kill()
            fleet.process.wait()
        brokers.close()


@pytest.mark.parametrize("activity", ["relay", "collector"])
def test_relay_and_collector_tell_the_same_of_themselves(
    own_postgres: Postgres, url: str, rabbitmq: Any, tmp_path: Path, activity: str
) -> None:
    """The relay looks for outcomes all the time, so it pauses for the database; the collector once it has a letter to keep,
    and for the broker."""
    proxy = FaultyProxy(("127.0.0.1", rabbitmq.record.ports["amqp"]))
    direct = settings_of(f"t{uuid.uuid4().hex[:8]}", rabbitmq_url=rabbitmq.url, aws_region=None)
    brokers = Brokers(direct)
    brokers.apply()
    through = f"amqp://guest:guest@127.0.0.1:{proxy.port}/%2F"
    settings = direct.model_copy(update={"database_url": url, "health_port": free_port(), "rabbitmq_url": through})
    words = ["relay"] if activity == "relay" else ["dlq", "collect", "--from", "rabbitmq"]
    command = [sys.executable, "-m", "incentive_fleet.cli.main", *words]
    process = start(command, settings, tmp_path / "log", AWS_REGION="", AWS_DEFAULT_REGION="")
    health = Health(settings.health_port or 0)
    try:
        eventually(lambda: health.faults() == set(), PATIENCE_S)
        own_postgres.kill()
        if activity == "collector":
            assert eventually(health.faults, PATIENCE_S) == {"database"}
            brokers.bury("rabbitmq", [b"no event"])
        eventually(lambda: health.faults() == {"database", activity}, PATIENCE_S)
        own_postgres.start()
        eventually(lambda: health.faults() == set(), PATIENCE_S)
        proxy.close()
        eventually(lambda: health.faults() == {"rabbitmq"} | ({activity} - {"relay"}), PATIENCE_S)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0
        assert health.faults() is None
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        brokers.close()


@pytest.mark.parametrize("words", [["consume", "--from", "rabbitmq"], ["relay"], ["dlq", "collect"]])
def test_a_port_that_is_taken_is_named_before_anything_begins(url: str, words: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        environment = {
            "INCENTIVES_DATABASE_URL": url,
            "INCENTIVES_RABBITMQ_URL": "amqp://guest:guest@127.0.0.1:1/%2F",
            "INCENTIVES_HEALTH_PORT": str(port),
        }
        ran = incentives(*words, env=environment)
    assert ran.code == 2
    named = f"INCENTIVES_HEALTH_HOST and INCENTIVES_HEALTH_PORT are '127.0.0.1' and {port}: Address already in use"
    assert named in ran.err


@contextmanager
def served(*parts: Part, bounds: Bounds = BOUNDS) -> Iterator[Health]:
    with serving("127.0.0.1", 0, Service(parts, "fleet", lambda: False, bounds=bounds)) as port:
        yield Health(port)


def half_open(health: Health, sent: bytes, count: int = 1) -> list[socket.socket]:
    connections = []
    for _ in range(count):
        one = socket.create_connection(("127.0.0.1", health.port), timeout=10)
        one.sendall(sent)
        connections.append(one)
    return connections


def status_of(connection: socket.socket) -> int:
    """The status of the answer; 0 when the connection ended without one."""
    with connection:
        try:
            answer = b"".join(iter(lambda: connection.recv(4_096), b""))
        except ConnectionError:
            return 0
    return int(answer.split(b" ")[1]) if answer else 0


def backends(server: Postgres) -> set[int]:
    with psycopg.connect(server.url("postgres")) as connection:
        rows = connection.execute(
            "SELECT pid FROM pg_stat_activity WHERE application_name = 'incentives readyz'"
        ).fetchall()
    return {row[0] for row in rows}


def test_readiness_keeps_one_connection_and_gets_over_its_loss(own_postgres: Postgres) -> None:
    database = Database(own_postgres.url("postgres"))
    with closing(database), served(Part("database", database)) as health:
        assert health.faults() == set()
        first = backends(own_postgres)
        assert len(first) == 1
        with ThreadPoolExecutor(8) as pool:
            assert all(faults == set() for faults in pool.map(lambda _: health.faults(), range(60)))
        assert backends(own_postgres) == first
        with psycopg.connect(own_postgres.url("postgres")) as admin:
            admin.execute("SELECT pg_terminate_backend(%s)", (next(iter(first)),))
        assert health.faults() == set()
        (pid,) = backends(own_postgres)
        os.kill(pid, signal.SIGSTOP)  # it accepts what it is asked, and never answers
        try:
            assert health.ask("/readyz") == (503, {"status": "not ready", "faults": {"database": "timed-out"}})
        finally:
            os.kill(pid, signal.SIGCONT)
        eventually(lambda: health.faults() == set())


def test_readiness_tells_codes_and_no_driver_s_words() -> None:
    for address in ("postgresql://ann:geheim@127.0.0.1:1/shop", "postgresql:///shop?host=/nowhere"):
        with served(Part("database", Database(address))) as health:
            assert health.ask("/readyz") == (503, {"status": "not ready", "faults": {"database": "unreachable"}})


def test_whoever_asks_at_once_waits_for_one_answer_and_the_crowd_is_sent_away() -> None:
    asked, go_on = [], threading.Event()

    def probe() -> None:
        asked.append(threading.get_ident())
        assert go_on.wait(10)

    with served(Part("rabbitmq", probe)) as health:
        waiting = half_open(health, b"GET /readyz HTTP/1.1\r\n\r\n", ANSWERING_MAX)
        eventually(lambda: bool(asked))
        eventually(lambda: health.ask("/readyz") == (503, {"status": "too many ask at once", "faults": {}}))
        assert health.ask("/healthz")[0] == 200
        go_on.set()
        assert [status_of(one) for one in waiting] == [200] * ANSWERING_MAX
        assert len(asked) == 1
        assert health.ask("/readyz")[0] == 200
        assert len(asked) == 2


def test_a_probe_that_hangs_is_asked_once_and_told_as_timed_out() -> None:
    asked, go_on = [], threading.Event()

    def probe() -> None:
        asked.append(1)
        go_on.wait(10)

    with served(Part("sqs", probe), bounds=Bounds(answer_s=0.2)) as health:
        for _ in range(3):
            assert health.ask("/readyz")[1]["faults"] == {"sqs": "timed-out"}
        assert asked == [1]
        go_on.set()
        eventually(lambda: health.faults() == set())


def test_half_open_requests_neither_pile_up_nor_shut_others_out() -> None:
    with served() as health:
        threads = threading.active_count()
        slow = half_open(health, b"GET /readyz HTTP/1.1\r\nX-Slow: ", 300)
        for _ in range(5):
            assert health.ask("/healthz") == (200, {"status": "alive"})
            assert health.ask("/readyz")[0] == 200
        assert threading.active_count() == threads
        eventually(lambda: sum(_open(one) for one in slow) <= READING_MAX)
        for one in slow:
            one.close()


def _open(connection: socket.socket) -> bool:
    if not select.select([connection], [], [], 0)[0]:
        return True
    try:
        return connection.recv(1, socket.MSG_PEEK) != b""
    except ConnectionError:
        return False


def test_a_request_has_an_end_in_time_and_in_size() -> None:
    with served(bounds=Bounds(request_s=0.5)) as health:
        (dripping,) = half_open(health, b"G")
        started = time.monotonic()
        while _open(dripping) and not select.select([dripping], [], [], 0.05)[0]:
            dripping.sendall(b"x")  # a byte now and then: no single read ever times out
        assert status_of(dripping) in {0, 408}
        assert time.monotonic() - started < 5
        for sent, status in (
            (b"GET / HTTP/1.1\r\nX: " + b"x" * 100_000, {0, 431}),  # 0: it was cut off while still sending
            (b"POST /readyz HTTP/1.1\r\n\r\n", {405}),
            (b"\x16\x03\x01\r\n\r\n", {400}),
            (b"GET /readyz?verbose=1 HTTP/1.0\r\n\r\n", {200}),
        ):
            (connection,) = half_open(health, sent)
            assert status_of(connection) in status, sent[:40]
