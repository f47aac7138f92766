"""Opens the parts of RabbitMQ: promises in contract.py, `BrokerParts`. Nothing is imported before it is asked for."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from incentive_fleet import names

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from incentive_fleet.brokers.contract import DeadLetterQueues, Publisher, QueueDepths, Replies, Sender, Transport
    from incentive_fleet.brokers.topology import Change, DriftReport, QueueNames
    from incentive_fleet.findings import Finding, Question
    from incentive_fleet.settings import Settings
    from incentive_fleet.stopping import Stop


def read_settings(settings: Settings) -> None:
    """Raises SettingsError where a URL of RabbitMQ is missing or cannot be read."""
    from incentive_fleet.brokers.rabbitmq import address
    from incentive_fleet.brokers.rabbitmq.client import parameters

    parameters(settings)
    address.management(settings)


def open_transport(settings: Settings, stop: Stop) -> Transport:
    """By pika."""
    from incentive_fleet.brokers.rabbitmq.transport import RabbitMQTransport

    return RabbitMQTransport(settings, stop)


def open_quotes(settings: Settings, stop: Stop) -> Transport:
    """The same, of the queue of quotes."""
    from incentive_fleet.brokers.rabbitmq.plan import rabbitmq_queues
    from incentive_fleet.brokers.rabbitmq.transport import RabbitMQTransport
    from incentive_fleet.brokers.topology import quotes_of

    return RabbitMQTransport(settings, stop, quotes_of(rabbitmq_queues(settings)))


def open_replies(settings: Settings, stop: Stop) -> Replies:
    """By pika, through the default exchange."""
    from incentive_fleet.brokers.rabbitmq.replies import RabbitMQReplies

    return RabbitMQReplies(settings, stop)


def open_events(settings: Settings, stop: Stop | None = None) -> Publisher:
    """By kombu, to the exchange of events."""
    return _publisher(settings, names.events_exchange(settings.prefix), stop)


def open_outcomes(settings: Settings, stop: Stop | None = None) -> Publisher:
    """By kombu, to the exchange of outcomes."""
    return _publisher(settings, names.outcomes_exchange(settings.prefix), stop)


def _publisher(settings: Settings, exchange: str, stop: Stop | None) -> Publisher:
    from incentive_fleet.brokers.rabbitmq.address import amqp
    from incentive_fleet.brokers.rabbitmq.publisher import RabbitMQPublisher
    from incentive_fleet.brokers.rabbitmq.tls import check, tls_of

    check(settings)
    tls = tls_of(amqp(settings), settings)
    return RabbitMQPublisher(settings.need_rabbitmq_url(), exchange, stop=stop, tls=tls)


def open_dead_letters(settings: Settings, stop: Stop) -> DeadLetterQueues:
    """By pika."""
    from incentive_fleet.brokers.rabbitmq.dead_letters import RabbitMQDeadLetters

    return RabbitMQDeadLetters(settings, stop)


def open_sender(settings: Settings) -> Sender:
    """By pika, for it keeps a sender's properties as they came."""
    from incentive_fleet.brokers.rabbitmq.dead_letters import RabbitMQSender

    return RabbitMQSender(settings)


def open_depths(settings: Settings, stop: Stop) -> QueueDepths:
    """By the management API where it is set, else by AMQP, which tells what is ready alone."""
    from incentive_fleet.brokers.rabbitmq.depths import RabbitMQDepths

    return RabbitMQDepths(settings, stop)


def apply_topology(settings: Settings) -> list[Change]:
    """By AMQP."""
    from incentive_fleet.brokers.rabbitmq import topology

    return topology.apply(settings)


def check_topology(settings: Settings) -> DriftReport:
    """By the management API; without it as far as AMQP can tell."""
    from incentive_fleet.brokers.rabbitmq import topology

    return topology.check(settings)


def check_policies(settings: Settings) -> DriftReport:
    """By the management API."""
    from incentive_fleet.brokers.rabbitmq import topology

    return topology.check_policies(settings)


def queues(settings: Settings) -> Sequence[QueueNames]:
    """With their retry queues."""
    from incentive_fleet.brokers.rabbitmq.plan import rabbitmq_queues

    return rabbitmq_queues(settings)


def checks() -> tuple[Question, ...]:
    """In doctor.py."""
    from incentive_fleet.brokers.rabbitmq import doctor

    return doctor.checks()


def examine(settings: Settings) -> Iterator[Finding]:
    """In doctor.py."""
    from incentive_fleet.brokers.rabbitmq import doctor

    return doctor.examine(settings)


def probe(settings: Settings, within_s: float) -> None:
    """Whether any node takes a connection."""
    from incentive_fleet.brokers.rabbitmq import address

    *others, last = address.amqp(settings).nodes
    each_s = within_s / (len(others) + 1)
    for node in others:
        try:
            return socket.create_connection((node.host, node.port), timeout=each_s).close()
        except OSError:  # the last one's error is told
            continue
    socket.create_connection((last.host, last.port), timeout=each_s).close()
