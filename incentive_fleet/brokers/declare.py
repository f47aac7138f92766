"""Puts the topology onto the brokers that are configured, and reports where they drifted from it. It never prints.

AWS is configured when a region is set, RabbitMQ when its URL is.
"""

from __future__ import annotations

from incentive_fleet.brokers.topology import Change, DriftReport
from incentive_fleet.errors import SettingsError
from incentive_fleet.settings import Settings

NOTHING_CONFIGURED = "Neither AWS_REGION nor INCENTIVES_RABBITMQ_URL is set: there is no broker to look at."


def apply(settings: Settings) -> list[Change]:
    """Create what is missing and set what may be set; empty when all was in place.

    Idempotent. A change whose action is "refused" is drift that only a person may resolve: RabbitMQ cannot change the
    arguments of a queue that exists. Raises SettingsError when no broker is configured and BrokerUnavailable when one is
    away; running it again helps.
    """
    _need_a_broker(settings)
    changes: list[Change] = []
    # Imported here, for each driver costs the command line a tenth of a second.
    if settings.aws_region is not None:
        from incentive_fleet.brokers.aws import topology as topology_aws

        changes += topology_aws.apply(settings)
    if settings.rabbitmq_url is not None:
        from incentive_fleet.brokers.rabbitmq import topology as topology_rabbitmq

        changes += topology_rabbitmq.apply(settings)
    return changes


def check(settings: Settings) -> DriftReport:
    """Compare the brokers with the topology; changes nothing. Raises SettingsError and BrokerUnavailable as `apply` does."""
    _need_a_broker(settings)
    drift: list[DriftReport] = []
    if settings.aws_region is not None:
        from incentive_fleet.brokers.aws import topology as topology_aws

        drift.append(DriftReport(tuple(topology_aws.check(settings)), ()))
    else:
        drift.append(DriftReport((), ("SNS and SQS were not looked at, for AWS_REGION is not set.",)))
    if settings.rabbitmq_url is not None:
        from incentive_fleet.brokers.rabbitmq import topology as topology_rabbitmq

        drift.append(topology_rabbitmq.check(settings))
    else:
        drift.append(DriftReport((), ("RabbitMQ was not looked at, for INCENTIVES_RABBITMQ_URL is not set.",)))
    return DriftReport(
        tuple(line for part in drift for line in part.drift), tuple(line for part in drift for line in part.unseen)
    )


def check_policies(settings: Settings) -> DriftReport:
    """What the policies of RabbitMQ's operator can take from our queues. Raises SettingsError and BrokerUnavailable."""
    from incentive_fleet.brokers.rabbitmq import topology as topology_rabbitmq

    return topology_rabbitmq.check_policies(settings)


def _need_a_broker(settings: Settings) -> None:
    if settings.aws_region is None and settings.rabbitmq_url is None:
        raise SettingsError(NOTHING_CONFIGURED)
