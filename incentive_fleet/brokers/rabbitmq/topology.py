"""Carries the topology out on RabbitMQ, and compares. It never deletes a queue: what differs is reported with its name.

AMQP tells whether a thing exists and refuses a second declaration with other arguments; arguments and bindings can be
read only over the management plugin's HTTP API.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial

import pika
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import ChannelClosedByBroker

from incentive_fleet.brokers.rabbitmq.client import connection
from incentive_fleet.brokers.rabbitmq.management import Management
from incentive_fleet.brokers.topology import Change, Drift, Exchange, Queue, RabbitmqTopology, Report, rabbitmq
from incentive_fleet.settings import Settings

Act = Callable[[BlockingChannel], None]

NOT_FOUND, PRECONDITION_FAILED = 404, 406  # AMQP 0-9-1 reply codes
UNSEEN = (
    "RabbitMQ: arguments and bindings were not compared, for AMQP cannot read them; "
    "set INCENTIVES_RABBITMQ_MANAGEMENT_URL to have them checked."
)


def _attempt(opened: pika.BlockingConnection, act: Act, code: int) -> str | None:
    """Do it on a channel of its own, for a refusal closes the channel. The broker's words when it refused with `code`."""
    channel = opened.channel()
    try:
        act(channel)
    except ChannelClosedByBroker as error:
        if error.reply_code != code:
            raise
        return error.reply_text or "refused"
    channel.close()
    return None


def apply(settings: Settings) -> list[Change]:
    """Create what is missing; what exists with other arguments is "refused" and left as it is.

    Idempotent; raises BrokerUnavailable, and may be run again after it.
    """
    plan = rabbitmq(settings)
    changes: list[Change] = []
    with connection(settings) as opened:
        for name, look, declare in _declarations(plan):
            if _attempt(opened, look, NOT_FOUND) is not None:
                changes.append(Change("rabbitmq", name, "created"))
            refusal = _attempt(opened, declare, PRECONDITION_FAILED)
            if refusal is not None:
                changes.append(Change("rabbitmq", name, "refused", refusal))
        channel = opened.channel()
        for binding in plan.bindings:
            channel.queue_bind(binding.queue, binding.exchange, binding.routing_key)
    return changes


def _declarations(plan: RabbitmqTopology) -> Iterator[tuple[str, Act, Act]]:
    """Each thing's name, how to look whether it exists, and how to declare it."""
    for exchange in plan.exchanges:
        yield exchange.name, partial(_look_for_exchange, exchange), partial(_declare_exchange, exchange)
    for queue in plan.queues:
        yield queue.name, partial(_look_for_queue, queue), partial(_declare_queue, queue)


def _look_for_exchange(exchange: Exchange, channel: BlockingChannel) -> None:
    channel.exchange_declare(exchange.name, passive=True)


def _declare_exchange(exchange: Exchange, channel: BlockingChannel) -> None:
    channel.exchange_declare(exchange.name, exchange.type, durable=True, arguments=dict(exchange.arguments))


def _look_for_queue(queue: Queue, channel: BlockingChannel) -> None:
    channel.queue_declare(queue.name, passive=True)


def _declare_queue(queue: Queue, channel: BlockingChannel) -> None:
    channel.queue_declare(queue.name, durable=True, arguments=dict(queue.arguments))


def check(settings: Settings) -> Report:
    """What is missing or differs, and what could not be seen. Changes nothing; raises BrokerUnavailable."""
    plan = rabbitmq(settings)
    if settings.rabbitmq_management_url is None:
        with connection(settings) as opened:
            drift = [
                _drift(name, "exists", "no", "yes")
                for name, look, _ in _declarations(plan)
                if _attempt(opened, look, NOT_FOUND) is not None
            ]
        return Report(tuple(drift), (UNSEEN,))
    return Report(tuple(_compare(plan, Management(settings))), ())


def _compare(plan: RabbitmqTopology, management: Management) -> Iterator[Drift]:
    exchanges, queues = management.exchanges(), management.queues()
    for exchange in plan.exchanges:
        wanted = {"type": exchange.type, "durable": True}
        yield from _compare_one(exchange.name, exchange.arguments, wanted, exchanges.get(exchange.name))
    for queue in plan.queues:
        yield from _compare_one(queue.name, queue.arguments, {"durable": True}, queues.get(queue.name))
    bound = management.bindings()
    for binding in plan.bindings:
        if (binding.exchange, binding.queue, binding.routing_key) not in bound:
            yield _drift(f"{binding.exchange} -> {binding.queue}", f"binding {binding.routing_key!r}", "no", "yes")


def _compare_one(
    name: str, arguments: Mapping[str, object], properties: Mapping[str, object], actual: Mapping[str, object] | None
) -> Iterator[Drift]:
    if actual is None:
        yield _drift(name, "exists", "no", "yes")
        return
    found = actual.get("arguments")
    have: Mapping[str, object] = found if isinstance(found, dict) else {}
    for key in sorted(arguments.keys() | have.keys()):
        if arguments.get(key) != have.get(key):
            yield _drift(name, key, str(have.get(key, "(absent)")), str(arguments.get(key, "(absent)")))
    for key, value in properties.items():
        if actual.get(key) != value:
            yield _drift(name, key, str(actual.get(key)), str(value))


def _drift(name: str, attribute: str, actual: str, wanted: str) -> Drift:
    return Drift("rabbitmq", name, attribute, actual, wanted)
