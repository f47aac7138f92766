"""Every exchange, queue and binding on RabbitMQ with its arguments, as plain data from the settings. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from incentive_fleet import names
from incentive_fleet.brokers.topology import BACKSTOP_DELIVERIES, CATCH_ALL, QUEUES, QUOTES, RETENTION_S, QueueNames
from incentive_fleet.settings import Settings

NEVER_DROPPED: Final = 1_000_000  # RabbitMQ 4 drops from a quorum queue at 20 deliveries unless told; 3.10 takes no -1
PARKED_BYTES: Final = 1 << 30  # of outcomes that nobody has bound a queue for
QUESTION_BYTES: Final = 1 << 28  # of quote requests that nobody answers; beyond, the oldest go
# Without it every leader sits on the node that declared the queues.
SPREAD: Final = {"x-queue-leader-locator": "balanced"}
# RabbitMQ 4.3 keeps a minute what the consumers of a dead node held; earlier ones give it back at once and do not ask.
DISCONNECTED_MS: Final = 5_000

Argument = str | int


@dataclass(frozen=True, slots=True)
class Exchange:
    name: str
    type: Literal["topic", "fanout", "direct"]
    arguments: Mapping[str, Argument] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Queue:
    name: str
    arguments: Mapping[str, Argument]
    # Taken where the queue is created. One from before may lack them and is used as it is: no argument can be added.
    at_creation: Mapping[str, Argument] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Binding:
    exchange: str
    queue: str
    routing_key: str


@dataclass(frozen=True, slots=True)
class RabbitMQPlan:
    """Durable all; exchanges come before what refers to them."""

    exchanges: tuple[Exchange, ...]
    queues: tuple[Queue, ...]
    bindings: tuple[Binding, ...]


def rabbitmq_queues(settings: Settings) -> tuple[QueueNames, ...]:
    """The RabbitMQ queues, the catch-all first and that of quotes, which are never retried, last."""
    delays = sorted(settings.retry_delays_s)
    return tuple(
        QueueNames(
            type_,
            source := f"{settings.prefix}.{word}",
            f"{source}.dlq",
            tuple((delay, f"{source}.retry-{step}") for step, delay in enumerate(delays, 1) if type_ != QUOTES[0]),
        )
        for type_, word in QUEUES
    )


def dead_letter_exchange(prefix: str) -> str:
    """Direct; the routing key is the source queue's name."""
    return f"{prefix}.dead-letters"


def rabbitmq_plan(settings: Settings) -> RabbitMQPlan:
    """Everything on RabbitMQ."""
    events = names.events_exchange(settings.prefix)
    outcomes = names.outcomes_exchange(settings.prefix)
    dead = dead_letter_exchange(settings.prefix)
    unrouted_events, unrouted_outcomes = f"{events}.unrouted", f"{outcomes}.unrouted"
    queues = rabbitmq_queues(settings)
    catch_all = next(queue.source for queue in queues if queue.type == CATCH_ALL)
    return RabbitMQPlan(
        exchanges=(
            Exchange(unrouted_events, "fanout"),
            Exchange(unrouted_outcomes, "fanout"),
            Exchange(events, "topic", {"alternate-exchange": unrouted_events}),
            Exchange(outcomes, "topic", {"alternate-exchange": unrouted_outcomes}),
            Exchange(dead, "direct"),
        ),
        queues=(*(queue for group in queues for queue in _queues_of(group, dead)), _parking(unrouted_outcomes)),
        bindings=(
            *(Binding(events, queue.source, queue.type) for queue in queues),
            *(Binding(dead, queue.dead_letters, queue.source) for queue in queues),
            Binding(unrouted_events, catch_all, ""),
            Binding(unrouted_outcomes, unrouted_outcomes, ""),
        ),
    )


def _queues_of(group: QueueNames, dead_letters: str) -> tuple[Queue, ...]:
    source = _questions() if group.type == QUOTES[0] else _facts(group, dead_letters)
    dead: dict[str, Argument] = {"x-queue-type": "quorum", "x-delivery-limit": NEVER_DROPPED}
    consumed: dict[str, Argument] = {**SPREAD, "x-consumer-disconnected-timeout": DISCONNECTED_MS}
    retries = (
        Queue(name, _at_least_once("", group.source) | {"x-message-ttl": round(delay * 1_000)}, SPREAD)
        for delay, name in group.retries
    )
    return (
        Queue(group.source, source, consumed),
        # Should somebody's policy bound its length, it refuses the newest, which then stays where it is, and drops none.
        Queue(group.dead_letters, dead, consumed | {"x-overflow": "reject-publish"}),
        *retries,
    )


def _facts(group: QueueNames, dead_letters: str) -> dict[str, Argument]:
    return _at_least_once(dead_letters, group.source) | {"x-delivery-limit": BACKSTOP_DELIVERIES}


def _questions() -> dict[str, Argument]:
    # Without dead-lettering: a request whose time is over is to vanish, and would come to the dead letters by it. For the
    # same reason the oldest make room for the newest, which somebody still waits for.
    return {
        "x-queue-type": "quorum",
        "x-delivery-limit": BACKSTOP_DELIVERIES,
        "x-max-length-bytes": QUESTION_BYTES,
        "x-overflow": "drop-head",
    }


def _at_least_once(exchange: str, routing_key: str) -> dict[str, Argument]:
    # RabbitMQ dead-letters at least once only from quorum queues that refuse new messages rather than drop old ones.
    return {
        "x-queue-type": "quorum",
        "x-dead-letter-exchange": exchange,
        "x-dead-letter-routing-key": routing_key,
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }


def _parking(name: str) -> Queue:
    # Outcomes that nobody has bound a queue for: the newest are kept for two weeks, in bounded space, so that the relay
    # never blocks. The outbox in Postgres still holds every one of them.
    return Queue(
        name,
        {
            "x-queue-type": "quorum",
            "x-delivery-limit": NEVER_DROPPED,
            "x-message-ttl": RETENTION_S * 1_000,
            "x-max-length-bytes": PARKED_BYTES,
            "x-overflow": "drop-head",
        },
        SPREAD,
    )
