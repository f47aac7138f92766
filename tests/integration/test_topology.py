"""The topology put onto real brokers: repeated without effect, and honest about what differs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pika
import pika.exceptions
import pytest

from incentive_fleet import names
from incentive_fleet.brokers import declare
from incentive_fleet.brokers.aws.plan import aws_plan, sqs_queues
from incentive_fleet.brokers.rabbitmq import RABBITMQ
from incentive_fleet.brokers.rabbitmq import topology as topology_rabbitmq
from incentive_fleet.brokers.rabbitmq.plan import rabbitmq_plan, rabbitmq_queues
from incentive_fleet.brokers.topology import Drift, facts_of
from incentive_fleet.errors import BrokerUnavailable, SettingsError
from incentive_fleet.settings import Settings
from tests.aws_clients import aws_client
from tests.brokers_and_workers import said, start
from tests.operators import policy

CONSUME_ONCE = [sys.executable, "-m", "incentive_fleet.cli.main", "consume", "--from", "rabbitmq", "--until-idle", "1"]


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
    assert len(created) == 2 + 7 + 7 + 7  # topics, queues, dead-letter queues, subscriptions
    assert declare.apply(on_aws) == []
    assert declare.check(on_aws).drift == ()


def test_what_differs_on_aws_is_named_and_set_right(on_aws: Settings) -> None:
    declare.apply(on_aws)
    queue = f"{on_aws.prefix}-order-refunded"
    sqs = aws_client("sqs", on_aws.aws_endpoint_url)
    sns = aws_client("sns", on_aws.aws_endpoint_url)
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


@pytest.fixture
def sqs(on_aws: Settings) -> Iterator[Any]:
    client = aws_client("sqs", on_aws.aws_endpoint_url)
    yield client
    client.close()


@pytest.fixture
def sns(on_aws: Settings) -> Iterator[Any]:
    client = aws_client("sns", on_aws.aws_endpoint_url)
    yield client
    client.close()


def attributes(sqs: Any, name: str) -> dict[str, str]:
    url = sqs.get_queue_url(QueueName=name)["QueueUrl"]
    return dict(sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"])


def set_queue(sqs: Any, name: str, **values: str) -> None:
    sqs.set_queue_attributes(QueueUrl=sqs.get_queue_url(QueueName=name)["QueueUrl"], Attributes=values)


def theirs(resource: str) -> dict[str, Any]:
    """A security team's statement."""
    return {
        "Sid": "OrgPerimeter",
        "Effect": "Deny",
        "Principal": "*",
        "Action": "sqs:ReceiveMessage" if ":sqs:" in resource else "sns:Publish",
        "Resource": resource,
        "Condition": {"StringNotEquals": {"aws:PrincipalOrgID": "o-a1b2c3d4e5"}},
    }


