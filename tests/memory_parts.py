"""A third broker, from the outside what an adapter's parts.py is: the in-memory broker with all that the fleet asks of one."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, cast

from incentive_fleet.brokers.contract import Broker
from incentive_fleet.brokers.memory import DeadMessage, MemoryBroker, MemoryTransport
from incentive_fleet.brokers.memory_replies import MemoryReplies
from incentive_fleet.brokers.message_headers import OURS, REPLAY
from incentive_fleet.brokers.messages import Arrival, Message, Outgoing, Rejection
from incentive_fleet.brokers.topology import QUEUES, Change, Drift, DriftReport, QueueDepth, QueueNames
from incentive_fleet.errors import BrokerUnavailable
from incentive_fleet.findings import OK, RISK, Finding, Question
from incentive_fleet.settings import Settings
from incentive_fleet.stopping import Stop

# Its setting is one that is always there: it needs no address.
MEMORY: Final = Broker(
    name="memory", title="Memory", source="memory", destination="memory", setting="prefix", addresses=()
)
DECLARED: Final = Question("memory-declared", "queues", "What is sent is lost.", "Declare them.")
TYPE_OF: Final = {queue: type_ for type_, queue in QUEUES}
Receipt = tuple[str, DeadMessage]


def _need(broker: MemoryBroker) -> None:
    if broker.away:
        raise BrokerUnavailable("memory broker: away")


@dataclass
class MemoryPublisher:
    broker: MemoryBroker
    published: list[Message]

    def check(self) -> None:
        _need(self.broker)

    def publish(self, messages: Sequence[Message]) -> list[Rejection]:
        for message in messages:
            self.broker.publish(message.body, message.type, message_id=message.id or "")
            self.published.append(message)
        return []

    def close(self) -> None:
        pass


@dataclass
class OutcomesOfMemory:
    """Nobody consumes them here."""

    broker: MemoryBroker
    published: list[Message]

    def check(self) -> None:
        _need(self.broker)

    def publish(self, messages: Sequence[Message]) -> list[Rejection]:
        _need(self.broker)
        self.published += messages
        return []

    def close(self) -> None:
        pass


@dataclass
class MemoryDeadLetters:
    broker: MemoryBroker
    numbers: itertools.count[int] = field(default_factory=itertools.count)
    held: list[Receipt] = field(default_factory=list)

    def receive(self, most: int, wait_s: float) -> list[Arrival]:
        _need(self.broker)
        found: list[Arrival] = []
        for queue, letters in self.broker.dead_letters.items():
            while letters and len(found) < most:
                receipt = (queue, letters.popleft())
                self.held.append(receipt)
                found.append(self._arrival(*receipt))
        if not found:
            time.sleep(min(wait_s, 0.05))
        return found

    def _arrival(self, queue: str, letter: DeadMessage) -> Arrival:
        return Arrival(
            transport=MEMORY.source,
            source_queue=queue,
            dead_letter_queue=f"{queue}-dead",
            body=letter.body,
            headers=letter.headers,
            envelope={"headers": {name: text for name, text in letter.headers.items() if not name.startswith(OURS)}},
            name=f"copy-{next(self.numbers)}",
            certain=False,
            receive_count=1,
            moved_by_broker=None,
            receipt=(queue, letter),
        )

    def remove(self, arrivals: list[Arrival]) -> None:
        for arrival in arrivals:
            self.held.remove(cast(Receipt, arrival.receipt))

    def let_go(self, arrivals: list[Arrival]) -> None:
        pass

    def empty(self) -> bool:
        _need(self.broker)
        return not self.held and not any(self.broker.dead_letters.values())

    def close(self) -> None:
        for queue, letter in self.held:
            self.broker.dead_letters[queue].append(letter)
        self.held.clear()


@dataclass
class MemorySender:
    broker: MemoryBroker

    def send(self, messages: list[Outgoing]) -> list[str]:
        for message in messages:
            headers = {**message.envelope["headers"], REPLAY: message.mark}
            self.broker.publish(message.body, TYPE_OF[message.source_queue], headers=headers)
        return [""] * len(messages)

    def close(self) -> None:
        pass


@dataclass
class MemoryDepths:
    broker: MemoryBroker

    def read(self) -> list[QueueDepth]:
        _need(self.broker)
        depths = [
            QueueDepth(f"{queue}-dead", "dead-letter", len(letters), 0, 0)
            for queue, letters in self.broker.dead_letters.items()
        ]
        ready = Counter(message.queue for _, message in self.broker._ready)
        return [*depths, *(QueueDepth(queue, "source", ready[queue], None, None) for queue in TYPE_OF)]

    def close(self) -> None:
        pass


@dataclass
class MemoryParts:
    """Where the others' modules open connections, this hands out ends of one broker."""

    broker: MemoryBroker = field(default_factory=MemoryBroker)
    events: list[Message] = field(default_factory=list)
    outcomes: list[Message] = field(default_factory=list)
    declared: bool = False

    def read_settings(self, settings: Settings) -> None:
        pass

    def open_transport(self, settings: Settings, stop: Stop) -> MemoryTransport:
        return MemoryTransport(self.broker)

    def open_quotes(self, settings: Settings, stop: Stop) -> MemoryTransport:
        return MemoryTransport(self.broker)

    def open_replies(self, settings: Settings, stop: Stop) -> MemoryReplies:
        return MemoryReplies(self.broker)

    def open_events(self, settings: Settings, stop: Stop | None = None) -> MemoryPublisher:
        return MemoryPublisher(self.broker, self.events)

    def open_outcomes(self, settings: Settings, stop: Stop | None = None) -> OutcomesOfMemory:
        return OutcomesOfMemory(self.broker, self.outcomes)

    def open_dead_letters(self, settings: Settings, stop: Stop) -> MemoryDeadLetters:
        return MemoryDeadLetters(self.broker)

    def open_sender(self, settings: Settings) -> MemorySender:
        return MemorySender(self.broker)

    def open_depths(self, settings: Settings, stop: Stop) -> MemoryDepths:
        return MemoryDepths(self.broker)

    def apply_topology(self, settings: Settings) -> list[Change]:
        changes = [] if self.declared else [Change(MEMORY.name, queue, "created") for queue in TYPE_OF]
        self.declared = True
        return changes

    def check_topology(self, settings: Settings) -> DriftReport:
        missing = () if self.declared else tuple(Drift(MEMORY.name, queue, "exists", "no", "yes") for queue in TYPE_OF)
        return DriftReport(missing, ())

    def check_policies(self, settings: Settings) -> DriftReport:
        return DriftReport((), ())

    def queues(self, settings: Settings) -> list[QueueNames]:
        return [QueueNames(type_, queue, f"{queue}-dead") for queue, type_ in TYPE_OF.items()]

    def checks(self) -> tuple[Question, ...]:
        return (DECLARED,)

    def examine(self, settings: Settings) -> Iterator[Finding]:
        _need(self.broker)
        yield DECLARED.found(OK if self.declared else RISK, self.declared)

    def probe(self, settings: Settings, within_s: float) -> None:
        if self.broker.away:
            raise ConnectionRefusedError("memory broker: away")
