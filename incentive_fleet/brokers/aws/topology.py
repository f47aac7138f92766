"""Carries the topology out on SNS and SQS, and compares. It never deletes, and touches only names of the topology."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from botocore.exceptions import ClientError

from incentive_fleet.brokers.aws.client import MISSING_QUEUE, available, error_code, sns_client, sqs_client
from incentive_fleet.brokers.topology import BACKSTOP_DELIVERIES, AwsTopology, Change, Drift, Subscription, aws
from incentive_fleet.settings import Settings

if TYPE_CHECKING:
    from mypy_boto3_sns import SNSClient
    from mypy_boto3_sqs import SQSClient

Differences = dict[str, tuple[str, str]]  # attribute -> (is, should be)
DOCUMENTS: Final = frozenset({"Policy", "RedrivePolicy", "FilterPolicy"})  # compared as JSON, not as text
ABSENT: Final = "(absent)"


@dataclass(frozen=True, slots=True)
class _Clients:
    sns: SNSClient
    sqs: SQSClient


def apply(settings: Settings) -> list[Change]:
    """Create what is missing and set what differs. Idempotent; raises BrokerUnavailable, and may be run again after it."""
    clients, plan = _Clients(sns_client(settings), sqs_client(settings)), aws(settings)
    changes: list[Change] = []
    with available():
        present = _topics(clients, plan)
        for topic in plan.topics:
            if topic not in present:
                present[topic] = clients.sns.create_topic(Name=topic)["TopicArn"]
                changes.append(Change("aws", topic, "created"))
        for subscription in plan.subscriptions:
            changes += _apply_subscription(clients, plan, subscription, present[plan.events_topic])
    return changes


def _apply_subscription(clients: _Clients, plan: AwsTopology, wanted: Subscription, topic: str) -> Iterator[Change]:
    yield from _apply_queue(clients, wanted.dead_letters, plan.dead_letter_attributes)
    dead = _queue(clients, wanted.dead_letters)["QueueArn"]
    # The queue's own ARN differs from its dead-letter queue's in the name alone.
    own = dead.removesuffix(wanted.dead_letters) + wanted.queue
    yield from _apply_queue(clients, wanted.queue, _source_attributes(plan, own, dead, topic))
    attributes = _subscription_attributes(wanted)
    arn = _find_subscription(clients, topic, own)
    if arn is None:
        clients.sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=own, Attributes=attributes)
        yield Change("aws", f"{plan.events_topic} -> {wanted.queue}", "created")
        return
    differences = _differences(attributes, clients.sns.get_subscription_attributes(SubscriptionArn=arn)["Attributes"])
    for name in differences:
        clients.sns.set_subscription_attributes(
            SubscriptionArn=arn, AttributeName=name, AttributeValue=attributes[name]
        )
    yield from _updated(f"{plan.events_topic} -> {wanted.queue}", differences)


def _apply_queue(clients: _Clients, name: str, attributes: Mapping[str, str]) -> Iterator[Change]:
    actual = _queue(clients, name)
    if not actual:
        clients.sqs.create_queue(QueueName=name, Attributes=attributes)  # type: ignore[arg-type]
        yield Change("aws", name, "created")
        return
    differences = _differences(attributes, actual)
    if differences:
        clients.sqs.set_queue_attributes(
            QueueUrl=actual["QueueUrl"],
            Attributes={key: attributes[key] for key in differences},  # type: ignore[misc]
        )
    yield from _updated(name, differences)


def _updated(name: str, differences: Differences) -> Iterator[Change]:
    if differences:
        detail = "; ".join(f"{key} was {actual}, is {wanted}" for key, (actual, wanted) in differences.items())
        yield Change("aws", name, "updated", detail)


def check(settings: Settings) -> list[Drift]:
    """What is missing or differs. Changes nothing; raises BrokerUnavailable."""
    clients, plan = _Clients(sns_client(settings), sqs_client(settings)), aws(settings)
    with available():
        present = _topics(clients, plan)
        drift = [_missing(topic) for topic in plan.topics if topic not in present]
        for subscription in plan.subscriptions:
            drift += _check_subscription(clients, plan, subscription, present.get(plan.events_topic))
    return drift


def _check_subscription(clients: _Clients, plan: AwsTopology, wanted: Subscription, topic: str | None) -> list[Drift]:
    dead, source = _queue(clients, wanted.dead_letters), _queue(clients, wanted.queue)
    drift = [_missing(name) for name, actual in ((wanted.dead_letters, dead), (wanted.queue, source)) if not actual]
    if dead:
        drift += _drift(wanted.dead_letters, _differences(plan.dead_letter_attributes, dead))
    if not source or topic is None:
        return drift
    own = source["QueueArn"]
    arn_of_dead = own.removesuffix(wanted.queue) + wanted.dead_letters
    drift += _drift(wanted.queue, _differences(_source_attributes(plan, own, arn_of_dead, topic), source))
    name = f"{plan.events_topic} -> {wanted.queue}"
    arn = _find_subscription(clients, topic, own)
    if arn is None:
        return [*drift, _missing(name)]
    actual = clients.sns.get_subscription_attributes(SubscriptionArn=arn)["Attributes"]
    return drift + _drift(name, _differences(_subscription_attributes(wanted), actual))


def _missing(name: str) -> Drift:
    return Drift("aws", name, "exists", "no", "yes")


def _drift(name: str, differences: Differences) -> list[Drift]:
    return [Drift("aws", name, key, actual, wanted) for key, (actual, wanted) in differences.items()]


def _topics(clients: _Clients, plan: AwsTopology) -> dict[str, str]:
    pages = clients.sns.get_paginator("list_topics").paginate(PaginationConfig={"MaxItems": 100_000})  # SNS's own quota
    arns = (topic["TopicArn"] for page in pages for topic in page.get("Topics", []))
    return {name: arn for arn in arns if (name := arn.rpartition(":")[2]) in plan.topics}


def _queue(clients: _Clients, name: str) -> dict[str, str]:
    """The queue's attributes and, beside them, its URL; empty when there is no such queue."""
    try:
        url = clients.sqs.get_queue_url(QueueName=name)["QueueUrl"]
        attributes = clients.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    except ClientError as error:
        if error_code(error) in MISSING_QUEUE:
            return {}
        raise
    return {str(key): value for key, value in attributes.items()} | {"QueueUrl": url}


