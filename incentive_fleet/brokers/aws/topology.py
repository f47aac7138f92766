"""Carries the topology out on SNS and SQS, and compares. It never deletes, and touches only names of the
topology; of their policies only our statements, and of their keys none that others chose.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from botocore.exceptions import ClientError

from incentive_fleet.brokers.aws import AWS, encryption, policies
from incentive_fleet.brokers.aws.client import MISSING_QUEUE, available, error_code, sns_client, sqs_client
from incentive_fleet.brokers.aws.encryption import Encryption
from incentive_fleet.brokers.aws.plan import AwsPlan, Subscription, aws_plan
from incentive_fleet.brokers.aws.policies import ABSENT
from incentive_fleet.brokers.topology import BACKSTOP_DELIVERIES, Change, Drift, DriftReport
from incentive_fleet.settings import Settings

if TYPE_CHECKING:
    from mypy_boto3_sns import SNSClient
    from mypy_boto3_sqs import SQSClient

Differences = dict[str, tuple[str, str]]  # attribute -> (is, should be)
DOCUMENTS: Final = frozenset({"RedrivePolicy", "FilterPolicy"})  # compared as JSON, not as text


@dataclass(frozen=True, slots=True)
class _Clients:
    sns: SNSClient
    sqs: SQSClient


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What a queue or topic should be: attributes, our statements of its policy, and its key."""

    attributes: Mapping[str, str]
    statements: Sequence[policies.Statement]
    encryption: Callable[[Mapping[str, str]], Encryption]

    def differences(self, actual: Mapping[str, str]) -> Differences:
        found = _differences(self.attributes, actual) | policies.differences(self.statements, actual.get("Policy"))
        wanted = self.encryption(actual).wanted
        return found | {name: (encryption.was(name, actual), value) for name, value in wanted.items()}

    def foreign(self, actual: Mapping[str, str]) -> Differences:
        """What differs and only a person may change."""
        return dict(self.encryption(actual).foreign)

    def settings(self, actual: Mapping[str, str]) -> dict[str, str]:
        """The attributes that set right what differs; all of them for what does not exist yet."""
        changed = {name: self.attributes[name] for name in _differences(self.attributes, actual)}
        if policies.differences(self.statements, actual.get("Policy")):
            changed["Policy"] = policies.merged(self.statements, actual.get("Policy"))
        return changed | dict(self.encryption(actual).wanted)


def apply(settings: Settings) -> list[Change]:
    """Create what is missing and set what differs. Idempotent; raises BrokerUnavailable, and may be run again after it.

    A change is "refused" where somebody else's key encrypts a queue or topic.
    """
    clients, plan = _Clients(sns_client(settings), sqs_client(settings)), aws_plan(settings)
    changes: list[Change] = []
    with available():
        present = _topics(clients, plan)
        for topic in plan.topics:
            created = topic not in present
            if created:
                present[topic] = clients.sns.create_topic(Name=topic)["TopicArn"]
                changes.append(Change(AWS.name, topic, "created"))
            changes += _apply_topic(clients, plan, topic, present[topic], created)
        for subscription in plan.subscriptions:
            changes += _apply_subscription(clients, plan, subscription, present[plan.events_topic])
    return changes


def _apply_topic(clients: _Clients, plan: AwsPlan, name: str, arn: str, created: bool) -> list[Change]:
    wanted, actual = _topic(plan, arn), clients.sns.get_topic_attributes(TopicArn=arn)["Attributes"]
    for attribute, value in wanted.settings(actual).items():
        clients.sns.set_topic_attributes(TopicArn=arn, AttributeName=attribute, AttributeValue=value)
    updated = [] if created else _updated(name, wanted.differences(actual))
    return [*updated, *_refused(name, wanted.foreign(actual))]


def _apply_subscription(clients: _Clients, plan: AwsPlan, wanted: Subscription, topic: str) -> Iterator[Change]:
    yield from _apply_queue(clients, wanted.dead_letters, _dead_letter_queue(plan, wanted, topic))
    yield from _apply_queue(clients, wanted.queue, _source_queue(plan, wanted, topic))
    own, attributes = _queue_arn(topic, wanted.queue), _subscription_attributes(wanted)
    arn = _find_subscription(clients, topic, own)
    if arn is None:
        clients.sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=own, Attributes=attributes)
        yield Change(AWS.name, f"{plan.events_topic} -> {wanted.queue}", "created")
        return
    differences = _differences(attributes, clients.sns.get_subscription_attributes(SubscriptionArn=arn)["Attributes"])
    for name in differences:
        clients.sns.set_subscription_attributes(
            SubscriptionArn=arn, AttributeName=name, AttributeValue=attributes[name]
        )
    yield from _updated(f"{plan.events_topic} -> {wanted.queue}", differences)


def _apply_queue(clients: _Clients, name: str, wanted: _Wanted) -> Iterator[Change]:
    actual = _queue(clients, name)
    settings = wanted.settings(actual)
    if not actual:
        clients.sqs.create_queue(QueueName=name, Attributes=settings)  # type: ignore[arg-type]
        yield Change(AWS.name, name, "created")
        return
    if settings:
        clients.sqs.set_queue_attributes(QueueUrl=actual["QueueUrl"], Attributes=settings)  # type: ignore[arg-type]
    yield from _updated(name, wanted.differences(actual))
    yield from _refused(name, wanted.foreign(actual))


