"""Opens the parts of SNS and SQS: promises in contract.py, `BrokerParts`. Nothing is imported before it is asked for."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from incentive_fleet import names

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from incentive_fleet.brokers.contract import DeadLetterQueues, Publisher, QueueDepths, Replies, Sender, Transport
    from incentive_fleet.brokers.topology import Change, DriftReport, QueueNames
    from incentive_fleet.findings import Finding, Question
    from incentive_fleet.settings import Settings
    from incentive_fleet.stopping import Stop

HTTPS_PORT: Final = 443


def read_settings(settings: Settings) -> None:
    """Raises SettingsError without a region."""
    settings.need_aws_region()


def open_transport(settings: Settings, stop: Stop) -> Transport:
    """From SQS."""
    from incentive_fleet.brokers.aws.transport import SqsTransport

    return SqsTransport(settings, stop)


def open_quotes(settings: Settings, stop: Stop) -> Transport:
    """The same, of the queue of quotes."""
    from incentive_fleet.brokers.aws.plan import sqs_queues
    from incentive_fleet.brokers.aws.transport import SqsTransport
    from incentive_fleet.brokers.topology import quotes_of

    return SqsTransport(settings, stop, quotes_of(sqs_queues(settings)))


def open_replies(settings: Settings, stop: Stop) -> Replies:
    """By boto3."""
    from incentive_fleet.brokers.aws.replies import SqsReplies

    return SqsReplies(settings)


def open_events(settings: Settings, stop: Stop | None = None) -> Publisher:
    """To SNS' topic of events."""
    return _publisher(settings, names.events_topic(settings.prefix))


def open_outcomes(settings: Settings, stop: Stop | None = None) -> Publisher:
    """To SNS' topic of outcomes."""
    return _publisher(settings, names.outcomes_topic(settings.prefix))


def _publisher(settings: Settings, topic: str) -> Publisher:
    from incentive_fleet.brokers.aws.publisher import SnsPublisher

    return SnsPublisher(settings, topic)


def open_dead_letters(settings: Settings, stop: Stop) -> DeadLetterQueues:
    """Of SQS."""
    from incentive_fleet.brokers.aws.dead_letters import SqsDeadLetters

    return SqsDeadLetters(settings, stop)


def open_sender(settings: Settings) -> Sender:
    """To SQS' source queues."""
    from incentive_fleet.brokers.aws.dead_letters import SqsSender

    return SqsSender(settings)


def open_depths(settings: Settings, stop: Stop) -> QueueDepths:
    """By the attributes of SQS' queues."""
    from incentive_fleet.brokers.aws.depths import SqsDepths

    return SqsDepths(settings)


def apply_topology(settings: Settings) -> list[Change]:
    """Of both SNS and SQS."""
    from incentive_fleet.brokers.aws import topology

    return topology.apply(settings)


def check_topology(settings: Settings) -> DriftReport:
    """Of both SNS and SQS."""
    from incentive_fleet.brokers.aws import topology

    return topology.check(settings)


def check_policies(settings: Settings) -> DriftReport:
    """Nobody's policy can take a message from a queue of SQS."""
    from incentive_fleet.brokers.topology import DriftReport

    return DriftReport((), ())


def queues(settings: Settings) -> Sequence[QueueNames]:
    """Of SQS."""
    from incentive_fleet.brokers.aws.plan import sqs_queues

    return sqs_queues(settings)


def checks() -> tuple[Question, ...]:
    """In doctor.py."""
    from incentive_fleet.brokers.aws import doctor

    return doctor.checks()


def examine(settings: Settings) -> Iterator[Finding]:
    """In doctor.py."""
    from incentive_fleet.brokers.aws import doctor

    return doctor.examine(settings)


def probe(settings: Settings, within_s: float) -> None:
    """Whether SQS' endpoint takes a connection."""
    endpoint = settings.aws_endpoint_url or f"https://sqs.{settings.need_aws_region()}.amazonaws.com"
    url = urlsplit(endpoint)
    socket.create_connection((url.hostname or "localhost", url.port or HTTPS_PORT), timeout=within_s).close()
