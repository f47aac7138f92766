"""What the fleet asks of a broker, and what every adapter promises in return.

An adapter is a folder beside this file: a transport, a publisher, dead-letter queues, a sender, its topology and a probe. It
turns a broker's messages into the values of messages.py and back. It never decodes a body, never decides what becomes of a
delivery, and only its topology creates anything. tests/contract runs the same tests over every adapter.

Everywhere: `BrokerUnavailable` is the broker away, a queue that is missing, a permission that lacks. It ends by itself or
when an operator acts, waiting loses nothing, and the next call reconnects. A part belongs to one thread, which alone calls
it; one process may hold several. Times are in seconds. `close` may be called twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from incentive_fleet.brokers.messages import (
    Answered,
    AnswerWanted,
    Arrival,
    Delivery,
    Disposition,
    Message,
    Outgoing,
    Rejection,
)

if TYPE_CHECKING:
    from incentive_fleet.brokers.topology import Change, DriftReport, QueueDepth, QueueNames
    from incentive_fleet.findings import Finding, Question
    from incentive_fleet.settings import Settings
    from incentive_fleet.stopping import Stop


@dataclass(frozen=True, slots=True)
class Broker:
    """What others call one broker. Its parts are found by it in registry.py."""

    name: str  # in the report on the topology
    title: str  # in sentences
    source: str  # `--from`, the transport of a dead letter, a part of the health report
    destination: str  # `--to`, the ledger's destinations
    setting: str  # the field of Settings that says that it is there
    addresses: tuple[str, ...]  # the fields of Settings that lead to it

    @property
    def variable(self) -> str:
        """The environment variable of `setting`."""
        from incentive_fleet.settings import variable

        return variable(self.setting)

    def is_configured(self, settings: Settings) -> bool:
        """Whether the settings say where it is."""
        return bool(getattr(settings, self.setting))

    def whereabouts(self, settings: Settings) -> str | None:
        """What `setting` says where no address leads to the broker: AWS' region. It never holds a login."""
        known = any(getattr(settings, name) for name in self.addresses)
        return None if known else getattr(settings, self.setting)


@dataclass(frozen=True, slots=True)
class Guarantees:
    """What a broker gives beyond the contract, as data for the core and the contract suite."""

    ordered: bool  # deliveries come in publishing order while nothing fails
    carries_failures: bool  # Retry.failure comes back in Delivery.failure; else attempts are counted in Postgres
    counts_deliveries: bool  # Delivery.receive_count is more than a constant
    release_is_free: bool  # Release does not count towards the broker's delivery limit


OnTaken = Callable[[Delivery, Disposition], None]


def nobody_asks(delivery: Delivery, disposition: Disposition) -> None:
    """Where nobody wants to know what was taken."""


class Transport(Protocol):
    """One consumer of a broker's source queues: all of facts, or that of quotes. It connects at the first `receive`.

    A delivery is held for the caller (visibility extended, heartbeats answered, also while the caller is busy) until it is
    settled, until `close`, or until the broker takes it away. What is held at a time is bounded in bytes by the settings.
    """

    guarantees: Guarantees

    @property
    def held_bytes(self) -> int:
        """What is held now, counted as decoded (budget.py). Any thread may ask."""
        ...

    def receive(self, max_deliveries: int, wait_s: float) -> list[Delivery]:
        """Up to so many, as soon as there are any: it never waits for company. Empty after `wait_s` without one.

        Raises BrokerUnavailable and nothing else.
        """
        ...

    def settle(self, dispositions: Sequence[tuple[Delivery, Disposition]], on_taken: OnTaken = nobody_asks) -> None:
        """Carry out what is to become of each delivery, in any order and in as many calls as one likes; of each once.

        Settling what is no longer held (visibility ran out, channel gone) is skipped and counted, never an error: the message
        comes again and duplicates are free. `DeadLetter` and, where the adapter republishes, `Retry` are confirmed by the broker
        before the original is acknowledged, so a crash in between repeats and never loses. `on_taken` is called for each of them
        that the broker has taken for certain, and for no other.

        Raises BrokerUnavailable and nothing else. What could be carried out then is carried out, and nothing that was given
        is held any more: the rest comes again by the broker's own doing, and there is nothing to settle a second time.
        """
        ...

    def idle(self) -> bool:
        """True when the queues consumed hold nothing ready, delayed or in flight, as far as the broker tells.

        Raises BrokerUnavailable.
        """
        ...

    def close(self) -> None:
        """Give back at once whatever is held and unsettled, and end threads. Raises nothing."""
        ...


class Publisher(Protocol):
    """Publishes to one topic or exchange. It connects when first used; what is in flight at a time is bounded."""

    def check(self) -> None:
        """Raise SettingsError when the destination does not exist or does not let us in, BrokerUnavailable when it is away."""
        ...

    def publish(self, messages: Sequence[Message]) -> list[Rejection]:
        """Returns when the broker has confirmed or refused each message; what is not among the rejections is confirmed.

        BrokerUnavailable means that nobody knows what arrived: publish the same messages again, with the same ids. Consumers
        drop repeats, so that is free. SettingsError means that people must act, as of `check`.
        """
        ...

    def close(self) -> None:
        """Let go of connections and threads. Raises nothing."""
        ...


