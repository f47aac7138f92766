"""A broker inside the process, for tests of the core and for work without a broker. It never outlives the process.

Time for delayed retries comes from the clock it is given; waiting in `receive` takes real time. Queues are bounded, and a
full one refuses. Beyond the contract, a test can take the broker away or have it drop what a transport holds.
"""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, assert_never

from incentive_fleet.brokers import message_headers, topology
from incentive_fleet.brokers.contract import Guarantees, OnTaken, nobody_asks
from incentive_fleet.brokers.messages import Ack, DeadLetter, Delivery, Disposition, Failure, Release, Retry
from incentive_fleet.brokers.topology import CATCH_ALL
from incentive_fleet.errors import BrokerUnavailable

QUEUES: Final = dict(topology.QUEUES)
CAPACITY: Final = 1_000_000  # messages in one broker, waiting for a retry included


@dataclass(slots=True, eq=False)
class _Message:
    body: bytes
    queue: str
    message_id: str
    headers: Mapping[str, str]
    order: int
    receives: int = 0
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class DeadMessage:
    """What lies in a dead-letter queue."""

    body: bytes
    headers: Mapping[str, str]


class MemoryBroker:
    """The queues, their dead letters and their delayed retries. Thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, capacity: int = CAPACITY) -> None:
        self._clock = clock
        self._capacity = capacity
        self._changed = threading.Condition()
        self._numbers = itertools.count()
        self._ready: list[tuple[int, _Message]] = []  # a heap: what is given back takes its old place again
        self._delayed: list[tuple[float, int, _Message]] = []
        self._in_flight = 0
        self.dead_letters: dict[str, deque[DeadMessage]] = {queue: deque() for queue in QUEUES.values()}
        self.away = False  # set it, and every transport finds the broker unavailable

    def publish(
        self, body: bytes, type_: str | None, *, headers: Mapping[str, str] | None = None, message_id: str = ""
    ) -> None:
        """Route by type as the real topology does. Raises BrokerUnavailable when the broker is away or full."""
        queue = QUEUES.get(type_ or "", QUEUES[CATCH_ALL])
        with self._changed:
            if self.away or len(self._ready) + len(self._delayed) >= self._capacity:
                raise BrokerUnavailable(f"memory broker: away, or full at {self._capacity} messages")
            order = next(self._numbers)
            named = message_id or f"memory-{order}"
            self._give(_Message(body, queue, named, dict(headers or {}), order))

    def _give(self, message: _Message) -> None:
        heapq.heappush(self._ready, (message.order, message))
        self._changed.notify_all()

    def wake_delayed(self) -> None:
        """Make retries ready whose time has come; call it after moving a clock of your own. `receive` does so itself."""
        with self._changed:
            self._wake()

    def _wake(self) -> None:
        now = self._clock()
        while self._delayed and self._delayed[0][0] <= now:
            self._give(heapq.heappop(self._delayed)[2])

    def _delay(self, message: _Message, after_s: float) -> None:
        heapq.heappush(self._delayed, (self._clock() + after_s, message.order, message))


class MemoryTransport:
    """One consumer of a MemoryBroker, with its promises as in contract.py."""

    guarantees = Guarantees(ordered=True, carries_failures=True, counts_deliveries=True, release_is_free=True)

    def __init__(self, broker: MemoryBroker) -> None:
        self.broker = broker
        self.skipped = 0  # settlements of what was no longer held
        self._held: dict[Delivery, _Message] = {}
        self._closed = False

    @property
    def held_bytes(self) -> int:
        """See contract.py. Nothing bounds it here."""
        return sum(len(message.body) for message in list(self._held.values()))

    def receive(self, max_deliveries: int, wait_s: float) -> list[Delivery]:
        """See contract.py."""
        broker, until = self.broker, time.monotonic() + wait_s
        with broker._changed:
            while True:
                self._need_broker()
                broker._wake()
                if broker._ready:
                    return [self._hold(heapq.heappop(broker._ready)[1]) for _ in self._up_to(max_deliveries)]
                remaining = until - time.monotonic()
                if remaining <= 0:
                    return []
                due = broker._delayed[0][0] - broker._clock() if broker._delayed else remaining
                broker._changed.wait(min(remaining, max(due, 0.001)))

    def _up_to(self, max_deliveries: int) -> range:
        return range(min(max_deliveries, len(self.broker._ready)))

    def _need_broker(self) -> None:
        if self.broker.away or self._closed:
            raise BrokerUnavailable("memory broker: away" if self.broker.away else "memory transport: closed")

    def _hold(self, message: _Message) -> Delivery:
        message.receives += 1
        self.broker._in_flight += 1
        delivery = Delivery(
            body=message.body,
            queue=message.queue,
            transport="memory",
            message_id=message.message_id,
            receive_count=message.receives,
            receipt=message,
            headers=message.headers,
            failure=message.failure,
        )
        self._held[delivery] = message
        return delivery

    def settle(self, dispositions: Sequence[tuple[Delivery, Disposition]], on_taken: OnTaken = nobody_asks) -> None:
        """See contract.py."""
        with self.broker._changed:
            if self.broker.away:
                self._give_back()  # nobody holds what could not be settled, as with the real brokers
            self._need_broker()
            for delivery, disposition in dispositions:
                message = self._held.pop(delivery, None)
                if message is None:
                    self.skipped += 1
                else:
                    self.broker._in_flight -= 1
                    self._carry_out(delivery, message, disposition)
                    if isinstance(disposition, DeadLetter | Retry):
                        on_taken(delivery, disposition)

    def _carry_out(self, delivery: Delivery, message: _Message, disposition: Disposition) -> None:
        match disposition:
            case Ack():
                pass
            case Retry(after_s, failure):
                message.failure = failure
                self.broker._delay(message, after_s)
            case Release():
                self.broker._give(message)
            case DeadLetter():
                headers = {**message.headers, **message_headers.of_dead_letter(delivery, disposition)}
                self.broker.dead_letters[message.queue].append(DeadMessage(message.body, headers))
            case _:
                assert_never(disposition)

    def idle(self) -> bool:
        """See contract.py."""
        with self.broker._changed:
            return not (self.broker._ready or self.broker._delayed or self.broker._in_flight)

    def lose(self) -> None:
        """Have the broker take back whatever is held, as when a visibility timeout runs out or a channel dies."""
        with self.broker._changed:
            self._give_back()

    def _give_back(self) -> None:
        for message in self._held.values():
            self.broker._give(message)
        self.broker._in_flight -= len(self._held)
        self._held.clear()

    def close(self) -> None:
        """See contract.py."""
        self.lose()
        self._closed = True
