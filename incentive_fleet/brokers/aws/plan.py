"""Every topic, queue and subscription on SNS and SQS with its attributes, as plain data from the settings. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from incentive_fleet import names
from incentive_fleet.brokers.topology import CATCH_ALL, QUEUES, RETENTION_S, QueueNames
from incentive_fleet.settings import Settings

SQS_MESSAGE_BYTES: Final = 1_048_576  # SQS's largest message, attributes included (256 KiB until August 2025)


@dataclass(frozen=True, slots=True)
class Subscription:
    """An SQS queue of the events topic, with raw delivery and the values of `type` that it takes."""

    queue: str
    dead_letters: str
    filter_policy: Mapping[str, list[object]]


@dataclass(frozen=True, slots=True)
class AwsPlan:
    topics: tuple[str, ...]
    events_topic: str
    subscriptions: tuple[Subscription, ...]
    source_attributes: Mapping[str, str]  # of the subscribed queues; redrive and access policy need ARNs and come after
    dead_letter_attributes: Mapping[str, str]
    kms_key_id: str | None  # of all queues and topics; without it queues have SQS's own encryption


def sqs_queues(settings: Settings) -> tuple[QueueNames, ...]:
    """The SQS queues, the catch-all first and that of quotes last."""
    return tuple(
        QueueNames(type_, f"{settings.prefix}-{word}", f"{settings.prefix}-{word}-dlq") for type_, word in QUEUES
    )


def aws_plan(settings: Settings) -> AwsPlan:
    """Everything on SNS and SQS."""
    others: list[object] = [type_ for type_, _ in QUEUES if type_ != CATCH_ALL]
    # Either may hold. The order is free on AWS; moto's emulation gives up at anything-but when the attribute is absent.
    catch_all: list[object] = [{"exists": False}, {"anything-but": others}]
    events = names.events_topic(settings.prefix)
    kept = {"MessageRetentionPeriod": str(RETENTION_S), "MaximumMessageSize": str(SQS_MESSAGE_BYTES)}
    return AwsPlan(
        topics=(events, names.outcomes_topic(settings.prefix)),
        events_topic=events,
        subscriptions=tuple(
            Subscription(
                queue.source,
                queue.dead_letters,
                {names.TYPE_ATTRIBUTE: catch_all if queue.type == CATCH_ALL else [queue.type]},
            )
            for queue in sqs_queues(settings)
        ),
        source_attributes=kept | {"VisibilityTimeout": str(settings.sqs_visibility_s)},
        dead_letter_attributes=kept,
        kms_key_id=settings.kms_key_id,
    )
