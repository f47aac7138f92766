"""One consumer: receive, process, settle, until told to stop. What is away is waited for, in one log line a change of state.

It never decides a disposition (core.py does, or answering.py) and never talks to a broker itself (the transport does).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from incentive_fleet.brokers.contract import Transport
from incentive_fleet.brokers.messages import Ack, Delivery, Disposition, Release, Retry
from incentive_fleet.consumers.answering import Answering
from incentive_fleet.consumers.core import Core
from incentive_fleet.consumers.latency import tell_empty, tell_received
from incentive_fleet.consumers.suspects import Care
from incentive_fleet.errors import BrokerUnavailable, TransientError
from incentive_fleet.failpoints import failpoint
from incentive_fleet.measuring import Batch, Tally
from incentive_fleet.pausing import Pause
from incentive_fleet.stopping import Stop
from incentive_fleet.tracing import Spans

DELIVERIES: Final = "incentives_deliveries_total"  # counted once the broker has taken what is to become of them

GONE: Final[dict[type[Disposition], str]] = {Ack: "ack", Release: "release"}  # the others tell by `on_taken`


@dataclass(slots=True)
class Consumer:
    """A transport and a core, run by one thread."""

    name: str
    transport: Transport
    core: Core | Answering
    batch_size: int
    wait_s: float
    pause_max_s: float
    stop: Stop
    care: Care | None = None  # of a careful worker
    spans: Spans | None = None  # where batches are traced
    gather_s: float = 0.0  # at the least, from the beginning of a batch of a few to that of the next one
    pause: Pause = field(init=False)
    _not_before: float = 0.0  # monotonic

    def __post_init__(self) -> None:
        self.pause = Pause("consuming", self.pause_max_s, self.stop, {"consumer": self.name}, self.tally)
        if self.spans is not None:
            self.tally.batch = Batch(self.name.partition("-")[0])

    @property
    def tally(self) -> Tally:
        """What this thread counts."""
        return self.core.tally

    def run(self, until_idle_s: float | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        """Consume until `stop` is set or, with `until_idle_s`, until nothing came and nothing was left for so long.

        Always closes the transport, which gives back what was not started. Raises only what is not transient.
        """
        try:
            last_seen = clock()
            while not self.stop.is_set():
                deliveries = self._receive()
                if deliveries is None:
                    last_seen = clock()
                elif deliveries or self.core.deferred:
                    self._begin(len(deliveries))
                    self._handle(deliveries)
                    self._trace()
                    deliveries = None  # else the bodies would stay in memory until the next have come
                    last_seen = clock()
                elif until_idle_s is not None and self._idle_since(last_seen, until_idle_s, clock):
                    return
        finally:
            self.transport.close()
            self.core.close()

    def _begin(self, deliveries: int) -> None:
        """Say when the next batch may begin. Whatever its size a batch costs its statements and its COMMIT: a worker that takes
        what has come as soon as it can burns many times the CPU of one that lets a few more join. One alone waits for nobody,
        and a backlog fills its batches by itself."""
        held = deliveries + len(self.core.deferred)
        self._not_before = time.monotonic() + self.gather_s if 1 < held < self.batch_size else 0.0

    def _receive(self) -> list[Delivery] | None:
        """A batch, empty when nothing came, None when the broker is away."""
        deferred, began = len(self.core.deferred), time.perf_counter()
        if (left_s := self._not_before - time.monotonic()) > 0:
            self.stop.wait(left_s)
        try:
            deliveries = self.transport.receive(max(self.batch_size - deferred, 1), 0 if deferred else self.wait_s)
        except BrokerUnavailable as error:
            self.pause.wait(error)
            return None
        if deliveries:
            self.tally.phase("receive", began)
            tell_received(self.tally, deliveries, time.time())
            failpoint("after-receive")
        else:
            if not deferred:
                tell_empty(self.tally)
            self.pause.over()
        return deliveries

    def _handle(self, deliveries: list[Delivery]) -> None:
        if self.care is None:
            self._process(deliveries)
            return
        condemned = self.care.condemn(deliveries)
        if condemned:
            self._settle(condemned)
        lethal = {delivery for delivery, _ in condemned}
        left = [delivery for delivery in deliveries if delivery not in lethal]
        with self.care.in_hand([*(delivery for delivery, _ in self.core.deferred), *left]):
            self._process(left)

    def _trace(self) -> None:
        """Tell of the batch that is over, where somebody wants to know."""
        batch, self.tally.batch = self.tally.batch, None
        if self.spans is not None and batch is not None:
            self.spans.tell(batch)
            self.tally.batch = Batch(batch.source)

    def _process(self, deliveries: list[Delivery]) -> None:
        carries = self.transport.guarantees.carries_failures
        while True:
            try:
                dispositions = self.core.process(deliveries, carries_failures=carries)
                break
            except TransientError as error:
                # The messages stay held meanwhile: the transport extends their visibility and answers heartbeats.
                deliveries = []
                self.core.session.close()
                self._settle(self.core.take_decided())
                self.pause.wait(error)
                if self.stop.is_set():
                    self._settle([(delivery, Release()) for delivery in self.core.undecided()])
                    return
        self.pause.over()
        self._settle(dispositions)

    def _settle(self, dispositions: Sequence[tuple[Delivery, Disposition]]) -> None:
        if not dispositions:
            return
        began = time.perf_counter()
        try:
            self.transport.settle(dispositions, on_taken=self._on_taken)
        except BrokerUnavailable as error:
            # What was committed is committed; the messages come again and are duplicates then.
            self.pause.wait(error)
            return
        took_s = self.tally.phase("settle", began) - began
        settled = 0
        for (queue, kind), deliveries in Counter([(one.queue, type(what)) for one, what in dispositions]).items():
            if kind in GONE:
                self.tally.add(DELIVERIES, dispositions[0][0].transport, queue, GONE[kind], by=deliveries)
                settled += deliveries
        self.tally.observe("incentives_commit_to_ack_seconds", value=took_s, times=settled)

    def _on_taken(self, delivery: Delivery, disposition: Disposition) -> None:
        what = "retry" if isinstance(disposition, Retry) else "dead-letter"
        self.tally.add(DELIVERIES, delivery.transport, delivery.queue, what)
        self.core.on_taken(delivery, disposition)

    def _idle_since(self, last_seen: float, until_idle_s: float, clock: Callable[[], float]) -> bool:
        if clock() - last_seen < until_idle_s:
            return False
        try:
            return self.transport.idle()
        except BrokerUnavailable as error:
            self.pause.wait(error)
            return False
