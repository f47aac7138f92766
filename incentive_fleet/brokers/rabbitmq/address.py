"""Which settings say where RabbitMQ is; incentive_fleet/addresses.py reads them. Pure; no I/O."""

from __future__ import annotations

from typing import Final

from incentive_fleet import addresses
from incentive_fleet.addresses import RABBITMQ, ClusterAddress, read_cluster
from incentive_fleet.settings import Settings

AMQP: Final = "INCENTIVES_RABBITMQ_URL"
MANAGEMENT: Final = "INCENTIVES_RABBITMQ_MANAGEMENT_URL"


def amqp(settings: Settings) -> ClusterAddress:
    """INCENTIVES_RABBITMQ_URL; raises SettingsError when it is unset or cannot be read."""
    return read_amqp(settings.need_rabbitmq_url())


def read_amqp(url: str) -> ClusterAddress:
    """A value of INCENTIVES_RABBITMQ_URL; raises SettingsError when it cannot be read."""
    return read_cluster(AMQP, url, RABBITMQ)


def management(settings: Settings) -> ClusterAddress | None:
    """INCENTIVES_RABBITMQ_MANAGEMENT_URL, None when it is unset; raises SettingsError when it cannot be read."""
    url = settings.rabbitmq_management_url
    return read_cluster(MANAGEMENT, url, addresses.MANAGEMENT) if url else None