def _updated(name: str, differences: Differences) -> list[Change]:
    detail = "; ".join(f"{key} was {actual}, is {wanted}" for key, (actual, wanted) in differences.items())
    return [Change(AWS.name, name, "updated", detail)] if differences else []


def _refused(name: str, differences: Differences) -> list[Change]:
    detail = "; ".join(f"{key} is {actual}, should be {wanted}" for key, (actual, wanted) in differences.items())
    return [Change(AWS.name, name, "refused", f"{detail}; a key of others is not replaced")] if differences else []


def check(settings: Settings) -> DriftReport:
    """What is missing or differs. Changes nothing; raises BrokerUnavailable."""
    clients, plan = _Clients(sns_client(settings), sqs_client(settings)), aws_plan(settings)
    drift: list[Drift] = []
    with available():
        present = _topics(clients, plan)
        for topic in plan.topics:
            drift += _check_topic(clients, plan, topic, present.get(topic))
        for subscription in plan.subscriptions:
            drift += _check_subscription(clients, plan, subscription, present.get(plan.events_topic))
    return DriftReport(tuple(drift), ())


def access_policies(settings: Settings) -> dict[str, str]:
    """The policy of each queue and topic that is there, by its name. Changes nothing; raises BrokerUnavailable."""
    clients, plan = _Clients(sns_client(settings), sqs_client(settings)), aws_plan(settings)
    queues = [name for one in plan.subscriptions for name in (one.queue, one.dead_letters)]
    with available():
        found = {name: _queue(clients, name).get("Policy", "") for name in queues}
        for name, arn in _topics(clients, plan).items():
            found[name] = clients.sns.get_topic_attributes(TopicArn=arn)["Attributes"].get("Policy", "")
    return found


def _check_topic(clients: _Clients, plan: AwsPlan, name: str, arn: str | None) -> list[Drift]:
    if arn is None:
        return [_missing(name)]
    return _drift(name, _topic(plan, arn), clients.sns.get_topic_attributes(TopicArn=arn)["Attributes"])


def _check_subscription(clients: _Clients, plan: AwsPlan, wanted: Subscription, topic: str | None) -> list[Drift]:
    dead, source = _queue(clients, wanted.dead_letters), _queue(clients, wanted.queue)
    drift = [_missing(name) for name, actual in ((wanted.dead_letters, dead), (wanted.queue, source)) if not actual]
    if topic is None:  # every queue's ARN and policy hang on it, and it is told already
        return drift
    if dead:
        drift += _drift(wanted.dead_letters, _dead_letter_queue(plan, wanted, topic), dead)
    if not source:
        return drift
    drift += _drift(wanted.queue, _source_queue(plan, wanted, topic), source)
    name = f"{plan.events_topic} -> {wanted.queue}"
    arn = _find_subscription(clients, topic, source["QueueArn"])
    if arn is None:
        return [*drift, _missing(name)]
    actual = clients.sns.get_subscription_attributes(SubscriptionArn=arn)["Attributes"]
    return drift + _drifted(name, _differences(_subscription_attributes(wanted), actual))


def _missing(name: str) -> Drift:
    return Drift(AWS.name, name, "exists", "no", "yes")


def _drift(name: str, wanted: _Wanted, actual: Mapping[str, str]) -> list[Drift]:
    return _drifted(name, wanted.differences(actual) | wanted.foreign(actual))


def _drifted(name: str, differences: Differences) -> list[Drift]:
    return [Drift(AWS.name, name, key, actual, wanted) for key, (actual, wanted) in differences.items()]


def _topics(clients: _Clients, plan: AwsPlan) -> dict[str, str]:
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


def _queue_arn(topic: str, name: str) -> str:
    """Of a queue in the account and region of a topic."""
    _, partition, _, region, account, _ = topic.split(":")
    return f"arn:{partition}:sqs:{region}:{account}:{name}"


def _topic(plan: AwsPlan, arn: str) -> _Wanted:
    statements = [policies.refuse_plain_transport(arn, "sns:Publish")]
    return _Wanted({}, statements, partial(encryption.of_topic, plan.kms_key_id))


def _source_queue(plan: AwsPlan, names: Subscription, topic: str) -> _Wanted:
    own = _queue_arn(topic, names.queue)
    redrive = {"deadLetterTargetArn": _queue_arn(topic, names.dead_letters), "maxReceiveCount": BACKSTOP_DELIVERIES}
    return _Wanted(
        {**plan.source_attributes, "RedrivePolicy": json.dumps(redrive)},
        [policies.topic_may_send(own, topic), policies.refuse_plain_transport(own, "sqs:*")],
        partial(encryption.of_queue, plan.kms_key_id),
    )


def _dead_letter_queue(plan: AwsPlan, names: Subscription, topic: str) -> _Wanted:
    statements = [policies.refuse_plain_transport(_queue_arn(topic, names.dead_letters), "sqs:*")]
    return _Wanted(plan.dead_letter_attributes, statements, partial(encryption.of_queue, plan.kms_key_id))


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
