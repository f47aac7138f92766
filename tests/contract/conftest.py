"""One broker a broker. RabbitMQ's is shared by the session and emptied between tests, for its quorum queues take seconds."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from tests.contract.brokers_under_test import BrokerUnderTest, MemoryUnderTest, RabbitMQUnderTest, SqsUnderTest


@pytest.fixture(scope="session")
def shared_rabbitmq_under_test(rabbitmq: Any) -> Iterator[RabbitMQUnderTest]:
    broker = RabbitMQUnderTest(rabbitmq.url, rabbitmq.management_url, f"t{uuid.uuid4().hex[:8]}")
    yield broker
    broker.close()
    broker.proxy.stop()


@pytest.fixture
def rabbitmq_under_test(shared_rabbitmq_under_test: RabbitMQUnderTest) -> Iterator[RabbitMQUnderTest]:
    shared_rabbitmq_under_test.empty()
    yield shared_rabbitmq_under_test
    shared_rabbitmq_under_test.close()


@pytest.fixture
def sqs_under_test(localstack: Any, prefix: str) -> Iterator[SqsUnderTest]:
    broker = SqsUnderTest(localstack.endpoint_url, prefix)
    yield broker
    broker.close()


@pytest.fixture
def moto_under_test(moto_server: Any, prefix: str) -> Iterator[SqsUnderTest]:
    broker = SqsUnderTest(moto_server.endpoint_url, prefix)
    yield broker
    broker.close()


@pytest.fixture(params=["memory", "localstack", "rabbitmq"])
def broker(request: pytest.FixtureRequest) -> BrokerUnderTest:
    return _broker(request)


@pytest.fixture(params=["memory", "moto", "localstack", "rabbitmq"])
def any_broker(request: pytest.FixtureRequest) -> BrokerUnderTest:
    """With moto as well, which the demo embeds: what it emulates is checked once for each kind of outcome."""
    return _broker(request)


def _broker(request: pytest.FixtureRequest) -> BrokerUnderTest:
    if request.param == "memory":
        return MemoryUnderTest()
    fixture = {"moto": "moto_under_test", "localstack": "sqs_under_test", "rabbitmq": "rabbitmq_under_test"}[
        request.param
    ]
    made: BrokerUnderTest = request.getfixturevalue(fixture)
    return made
