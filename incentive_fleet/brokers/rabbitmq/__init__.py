"""RabbitMQ: the only files that know pika and kombu. What others call this broker is said here; parts.py opens it."""

from typing import Final

from incentive_fleet.brokers.contract import Broker

RABBITMQ: Final = Broker(
    name="rabbitmq",
    title="RabbitMQ",
    source="rabbitmq",
    destination="rabbitmq",
    setting="rabbitmq_url",
    addresses=("rabbitmq_url", "rabbitmq_management_url"),
)
