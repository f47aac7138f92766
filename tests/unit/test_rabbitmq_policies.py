"""What the policies of RabbitMQ's operator make of a queue, by the broker's own rules of precedence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from incentive_fleet.brokers.rabbitmq.plan import rabbitmq_plan
from incentive_fleet.brokers.rabbitmq.policies import ABSENT, Policies, Policy
from incentive_fleet.settings import Settings

PLAN = rabbitmq_plan(Settings())
QUEUES = {queue.name: {**queue.at_creation, **queue.arguments} for queue in PLAN.queues}
EXCHANGES = {exchange.name: exchange.arguments for exchange in PLAN.exchanges}
SOURCE, DEAD, RETRY = "incentives.order-placed", "incentives.order-placed.dlq", "incentives.order-placed.retry-1"
DROP = {"overflow": "drop-head"}
PARKED = "incentives.outcomes.unrouted"


def user(definition: Mapping[str, object], pattern: str = ".*", apply_to: str = "all", priority: int = 0) -> Policy:
    return Policy("p", pattern, apply_to, definition, priority)


def operator(definition: Mapping[str, object], pattern: str = ".*", apply_to: str = "queues") -> Policy:
    return Policy("o", pattern, apply_to, definition, 0, operator=True)


def found(queue: str, *policies: Policy) -> dict[str, tuple[object, object]]:
    every = Policies([one for one in policies if not one.operator], [one for one in policies if one.operator])
    return {taken.attribute: (taken.value, taken.wanted) for taken in every.on_queue(queue, QUEUES[queue])}


@pytest.mark.parametrize(
    ("queue", "policies", "expected"),
    [
        (SOURCE, [], {}),
        (SOURCE, [user({"message-ttl": 2000})], {"message-ttl": (2000, ABSENT)}),
        (SOURCE, [user({"message-ttl": 0})], {"message-ttl": (0, ABSENT)}),
        (SOURCE, [user({"expires": 9})], {"expires": (9, ABSENT)}),
        (SOURCE, [user({"max-length": 5}), operator({"max-length": 3})], {"max-length": (3, ABSENT)}),
        (SOURCE, [user({"max-length-bytes": 5})], {"max-length-bytes": (5, ABSENT)}),
        (SOURCE, [user({"overflow": "drop-head"})], {"overflow": ("drop-head", "reject-publish")}),
        (SOURCE, [user({"overflow": "reject-publish"})], {}),
        (SOURCE, [user({"overflow": "reject-publish"}), operator(DROP)], {"overflow": ("drop-head", "reject-publish")}),
        (SOURCE, [user({"delivery-limit": 5})], {"delivery-limit": (5, 1000)}),
        (SOURCE, [user({"delivery-limit": 1000})], {}),
        (SOURCE, [user({"delivery-limit": -1})], {}),
        (SOURCE, [user({"dead-letter-exchange": "x", "dead-letter-strategy": "at-most-once"})], {}),  # ours win
        (DEAD, [user({"dead-letter-exchange": "x"})], {"dead-letter-exchange": ("x", ABSENT)}),
        (DEAD, [user({"delivery-limit": 20})], {"delivery-limit": (20, 1_000_000)}),
        (RETRY, [user({"message-ttl": 4_000})], {"message-ttl": (4_000, 5_000)}),
        (RETRY, [user({"message-ttl": 6_000})], {}),
        (PARKED, [user({"max-length-bytes": 2 << 30, "overflow": "drop-head"})], {}),
        (PARKED, [user({"max-length-bytes": 10})], {"max-length-bytes": (10, 1 << 30)}),
        # Which of them applies.
        (SOURCE, [user({"expires": 9}, "^other")], {}),
        (SOURCE, [user({"expires": 9}, "placed$")], {"expires": (9, ABSENT)}),
        (SOURCE, [user({"expires": 9}, apply_to="exchanges")], {}),
        (SOURCE, [user({"expires": 9}, apply_to="classic_queues")], {}),
        (SOURCE, [user({"expires": 9}, apply_to="quorum_queues")], {"expires": (9, ABSENT)}),
        (SOURCE, [user({"expires": 9}), user({"max-length": 1}, priority=1)], {"max-length": (1, ABSENT)}),
        (SOURCE, [user({"expires": 9}), user({"expires": 8})], {"expires": (8, ABSENT)}),  # nobody knows which of the two
        (SOURCE, [user({"expires": 9}), user({"ha-mode": "all", "max-length": 1}, priority=1)], {"expires": (9, ABSENT)}),
        (SOURCE, [user({"federation-upstream-set": "all", "consumer-timeout": 1})], {}),
    ],
)  # fmt: skip
def test_what_takes_messages_is_found_and_nothing_else(
    queue: str, policies: list[Policy], expected: dict[str, Any]
) -> None:
    assert found(queue, *policies) == expected


def test_a_foreign_alternate_exchange_is_found_where_we_declared_none() -> None:
    every = Policies([user({"alternate-exchange": "elsewhere"}, "^incentives")], [])
    taken = {name: [str(one) for one in every.on_exchange(name, declared)] for name, declared in EXCHANGES.items()}
    assert taken["incentives.dead-letters"] == ["elsewhere by policy 'p'"]
    assert taken["incentives.events"] == []


def test_a_pattern_that_only_erlang_can_follow_is_told() -> None:
    every = Policies([user({"expires": 1}, "[[:alpha:]]"), user({"expires": 1}, r"\K(")], [])
    assert list(every.on_queue(SOURCE, QUEUES[SOURCE])) == []
    assert every.unreadable == {"p"}
