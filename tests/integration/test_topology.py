"""The topology put onto real brokers: repeated without effect, and honest about what differs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import boto3
import pika
import pytest

from incentive_fleet import names
from incentive_fleet.brokers import declare, topology
from incentive_fleet.brokers.rabbitmq import topology as topology_rabbitmq
from incentive_fleet.brokers.topology import Drift
from incentive_fleet.errors import BrokerUnavailable, SettingsError
from incentive_fleet.settings import Settings


@pytest.fixture
def on_aws(localstack: Any, prefix: str) -> Settings:
    return Settings(
        prefix=prefix, aws_region="eu-central-1", aws_endpoint_url=localstack.endpoint_url, sqs_visibility_s=30
    )


@pytest.fixture
def on_rabbitmq(rabbitmq: Any, prefix: str) -> Settings:
    return Settings(
        prefix=prefix, rabbitmq_url=rabbitmq.url, rabbitmq_management_url=rabbitmq.management_url, retry_delays_s=(5,)
    )


@pytest.fixture
def channel(on_rabbitmq: Settings) -> Iterator[Any]:
    connection = pika.BlockingConnection(pika.URLParameters(on_rabbitmq.need_rabbitmq_url()))
    yield connection.channel()
    connection.close()


def test_applying_to_aws_again_changes_nothing(on_aws: Settings) -> None:
    missing = {drift.name for drift in declare.check(on_aws).drift}
    created = declare.apply(on_aws)
    assert {change.action for change in created} == {"created"}
    assert missing <= {change.name for change in created}
    assert len(created) == 2 + 3 + 3 + 3  # topics, queues, dead-letter queues, subscriptions
    assert declare.apply(on_aws) == []
    assert declare.check(on_aws).drift == ()


def test_what_differs_on_aws_is_named_and_set_right(on_aws: Settings) -> None:
    declare.apply(on_aws)
    queue = f"{on_aws.prefix}-order-refunded"
    session = boto3.session.Session(region_name="eu-central-1")
    sqs = session.client("sqs", endpoint_url=on_aws.aws_endpoint_url)
    sns = session.client("sns", endpoint_url=on_aws.aws_endpoint_url)
    url = sqs.get_queue_url(QueueName=queue)["QueueUrl"]
    redrive = json.loads(
        sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["RedrivePolicy"])["Attributes"]["RedrivePolicy"]
    )
    tight = json.dumps({**redrive, "maxReceiveCount": 5})
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"VisibilityTimeout": "7", "RedrivePolicy": tight})
    topic = sns.create_topic(Name=names.events_topic(on_aws.prefix))["TopicArn"]
    [subscription] = [
        item["SubscriptionArn"]
        for item in sns.list_subscriptions_by_topic(TopicArn=topic)["Subscriptions"]
        if item["Endpoint"].endswith(f":{queue}")
    ]
    sns.set_subscription_attributes(
        SubscriptionArn=subscription, AttributeName="FilterPolicy", AttributeValue='{"type": ["other"]}'
    )
    found = {(drift.name, drift.attribute) for drift in declare.check(on_aws).drift}
    assert found == {
        (queue, "VisibilityTimeout"),
        (queue, "RedrivePolicy"),
        (f"{on_aws.prefix}-events -> {queue}", "FilterPolicy"),
    }
    assert Drift("aws", queue, "VisibilityTimeout", "7", "30") in declare.check(on_aws).drift
    assert {change.action for change in declare.apply(on_aws)} == {"updated"}
    assert declare.check(on_aws).drift == ()
    sqs.close()
    sns.close()


def test_a_queue_and_a_subscription_that_are_gone_come_back(on_aws: Settings) -> None:
    declare.apply(on_aws)
    sqs = boto3.session.Session(region_name="eu-central-1").client("sqs", endpoint_url=on_aws.aws_endpoint_url)
    gone = f"{on_aws.prefix}-delivery-completed-dlq"
    sqs.delete_queue(QueueUrl=sqs.get_queue_url(QueueName=gone)["QueueUrl"])
    assert Drift("aws", gone, "exists", "no", "yes") in declare.check(on_aws).drift
    declare.apply(on_aws)
    assert declare.check(on_aws).drift == ()
    sqs.close()


def test_applying_to_rabbitmq_again_changes_nothing(on_rabbitmq: Settings) -> None:
    missing = {drift.name for drift in declare.check(on_rabbitmq).drift if drift.attribute == "exists"}
    created = declare.apply(on_rabbitmq)
    assert {change.action for change in created} == {"created"}
    assert {change.name for change in created} == missing
    assert declare.apply(on_rabbitmq) == []
    assert declare.check(on_rabbitmq).drift == ()


def test_what_differs_on_rabbitmq_is_named_and_never_deleted(on_rabbitmq: Settings) -> None:
    declare.apply(on_rabbitmq)
    slower = on_rabbitmq.model_copy(update={"retry_delays_s": (7.0,)})
    names_ = [group.retries[0][1] for group in topology.rabbitmq_queues(slower)]
    assert declare.check(slower).drift == tuple(
        Drift("rabbitmq", name, "x-message-ttl", "5000", "7000") for name in names_
    )
    changes = declare.apply(slower)
    assert [(change.name, change.action) for change in changes] == [(name, "refused") for name in names_]
    assert all("x-message-ttl" in change.detail for change in changes)
    assert declare.check(on_rabbitmq).drift == ()


def test_a_binding_that_is_gone_is_named_and_comes_back(on_rabbitmq: Settings, channel: Any) -> None:
    declare.apply(on_rabbitmq)
    queue = f"{on_rabbitmq.prefix}.order-refunded"
    exchange = names.events_exchange(on_rabbitmq.prefix)
    channel.queue_unbind(queue, exchange, "order-refunded.v1")
    assert declare.check(on_rabbitmq).drift == (
        Drift("rabbitmq", f"{exchange} -> {queue}", "binding 'order-refunded.v1'", "no", "yes"),
    )
    declare.apply(on_rabbitmq)
    assert declare.check(on_rabbitmq).drift == ()


def test_without_the_management_api_check_says_what_it_could_not_see(on_rabbitmq: Settings) -> None:
    blind = on_rabbitmq.model_copy(update={"rabbitmq_management_url": None})
    report = declare.check(blind)
    assert Drift("rabbitmq", f"{blind.prefix}.order-placed", "exists", "no", "yes") in report.drift
    assert any("INCENTIVES_RABBITMQ_MANAGEMENT_URL" in line for line in report.unseen)
    assert any("AWS_REGION" in line for line in report.unseen)
    declare.apply(blind)
    assert declare.check(blind).drift == ()


def test_an_outcome_that_nobody_bound_a_queue_for_is_parked(on_rabbitmq: Settings, channel: Any) -> None:
    declare.apply(on_rabbitmq)
    exchange = names.outcomes_exchange(on_rabbitmq.prefix)
    channel.confirm_delivery()
    channel.basic_publish(exchange, "incentives-applied.v1", b"outcome", mandatory=True)  # raises when unroutable
    _, _, body = channel.basic_get(f"{exchange}.unrouted", auto_ack=True)
    assert body == b"outcome"


def test_a_broker_that_is_away_or_not_configured_is_named(on_rabbitmq: Settings) -> None:
    away = on_rabbitmq.model_copy(update={"rabbitmq_url": "amqp://guest:guest@127.0.0.1:1/"})
    with pytest.raises(BrokerUnavailable, match="RabbitMQ"):
        topology_rabbitmq.apply(away)
    dark = on_rabbitmq.model_copy(update={"rabbitmq_management_url": "http://127.0.0.1:1"})
    with pytest.raises(BrokerUnavailable, match="management"):
        topology_rabbitmq.check(dark)
    with pytest.raises(SettingsError, match="AWS_REGION"):
        declare.apply(Settings())


def test_every_name_carries_the_prefix_and_queues_of_one_type_belong_together() -> None:
    settings = Settings(prefix="shop", retry_delays_s=(30, 5))
    plan, aws = topology.rabbitmq(settings), topology.aws(settings)
    everything = [thing.name for thing in (*plan.exchanges, *plan.queues)]
    assert all(name.startswith("shop.") for name in everything)
    assert len(set(everything)) == len(everything) - 1  # the parked outcomes' exchange and queue share a name
    assert all(name.startswith("shop-") for name in aws.topics)
    first = topology.rabbitmq_queues(settings)[0]
    assert first.retries == ((5, "shop.order-placed.retry-1"), (30, "shop.order-placed.retry-2"))
