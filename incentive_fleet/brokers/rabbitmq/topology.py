"""Carries the topology out on RabbitMQ, and compares. It never deletes a queue: what differs is reported with its name.

AMQP tells whether a thing exists and refuses a second declaration with other arguments; arguments and bindings can be
read only over the management plugin's HTTP API.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import combinations

import pika
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import ChannelClosedByBroker

from incentive_fleet.brokers.rabbitmq import RABBITMQ
from incentive_fleet.brokers.rabbitmq.client import connection
from incentive_fleet.brokers.rabbitmq.management import Management, NotAllowed
from incentive_fleet.brokers.rabbitmq.plan import Argument, Exchange, Queue, RabbitMQPlan, rabbitmq_plan
from incentive_fleet.brokers.topology import Change, Drift, DriftReport
from incentive_fleet.settings import Settings

Act = Callable[[BlockingChannel], None]

NOT_FOUND, PRECONDITION_FAILED = 404, 406  # AMQP 0-9-1 reply codes
UNSEEN = (
    "RabbitMQ: arguments, bindings and the policies of the broker's operator were not compared, for AMQP cannot read them; "
    "set INCENTIVES_RABBITMQ_MANAGEMENT_URL to have them checked."
)
POLICIES_UNSEEN = (
    "RabbitMQ: policies were not compared, for the login of the management API may not read them; "
    "the tag monitoring or policymaker lets it."
)
PATTERN_UNSEEN = "RabbitMQ: the policy {!r} was not compared, for its pattern cannot be followed outside of RabbitMQ."


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
    plan = rabbitmq_plan(settings)
    changes: list[Change] = []
    with connection(settings) as opened:
        for name, look, ways in _declarations(plan):
            if _attempt(opened, look, NOT_FOUND) is not None:
                changes.append(Change(RABBITMQ.name, name, "created"))
            refusals = _refusals(opened, ways)
            if refusals:
                changes.append(Change(RABBITMQ.name, name, "refused", "; or ".join(refusals)))
        channel = opened.channel()
        for binding in plan.bindings:
            channel.queue_bind(binding.queue, binding.exchange, binding.routing_key)
    return changes


def _refusals(opened: pika.BlockingConnection, ways: Sequence[Act]) -> list[str]:
    """Empty as soon as one way was taken; else the broker's words for the first and for the last."""
    refusals: list[str] = []
    for act in ways:
        refusal = _attempt(opened, act, PRECONDITION_FAILED)
        if refusal is None:
            return []
        refusals.append(refusal)
    return list(dict.fromkeys([refusals[0], refusals[-1]]))


def _declarations(plan: RabbitMQPlan) -> Iterator[tuple[str, Act, Sequence[Act]]]:
    """Each thing's name, how to look whether it exists, and the ways to declare it, of which the first is taken that fits."""
    for exchange in plan.exchanges:
        yield exchange.name, partial(_look_for_exchange, exchange), [partial(_declare_exchange, exchange)]
    for queue in plan.queues:
        ways = [partial(_declare_queue, queue.name, arguments) for arguments in _ways(queue)]
        yield queue.name, partial(_look_for_queue, queue), ways


def _ways(queue: Queue) -> Iterator[dict[str, Argument]]:
    """What the queue may have been declared with: all there is, or by an earlier release without some of `at_creation`."""
    extra = list(queue.at_creation.items())
    for count in range(len(extra), -1, -1):
        for some in combinations(extra, count):
            yield {**queue.arguments, **dict(some)}


def _look_for_exchange(exchange: Exchange, channel: BlockingChannel) -> None:
    channel.exchange_declare(exchange.name, passive=True)


def _declare_exchange(exchange: Exchange, channel: BlockingChannel) -> None:
    channel.exchange_declare(exchange.name, exchange.type, durable=True, arguments=dict(exchange.arguments))


def _look_for_queue(queue: Queue, channel: BlockingChannel) -> None:
    channel.queue_declare(queue.name, passive=True)


def _declare_queue(name: str, arguments: dict[str, Argument], channel: BlockingChannel) -> None:
    channel.queue_declare(name, durable=True, arguments=arguments)


def check(settings: Settings) -> DriftReport:
    """What is missing or differs, and what could not be seen. Changes nothing; raises BrokerUnavailable."""
    declared = check_declared(settings)
    if settings.rabbitmq_management_url is None:
        return declared
    effective = check_policies(settings)
    return DriftReport((*declared.drift, *effective.drift), (*declared.unseen, *effective.unseen))


def check_declared(settings: Settings) -> DriftReport:
    """As `check`, but for policies."""
    plan = rabbitmq_plan(settings)
    if settings.rabbitmq_management_url is None:
        with connection(settings) as opened:
            drift = [
                _drift(name, "exists", "no", "yes")
                for name, look, _ in _declarations(plan)
                if _attempt(opened, look, NOT_FOUND) is not None
            ]
        return DriftReport(tuple(drift), (UNSEEN,))
    return DriftReport(tuple(_compare(plan, Management(settings))), ())


def check_policies(settings: Settings) -> DriftReport:
    """What policies can take from our queues and exchanges, as `check` says it; raises BrokerUnavailable."""
    if settings.rabbitmq_management_url is None:
        return DriftReport((), (UNSEEN,))
    return _policies(rabbitmq_plan(settings), Management(settings))


def _policies(plan: RabbitMQPlan, management: Management) -> DriftReport:
    try:
        policies = management.policies()
    except NotAllowed:
        return DriftReport((), (POLICIES_UNSEEN,))
    taken = [(one.name, found) for one in plan.exchanges for found in policies.on_exchange(one.name, one.arguments)]
    taken += [
        (one.name, found)
        for one in plan.queues
        for found in policies.on_queue(one.name, {**one.at_creation, **one.arguments})
    ]
    return DriftReport(
        tuple(_drift(name, found.attribute, str(found), str(found.wanted)) for name, found in taken),
        tuple(PATTERN_UNSEEN.format(name) for name in sorted(policies.unreadable)),
    )


def _compare(plan: RabbitMQPlan, management: Management) -> Iterator[Drift]:
    exchanges, queues = management.exchanges(), management.queues()
    for exchange in plan.exchanges:
        wanted = {"type": exchange.type, "durable": True}
        yield from _compare_one(exchange.name, exchange.arguments, wanted, exchanges.get(exchange.name))
    for queue in plan.queues:
        actual = queues.get(queue.name)
        had = {key: value for key, value in queue.at_creation.items() if actual and key in actual.get("arguments", {})}
        yield from _compare_one(queue.name, {**queue.arguments, **had}, {"durable": True}, actual)
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
    return Drift(RABBITMQ.name, name, attribute, actual, wanted)