class DeadLetterQueues(Protocol):
    """The dead-letter queues of one broker, to be emptied. All but `let_go` and `close` raise BrokerUnavailable."""

    def receive(self, most: int, wait_s: float) -> list[Arrival]:
        """Up to `most` copies, and no more than the budget has room for beside what was not let go, as soon as there are
        any; they are held until `remove`, `close` or the broker's timeout."""
        ...

    def remove(self, arrivals: list[Arrival]) -> None:
        """These are safely kept elsewhere. A copy that could not be removed comes again, which is harmless."""
        ...

    def let_go(self, arrivals: list[Arrival]) -> None:
        """These are in memory no longer, removed or not; the room that they took is for others to come."""
        ...

    def empty(self) -> bool:
        """Whether the broker counts nothing ready and nothing held by anybody, as far as it can tell."""
        ...

    def close(self) -> None:
        """Give back what is held. Raises nothing."""
        ...


class Sender(Protocol):
    """Sends to the source queues of one broker, past topic and exchange."""

    def send(self, messages: list[Outgoing]) -> list[str]:
        """For each message "" when the broker has taken it for certain, else why not. It may have arrived all the same.

        Raises BrokerUnavailable, and then nobody knows of any of them.
        """
        ...

    def close(self) -> None:
        """Let go of connections and threads. Raises nothing."""
        ...


class Replies(Protocol):
    """Answers the requests that a transport of the same broker delivered, each at the address that it names."""

    def asked(self, delivery: Delivery) -> AnswerWanted:
        """The address that it names, and until when it wants an answer. Asks nobody and raises nothing."""
        ...

    def send(self, answers: Sequence[tuple[Delivery, Message]]) -> list[Answered]:
        """Send each answer with its request's correlation id, as it came, and say what became of it, in the order given.

        It waits for a few seconds at the most, and for a queue that kept it waiting once not again for a while: one that is
        gone, full or stuck holds up nobody else's answers. Whether an address may be answered is the caller's question.
        Raises BrokerUnavailable and nothing else; then nobody knows of any of them, and they may be sent again.
        """
        ...

    def close(self) -> None:
        """Let go of connections and threads. Raises nothing."""
        ...


class QueueDepths(Protocol):
    """How much lies in a broker's queues. It connects when first read, and keeps the connection."""

    def read(self) -> list[QueueDepth]:
        """Every source, retry and dead-letter queue. Raises BrokerUnavailable."""
        ...

    def close(self) -> None:
        """Let go of the connection. Raises nothing."""
        ...


class Topology(Protocol):
    """What exists on a broker. It keeps nothing from call to call, and any thread may call it."""

    def apply_topology(self, settings: Settings) -> list[Change]:
        """Create what is missing and set what may be set; nothing is ever deleted. Idempotent.

        A change that is "refused" needs a person. Raises BrokerUnavailable, and may be run again after it.
        """
        ...

    def check_topology(self, settings: Settings) -> DriftReport:
        """What is missing or differs, and what could not be seen. Changes nothing; raises BrokerUnavailable."""
        ...

    def check_policies(self, settings: Settings) -> DriftReport:
        """What an operator's policies can take from our queues though each is as declared. Raises BrokerUnavailable."""
        ...

    def queues(self, settings: Settings) -> Sequence[QueueNames]:
        """What its queues are called, an event type each, that of quote requests among them. Asks nobody."""
        ...


class BrokerParts(Topology, Protocol):
    """What an adapter's parts.py offers: the module itself is one, and it imports its driver only inside the functions.

    `open_...` raise SettingsError where a setting is unset or cannot be read, and connect to nothing.
    """

    def read_settings(self, settings: Settings) -> None:
        """Only raises SettingsError, for every mistake in this broker's settings that can be seen without connecting."""
        ...

    def open_transport(self, settings: Settings, stop: Stop) -> Transport:
        """Of facts."""
        ...

    def open_quotes(self, settings: Settings, stop: Stop) -> Transport:
        """Of quote requests. It is never given a Retry."""
        ...

    def open_replies(self, settings: Settings, stop: Stop) -> Replies:
        """To those who asked. `asked` understands what `open_quotes` delivers."""
        ...

    def open_events(self, settings: Settings, stop: Stop | None = None) -> Publisher:
        """Of events, as an order system publishes them."""
        ...

    def open_outcomes(self, settings: Settings, stop: Stop | None = None) -> Publisher:
        """Of outcomes, for the relay."""
        ...

    def open_dead_letters(self, settings: Settings, stop: Stop) -> DeadLetterQueues: ...

    def open_sender(self, settings: Settings) -> Sender: ...

    def open_depths(self, settings: Settings, stop: Stop) -> QueueDepths: ...

    def checks(self) -> tuple[Question, ...]:
        """Every code that `examine` may find, each beginning with the broker's name and a hyphen."""
        ...

    def examine(self, settings: Settings) -> Iterator[Finding]:
        """What the broker and our queues are set to, and what that risks, each as soon as it is known. It changes nothing.

        Raises BrokerUnavailable when it cannot be reached; what was found before counts.
        """
        ...

    def probe(self, settings: Settings, within_s: float) -> None:
        """Whether the broker takes a connection now. Raises OSError (TimeoutError), or SettingsError, within about so long."""
        ...
