"""Health over HTTP: alive as long as the supervisor is, ready only while every part can be reached and nobody is paused."""

from __future__ import annotations

import http.client
import json
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from incentive_fleet.embedded import sample_shop
from incentive_fleet.embedded.postgres import Postgres
from incentive_fleet.embedded.process import free_port
from incentive_fleet.settings import Settings
from tests.chaos.faults import CONSUME, Fleet
from tests.chaos.ground import Brokers, settings_of, start
from tests.chaos.wire import Wire
from tests.contract.stages import eventually
from tests.parts import fresh_database, make_template
from tests.shop import open_shop

SHOP = sample_shop.Shop(3, seed=4)


@pytest.fixture(scope="module")
def own_postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """A server of the test's own, for it is crashed."""
    server = Postgres(tmp_path_factory.mktemp("health") / "postgres")
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture
def url(own_postgres: Postgres) -> Iterator[str]:
    with fresh_database(own_postgres, make_template(own_postgres)) as url:
        open_shop(url, SHOP)
        yield url


class Health:
    def __init__(self, port: int) -> None:
        self._port = port

    def ask(self, path: str) -> tuple[int, Any]:
        """Status and document; 0 while nobody listens."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
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
    wire = Wire(("127.0.0.1", rabbitmq.record.ports["amqp"]))
    direct = settings_of(
        f"t{uuid.uuid4().hex[:8]}", rabbitmq_url=rabbitmq.url, aws_endpoint_url=localstack.endpoint_url
    )
    brokers = Brokers(direct)
    brokers.apply()
    settings: Settings = direct.model_copy(
        update={
            "database_url": url,
            "health_port": free_port(),
            "rabbitmq_url": f"amqp://guest:guest@127.0.0.1:{wire.port}/%2F",
        }
    )
    fleet = Fleet(settings, tmp_path / "log")
    fleet.process = start(CONSUME, settings, fleet.log)
    health = Health(settings.health_port or 0)
    try:
        eventually(lambda: health.faults() == set())
        assert health.ask("/elsewhere")[0] == 404
        own_postgres.kill()
        assert eventually(health.faults) == {"database"}
        brokers.publish("sqs", [body for _, body in sample_shop.events(SHOP)])
        eventually(lambda: health.faults() == {"database", "fleet"})  # it holds what it cannot book, and says so
        own_postgres.start()
        eventually(lambda: health.faults() == set())
        wire.close()
        eventually(lambda: health.faults() == {"rabbitmq", "fleet"})
        assert fleet.end(signal.SIGTERM) == 0
    finally:
        if fleet.process.poll() is None:
            fleet.process.kill()
            fleet.process.wait()
        brokers.close()
