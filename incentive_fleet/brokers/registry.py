"""Opens the publisher for a destination, from the settings. It imports a broker's driver only when asked for it."""

from __future__ import annotations

from typing import Final, Literal

from incentive_fleet import names
from incentive_fleet.brokers.contract import Publisher
from incentive_fleet.settings import Settings
from incentive_fleet.stopping import Stop

SNS: Final = "sns"
RABBITMQ: Final = "rabbitmq"
Destination = Literal["sns", "rabbitmq"]
DESTINATIONS: tuple[Destination, ...] = (SNS, RABBITMQ)


def configured(settings: Settings) -> tuple[Destination, ...]:
    """The destinations whose broker the settings name: those that a relay can publish to."""
    found: list[Destination] = []
    if settings.aws_region:
        found.append(SNS)
    if settings.rabbitmq_url:
        found.append(RABBITMQ)
    return tuple(found)


def read_addresses(settings: Settings) -> None:
    """Raise SettingsError now where a URL of RabbitMQ cannot be read, before anything is started with it."""
    from incentive_fleet.brokers.rabbitmq import address
    from incentive_fleet.brokers.rabbitmq.client import parameters

    parameters(settings)
    address.management(settings)


def open_events(settings: Settings, destination: Destination, stop: Stop | None = None) -> Publisher:
    """A publisher of events, as an order system is one. Raises SettingsError; connects when first used."""
    if destination == SNS:
        return _open_sns(settings, names.events_topic(settings.prefix))
    return _open_rabbitmq(settings, names.events_exchange(settings.prefix), stop)


def open_outcomes(settings: Settings, destination: Destination, stop: Stop | None = None) -> Publisher:
    """A publisher of outcomes, for the relay. Raises SettingsError; connects when first used."""
    if destination == SNS:
        return _open_sns(settings, names.outcomes_topic(settings.prefix))
    return _open_rabbitmq(settings, names.outcomes_exchange(settings.prefix), stop)


def _open_sns(settings: Settings, topic: str) -> Publisher:
    from incentive_fleet.brokers.aws.publisher import SnsPublisher

    return SnsPublisher(topic, region=settings.need_aws_region(), endpoint_url=settings.aws_endpoint_url)


def _open_rabbitmq(settings: Settings, exchange: str, stop: Stop | None) -> Publisher:
    from incentive_fleet.brokers.rabbitmq.publisher import RabbitMQPublisher

    return RabbitMQPublisher(settings.need_rabbitmq_url(), exchange, stop=stop)
