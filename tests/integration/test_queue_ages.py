"""How old the oldest message of each SQS queue is, by a real CloudWatch interface, and what happens where it does not answer."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import botocore.client
import pytest

from incentive_fleet.brokers import declare, registry
from incentive_fleet.brokers.aws import ages
from incentive_fleet.brokers.aws.ages import EVERY_S, KEPT_S, QueueAges
from incentive_fleet.brokers.aws.plan import sqs_queues
from incentive_fleet.brokers.registry import parts_of
from incentive_fleet.embedded.process import free_port
from incentive_fleet.settings import Settings
from incentive_fleet.stopping import Stop
from incentive_fleet.telemetry.figures import of_queues
from tests.aws_clients import aws_client
from tests.brokers_and_workers import settings_of

PATIENCE_S = 30.0  # on LocalStack; the product waits for less and tells it the next time
EDGE = timedelta(seconds=90)


@pytest.fixture
def settings(localstack: Any) -> Settings:
    return settings_of(f"a{uuid.uuid4().hex[:8]}", aws_endpoint_url=localstack.endpoint_url)


@pytest.fixture
def cloudwatch(settings: Settings) -> Iterator[Any]:
    client: Any = aws_client("cloudwatch", settings.aws_endpoint_url)
    yield client
    client.close()


def put(cloudwatch: Any, queue: str, *values: tuple[timedelta, float]) -> None:
    """As SQS does: a figure a minute."""
    data = [
        {
            "MetricName": "ApproximateAgeOfOldestMessage",
            "Dimensions": [{"Name": "QueueName", "Value": queue}],
            "Timestamp": datetime.now(UTC) - ago,
            "Value": value,
            "Unit": "Seconds",
        }
        for ago, value in values
    ]
    cloudwatch.put_metric_data(Namespace="AWS/SQS", MetricData=data)


def recorded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The operations that are called from now on."""
    called: list[str] = []
    client: Any = botocore.client.BaseClient
    call = client._make_api_call

    def recording(self: Any, operation: str, arguments: dict[str, Any]) -> Any:
        called.append(operation)
        return call(self, operation, arguments)

    monkeypatch.setattr(client, "_make_api_call", recording)
    return called


def test_the_latest_figure_of_each_source_queue_is_told_and_asked_for_once_a_minute(
    settings: Settings, cloudwatch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    queues = [group.source for group in sqs_queues(settings)]
    put(cloudwatch, queues[0], (timedelta(minutes=4), 900.0), (EDGE, 321.0))
    put(cloudwatch, queues[1], (timedelta(minutes=30), 77.0))  # long ago: nothing is told of it now
    now, called = [0.0], recorded(monkeypatch)
    reader = QueueAges(settings, queues, lambda: now[0], PATIENCE_S)
    try:
        for now[0] in (0.0, 15.0, EVERY_S - 1):
            assert reader.read() == {queues[0]: 321.0}
        assert called == ["GetMetricData"]
        put(cloudwatch, queues[1], (EDGE, 12.0))
        now[0] = EVERY_S
        assert reader.read() == {queues[0]: 321.0, queues[1]: 12.0}
        assert called == ["GetMetricData", "PutMetricData", "GetMetricData"]
    finally:
        reader.close()


def test_depths_carry_the_ages_and_the_gauge_tells_them(
    settings: Settings, cloudwatch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ages, "WAIT_S", PATIENCE_S)
    broker = registry.by_source("sqs")
    declare.apply(settings)
    queue = sqs_queues(settings)[0].source
    put(cloudwatch, queue, (EDGE, 45.0))
    for switch, told in (("on", {("incentives_queue_oldest_seconds", "sqs", queue): 45.0}), ("off", {})):
        called = recorded(monkeypatch)
        depths = parts_of(broker).open_depths(settings.model_copy(update={"cloudwatch_ages": switch}), Stop())
        levels = of_queues("sqs", depths.read())
        depths.close()
        assert {key: value for key, value in levels.items() if key[0] == "incentives_queue_oldest_seconds"} == told
        assert ("GetMetricData" in called) == (switch == "on")
        assert levels["incentives_queue_messages", "sqs", queue, "source", "ready"] == 0


def test_a_cloudwatch_that_does_not_answer_takes_nothing_but_the_ages_and_is_said_once(
    settings: Settings, cloudwatch: Any, caplog: pytest.LogCaptureFixture
) -> None:
    queue = sqs_queues(settings)[0].source
    put(cloudwatch, queue, (EDGE, 45.0))
    now = [0.0]
    reader = QueueAges(settings, [queue], lambda: now[0], PATIENCE_S)
    try:
        assert reader.read() == {queue: 45.0}
        reader._settings = settings.model_copy(update={"aws_endpoint_url": f"http://127.0.0.1:{free_port()}"})
        reader.close()  # the next one asks there
        told = []
        for now[0] in (EVERY_S, 2 * EVERY_S, KEPT_S):
            told.append(dict(reader.read()))
        assert told == [{queue: 45.0}, {queue: 45.0}, {}]
        [line] = [record for record in caplog.records if record.message == "ages of queues cannot be read"]
        assert "INCENTIVES_CLOUDWATCH_AGES=off" in vars(line)["error"]
    finally:
        reader.close()