def _find_subscription(clients: _Clients, topic: str, queue: str) -> str | None:
    pages = clients.sns.get_paginator("list_subscriptions_by_topic").paginate(
        TopicArn=topic, PaginationConfig={"MaxItems": 10_000}
    )
    found = (item for page in pages for item in page.get("Subscriptions", []))
    return next((item["SubscriptionArn"] for item in found if item.get("Endpoint") == queue), None)


def _source_attributes(plan: AwsTopology, own: str, dead: str, topic: str) -> dict[str, str]:
    redrive = {"deadLetterTargetArn": dead, "maxReceiveCount": BACKSTOP_DELIVERIES}
    statement = {
        "Sid": "EventsTopicMaySend",
        "Effect": "Allow",
        "Principal": {"Service": "sns.amazonaws.com"},
        "Action": "sqs:SendMessage",
        "Resource": own,
        "Condition": {"ArnEquals": {"aws:SourceArn": topic}},
    }
    policy = {"Version": "2012-10-17", "Statement": [statement]}
    return {**plan.source_attributes, "RedrivePolicy": json.dumps(redrive), "Policy": json.dumps(policy)}


def _subscription_attributes(wanted: Subscription) -> dict[str, str]:
    return {"RawMessageDelivery": "true", "FilterPolicy": json.dumps(wanted.filter_policy)}


def _differences(wanted: Mapping[str, str], actual: Mapping[str, str]) -> Differences:
    found: Differences = {}
    for name, value in wanted.items():
        have = actual.get(name)
        read: Callable[[str], object] = _document if name in DOCUMENTS else str.lower
        if have is None or read(have) != read(value):
            found[name] = (ABSENT if have is None else have, value)
    return found


def _document(text: str) -> object:
    # SQS gives maxReceiveCount back as a number or as text, whichever it was set as.
    return json.loads(text, parse_int=str) if text else None
