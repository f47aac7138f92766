"""One stage a broker. RabbitMQ's is shared by the session and emptied between tests, for its quorum queues take seconds."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from tests.contract.stages import MemoryStage, RabbitMQStage, SqsStage, Stage


@pytest.fixture(scope="session")
def shared_rabbitmq_stage(rabbitmq: Any) -> Iterator[RabbitMQStage]:
    stage = RabbitMQStage(rabbitmq.url, rabbitmq.management_url, f"t{uuid.uuid4().hex[:8]}")
    yield stage
    stage.close()
    stage.proxy.stop()


@pytest.fixture
def rabbitmq_stage(shared_rabbitmq_stage: RabbitMQStage) -> Iterator[RabbitMQStage]:
    shared_rabbitmq_stage.empty()
    yield shared_rabbitmq_stage
    shared_rabbitmq_stage.close()


@pytest.fixture
def sqs_stage(localstack: Any, prefix: str) -> Iterator[SqsStage]:
    stage = SqsStage(localstack.endpoint_url, prefix)
    yield stage
    stage.close()


@pytest.fixture
def moto_stage(moto_server: Any, prefix: str) -> Iterator[SqsStage]:
    stage = SqsStage(moto_server.endpoint_url, prefix)
    yield stage
    stage.close()


@pytest.fixture(params=["memory", "localstack", "rabbitmq"])
def stage(request: pytest.FixtureRequest) -> Stage:
    return _stage(request)


@pytest.fixture(params=["memory", "moto", "localstack", "rabbitmq"])
def any_stage(request: pytest.FixtureRequest) -> Stage:
    """With moto as well, which the demo embeds: what it emulates is checked once for each kind of outcome."""
    return _stage(request)


def _stage(request: pytest.FixtureRequest) -> Stage:
    if request.param == "memory":
        return MemoryStage()
    fixture = {"moto": "moto_stage", "localstack": "sqs_stage", "rabbitmq": "rabbitmq_stage"}[request.param]
    made: Stage = request.getfixturevalue(fixture)
    return made