def test_every_queue_and_topic_refuses_plain_transport(on_aws: Settings, sqs: Any, sns: Any) -> None:
    declare.apply(on_aws)
    queues = [name for group in sqs_queues(on_aws) for name in (group.source, group.dead_letters)]
    policies = [(found["QueueArn"], found["Policy"]) for found in (attributes(sqs, name) for name in queues)]
    for name in aws_plan(on_aws).topics:
        arn = sns.create_topic(Name=name)["TopicArn"]
        policies.append((arn, sns.get_topic_attributes(TopicArn=arn)["Attributes"]["Policy"]))
    assert len(policies) == 16
    for arn, document in policies:
        [deny] = [one for one in json.loads(document)["Statement"] if one["Effect"] == "Deny"]
        assert (deny["Resource"], deny["Principal"]) == (arn, "*")
        assert deny["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
        assert deny["Action"] == ("sqs:*" if ":sqs:" in arn else "sns:Publish")


@pytest.mark.parametrize("kind", ["order-refunded", "order-refunded-dlq"])
def test_statements_of_others_in_a_queues_policy_stay(on_aws: Settings, sqs: Any, kind: str) -> None:
    """Whether ours are there, were taken away or were changed; and one statement may stand without a list."""
    declare.apply(on_aws)
    name = f"{on_aws.prefix}-{kind}"
    arn = attributes(sqs, name)["QueueArn"]
    ours = json.loads(attributes(sqs, name)["Policy"])["Statement"]
    first, *others = ours
    alone = {"Version": "2008-10-17", "Id": "perimeter", "Statement": theirs(arn)}
    set_queue(sqs, name, Policy=json.dumps(alone))
    assert {(line.name, line.attribute) for line in declare.check(on_aws).drift} == {
        (name, f"Policy {one['Sid']}") for one in ours
    }
    [change] = declare.apply(on_aws)
    assert (change.name, change.action) == (name, "updated")
    assert json.loads(attributes(sqs, name)["Policy"]) == alone | {"Statement": [theirs(arn), *ours]}
    weak = json.dumps(alone | {"Statement": [first | {"Effect": "Allow", "Principal": "*"}, theirs(arn), *others]})
    set_queue(sqs, name, Policy=weak)
    [line] = declare.check(on_aws).drift
    assert (line.name, line.attribute) == (name, f"Policy {first['Sid']}")
    declare.apply(on_aws)
    assert json.loads(attributes(sqs, name)["Policy"])["Statement"] == [first, theirs(arn), *others]
    assert declare.check(on_aws).drift == ()


def test_statements_of_others_in_a_topics_policy_stay(on_aws: Settings, sns: Any) -> None:
    declare.apply(on_aws)
    arn = sns.create_topic(Name=names.outcomes_topic(on_aws.prefix))["TopicArn"]
    before = json.loads(sns.get_topic_attributes(TopicArn=arn)["Attributes"]["Policy"])
    kept = [one for one in before["Statement"] if one["Sid"] != "IncentivesRefusePlainTransport"]
    assert kept, "SNS's own statement, by which the account may use its topic, must have survived"
    foreign = before | {"Statement": [*kept, theirs(arn)]}
    sns.set_topic_attributes(TopicArn=arn, AttributeName="Policy", AttributeValue=json.dumps(foreign))
    assert [line.attribute for line in declare.check(on_aws).drift] == ["Policy IncentivesRefusePlainTransport"]
    declare.apply(on_aws)
    after = json.loads(sns.get_topic_attributes(TopicArn=arn)["Attributes"]["Policy"])
    assert after["Statement"][:-1] == foreign["Statement"]
    assert declare.check(on_aws).drift == ()


def test_queues_are_encrypted_and_say_when_they_are_not(on_aws: Settings, sqs: Any) -> None:
    declare.apply(on_aws)
    name = f"{on_aws.prefix}-delivery-completed-dlq"
    assert attributes(sqs, name)["SqsManagedSseEnabled"] == "true"
    set_queue(sqs, name, SqsManagedSseEnabled="false")
    [line] = declare.check(on_aws).drift
    assert (line.name, line.attribute, line.actual, line.wanted) == (name, "SqsManagedSseEnabled", "false", "true")
    assert [change.action for change in declare.apply(on_aws)] == ["updated"]
    assert declare.check(on_aws).drift == ()


def test_a_key_of_the_settings_encrypts_queues_and_topics(on_aws: Settings, sqs: Any, sns: Any) -> None:
    declare.apply(on_aws)
    keyed = on_aws.model_copy(update={"kms_key_id": "alias/incentives"})
    found = [(line.attribute, line.actual, line.wanted) for line in declare.check(keyed).drift]
    assert found == [("KmsMasterKeyId", "(absent)", "alias/incentives")] * 16
    assert [change.action for change in declare.apply(keyed)] == ["updated"] * 16
    assert declare.check(keyed).drift == ()
    assert attributes(sqs, f"{on_aws.prefix}-order-placed")["KmsMasterKeyId"] == "alias/incentives"
    arn = sns.create_topic(Name=names.events_topic(on_aws.prefix))["TopicArn"]
    assert sns.get_topic_attributes(TopicArn=arn)["Attributes"]["KmsMasterKeyId"] == "alias/incentives"
    by_arn = keyed.model_copy(update={"kms_key_id": "arn:aws:kms:eu-central-1:000000000000:alias/incentives"})
    assert declare.check(by_arn).drift == (), "an alias and its ARN are one key"
    assert declare.check(on_aws).drift == (), "without a setting, a key that is there is as good"
    assert declare.apply(on_aws) == []


def test_a_key_that_somebody_else_chose_is_told_and_never_replaced(on_aws: Settings, sqs: Any, sns: Any) -> None:
    declare.apply(on_aws)
    name = f"{on_aws.prefix}-order-refunded"
    set_queue(sqs, name, KmsMasterKeyId="alias/security-team", VisibilityTimeout="7")
    arn = sns.create_topic(Name=names.events_topic(on_aws.prefix))["TopicArn"]
    sns.set_topic_attributes(TopicArn=arn, AttributeName="KmsMasterKeyId", AttributeValue="alias/security-team")
    keyed = on_aws.model_copy(update={"kms_key_id": "alias/incentives"})
    changes = declare.apply(keyed)
    refused = {change.name: change.detail for change in changes if change.action == "refused"}
    assert set(refused) == {name, names.events_topic(on_aws.prefix)}
    assert "KmsMasterKeyId is alias/security-team, should be alias/incentives" in refused[name]
    assert attributes(sqs, name)["KmsMasterKeyId"] == "alias/security-team"
    assert attributes(sqs, name)["VisibilityTimeout"] == "30", "all else is set right"
    assert {(line.name, line.attribute) for line in declare.check(keyed).drift} == {
        (one, "KmsMasterKeyId") for one in refused
    }


def test_a_key_that_lets_no_topic_deliver_is_drift(on_aws: Settings, sqs: Any) -> None:
    declare.apply(on_aws)
    name = f"{on_aws.prefix}-order-refunded"
    set_queue(sqs, name, KmsMasterKeyId="alias/aws/sqs")
    [line] = declare.check(on_aws).drift
    assert (line.name, line.attribute, line.actual) == (name, "KmsMasterKeyId", "alias/aws/sqs")
    assert [change.action for change in declare.apply(on_aws)] == ["refused"]
    with pytest.raises(SettingsError, match="INCENTIVES_KMS_KEY_ID"):
        Settings.from_environment({"INCENTIVES_KMS_KEY_ID": "alias/aws/sqs"})


def test_events_still_reach_the_queues(on_aws: Settings, sqs: Any, sns: Any) -> None:
    declare.apply(on_aws)
    arn = sns.create_topic(Name=names.events_topic(on_aws.prefix))["TopicArn"]
    sns.publish(
        TopicArn=arn,
        Message="event",
        MessageAttributes={"type": {"DataType": "String", "StringValue": "order-refunded.v1"}},
    )
    url = sqs.get_queue_url(QueueName=f"{on_aws.prefix}-order-refunded")["QueueUrl"]
    received = sqs.receive_message(QueueUrl=url, WaitTimeSeconds=10)["Messages"]
    assert [message["Body"] for message in received] == ["event"]


def test_a_queue_and_a_subscription_that_are_gone_come_back(on_aws: Settings) -> None:
    declare.apply(on_aws)
    sqs = aws_client("sqs", on_aws.aws_endpoint_url)
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
    names_ = [group.retries[0][1] for group in facts_of(rabbitmq_queues(slower))]
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


def test_a_queue_of_an_earlier_release_is_used_as_it_is(on_rabbitmq: Settings, channel: Any) -> None:
    """It lacks what is only taken at creation; some of it, or all."""
    plan = rabbitmq_plan(on_rabbitmq)
    for number, queue in enumerate(plan.queues):
        some = dict(list(queue.at_creation.items())[:number]) if number < len(queue.at_creation) else {}
        channel.queue_declare(queue.name, durable=True, arguments={**queue.arguments, **some})
    created = {change.name for change in declare.apply(on_rabbitmq)}
    assert created == {exchange.name for exchange in plan.exchanges}
    assert declare.apply(on_rabbitmq) == []
    assert declare.check(on_rabbitmq).drift == ()


def test_what_a_policy_takes_is_drift_at_once_and_gone_with_it(on_rabbitmq: Settings) -> None:
    declare.apply(on_rabbitmq)
    source = f"{on_rabbitmq.prefix}.order-placed"
    housekeeping: dict[str, object] = {"message-ttl": 60_000, "max-length": 5, "overflow": "drop-head"}
    with policy(on_rabbitmq, "policies", housekeeping), policy(on_rabbitmq, "operator-policies", {"max-length": 3}):
        drift = declare.check(on_rabbitmq).drift
        by = f"policy {on_rabbitmq.prefix!r}"
        assert [line for line in drift if line.name == source] == [
            Drift("rabbitmq", source, "message-ttl", f"60000 by {by}", "(absent)"),
            Drift("rabbitmq", source, "max-length", f"3 by {by} and operator {by}", "(absent)"),
            Drift("rabbitmq", source, "overflow", f"drop-head by {by}", "reject-publish"),
        ]
        assert {line.name for line in drift} == {queue.name for queue in rabbitmq_plan(on_rabbitmq).queues}
        assert declare.check_policies(on_rabbitmq, [RABBITMQ]).drift == drift
    assert declare.check(on_rabbitmq).drift == ()
    with policy(on_rabbitmq, "policies", {"alternate-exchange": "amq.fanout"}, **{"apply-to": "exchanges"}):
        assert f"{on_rabbitmq.prefix}.dead-letters" in {line.name for line in declare.check(on_rabbitmq).drift}


def offer(channel: Any, queue: str, body: bytes) -> bool:
    try:
        channel.basic_publish("", queue, body, pika.BasicProperties(delivery_mode=2))
    except pika.exceptions.NackError:
        return False
    return True


def test_a_full_dead_letter_queue_refuses_and_the_message_stays(on_rabbitmq: Settings, channel: Any) -> None:
    """A length that a policy bounds drops none of the dead letters that are there."""
    declare.apply(on_rabbitmq)
    dead = f"{on_rabbitmq.prefix}.order-placed.dlq"
    channel.confirm_delivery()
    with policy(on_rabbitmq, "policies", {"max-length": 2}):
        taken = 0
        while offer(channel, dead, str(taken).encode()):
            taken += 1
            assert taken < 200, "a quorum queue takes some more before it refuses, but not so many"
        assert channel.queue_declare(dead, passive=True).method.message_count == taken
        assert channel.basic_get(dead, auto_ack=True)[2] == b"0"


def test_consuming_warns_at_its_start_of_what_policies_take(
    on_rabbitmq: Settings, database_url: str, tmp_path: Path
) -> None:
    declare.apply(on_rabbitmq)
    settings = on_rabbitmq.model_copy(update={"database_url": database_url})
    seen, blind = tmp_path / "seen", tmp_path / "blind"
    with policy(on_rabbitmq, "policies", {"expires": 3_600_000}):
        assert start(CONSUME_ONCE, settings, seen).wait(60) == 0
    [warning] = said(seen, "policies of the broker can take messages")
    assert warning["level"] == "warning"
    assert f"{on_rabbitmq.prefix}.order-placed: expires is 3600000 by policy" in warning["policies"][0]
    assert start(CONSUME_ONCE, settings.model_copy(update={"rabbitmq_management_url": None}), blind).wait(60) == 0
    [told] = said(blind, "policies of the broker not looked at")
    assert "INCENTIVES_RABBITMQ_MANAGEMENT_URL" in told["error"]


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
    plan, aws = rabbitmq_plan(settings), aws_plan(settings)
    everything = [one.name for one in plan.exchanges] + [one.name for one in plan.queues]
    assert all(name.startswith("shop.") for name in everything)
    assert len(set(everything)) == len(everything) - 1  # the parked outcomes' exchange and queue share a name
    assert all(name.startswith("shop-") for name in aws.topics)
    first = rabbitmq_queues(settings)[0]
    assert first.retries == ((5, "shop.order-placed.retry-1"), (30, "shop.order-placed.retry-2"))
