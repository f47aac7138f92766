"""What the broker's policies make of our queues and exchanges: which effective argument can lose, drop or expire a message.

Pure. An operator's policies change a queue without showing among its arguments, and RabbitMQ reports the effective ones with
some seconds of delay, so they are worked out here from the policies themselves, by its rules: of the policies that match a
name the one of the highest priority applies; an operator policy is merged into it, the smaller number winning; against a
declared argument again the smaller number wins, `overflow` is the policy's, and where dead letters go is the queue's own.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

ABSENT: Final = "(absent)"
# The smaller number wins, and a smaller one than ours takes messages, or a whole queue, earlier than we said.
SMALLEST_WINS: Final = ("message-ttl", "expires", "max-length", "max-length-bytes", "delivery-limit")
POLICY_WINS: Final = ("overflow",)
ARGUMENT_WINS: Final = ("dead-letter-exchange", "dead-letter-routing-key", "dead-letter-strategy")
OF_QUEUES: Final = ("all", "queues", "quorum_queues")
OF_EXCHANGES: Final = ("all", "exchanges")
# A policy with one of these does not apply to a quorum queue at all.
NOT_FOR_QUORUM: Final = frozenset(
    {
        *("max-priority", "queue-mode", "queue-master-locator", "initial-cluster-size"),
        *("ha-mode", "ha-params", "ha-sync-mode", "ha-promote-on-shutdown", "ha-promote-on-failure"),
        *("max-age", "stream-max-segment-size-bytes"),
    }
)


@dataclass(frozen=True, slots=True)
class Policy:
    name: str
    pattern: str
    apply_to: str
    definition: Mapping[str, object]
    priority: int = 0
    operator: bool = False

    def __str__(self) -> str:
        return f"{'operator ' if self.operator else ''}policy {self.name!r}"


@dataclass(frozen=True, slots=True)
class Taken:
    """An argument that is not what was declared, and by whose doing."""

    attribute: str
    value: object
    wanted: object  # ABSENT when nothing was declared
    policies: tuple[Policy, ...]

    def __str__(self) -> str:
        return f"{self.value} by {' and '.join(map(str, self.policies))}"


@dataclass(slots=True)
class Policies:
    """Every policy of the virtual host, of users and of operators."""

    of_users: Sequence[Policy]
    of_operators: Sequence[Policy]
    unreadable: set[str] = field(default_factory=set)  # names whose pattern Python cannot follow

    def on_queue(self, name: str, arguments: Mapping[str, object]) -> Iterator[Taken]:
        """What takes messages from a quorum queue, given what it was declared with."""
        users = [policy for policy in self.of_users if not NOT_FOR_QUORUM & policy.definition.keys()]
        applying = [*self._highest(name, OF_QUEUES, users), *self._highest(name, OF_QUEUES, self.of_operators)]
        for key in (*SMALLEST_WINS, *POLICY_WINS, *ARGUMENT_WINS):
            given = [policy for policy in applying if key in policy.definition]
            if given:
                yield from _taken(key, given, arguments.get(f"x-{key}"))

    def on_exchange(self, name: str, arguments: Mapping[str, object]) -> Iterator[Taken]:
        """An alternate exchange where we declared none: what we publish without a route must come back to us."""
        key = "alternate-exchange"
        if key in arguments:
            return
        for policies in (self.of_operators, self.of_users):
            given = [policy for policy in self._highest(name, OF_EXCHANGES, policies) if key in policy.definition]
            if given:
                yield Taken(key, given[0].definition[key], ABSENT, tuple(given))
                return

    def _highest(self, name: str, kinds: Sequence[str], policies: Sequence[Policy]) -> list[Policy]:
        """The policies that apply; several where they have the same priority, for then nobody can tell."""
        matching = [policy for policy in policies if policy.apply_to in kinds and self._matches(policy, name)]
        most = max((policy.priority for policy in matching), default=0)
        return [policy for policy in matching if policy.priority == most]

    def _matches(self, policy: Policy, name: str) -> bool:
        """Erlang's expressions are Perl's, nearly those of Python; one that Python cannot follow is told and not guessed."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", FutureWarning)  # such as [[:alpha:]], which Python would take for a set
                return re.search(policy.pattern, name) is not None
        except (re.error, FutureWarning, RecursionError, OverflowError):
            self.unreadable.add(policy.name)
            return False


def _taken(key: str, given: Sequence[Policy], declared: object) -> Iterator[Taken]:
    wanted = ABSENT if declared is None else declared
    values = [policy.definition[key] for policy in given]
    if key in SMALLEST_WINS:
        # A negative delivery limit is none at all, and loses against any number.
        numbers = [value for value in values if isinstance(value, int) and value >= 0]
        if numbers and (not isinstance(declared, int) or min(numbers) < declared):
            yield Taken(key, min(numbers), wanted, tuple(given))
    elif key in POLICY_WINS:
        own = [policy for policy in given if policy.operator] or given
        if own[0].definition[key] != declared:
            yield Taken(key, own[0].definition[key], wanted, tuple(own))
    elif declared is None:
        yield Taken(key, values[-1], wanted, tuple(given))
