"""Receives from SQS ahead of the caller and keeps what is held hidden from others. It never deletes a message.

Poller threads long poll the queues into a bounded buffer. One poller stays with each queue; the others join whichever
queue just gave a full ten, and rest when none does, so that idle queues cost one long poll each and no more. A heartbeat
thread extends the visibility of everything held, in the buffer or with the caller, before half of it is left.

While what is held fills the budget, nobody polls; otherwise a receive asks for as many messages as there is room for.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any, Final

from incentive_fleet.brokers.aws.batches import ENTRIES, Batches, Receipt
from incentive_fleet.brokers.aws.client import available
from incentive_fleet.brokers.aws.plan import SQS_MESSAGE_BYTES
from incentive_fleet.brokers.budget import Budget, Forecast
from incentive_fleet.settings import Settings
from incentive_fleet.stopping import Stop

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

HELD_MOST_S: Final = 43_200  # 12 h from the receive on; SQS refuses to hide a message for longer
JOIN_S: Final = 2.0  # beyond the long poll
# With a backlog, pollers bring ten at a time and a consumer that took each ten at once would never see a batch worth its
# transaction. No queue that has run empty is waited for.
GATHER_S: Final = 0.05


@dataclass(slots=True, eq=False)
class Held:
    """One received message. `until` is when others may receive it, on the monotonic clock."""

    queue: str
    receipt: Receipt
    body: bytes
    message: Mapping[str, Any]  # without its body
    since: float
    until: float

    @property
    def age_s(self) -> int:
        """Whole seconds since it was received."""
        return ceil(time.monotonic() - self.since)

    @property
    def lapsed(self) -> bool:
        """Whether its visibility ran out, so that somebody else may have it by now."""
        return time.monotonic() >= self.until


class Intake:
    """Pollers, buffer and heartbeat from `start` to `stop`. `take`, `drop` and `stop` belong to one thread."""

    def __init__(
        self, client: SQSClient, urls: Mapping[str, str], settings: Settings, batches: Batches, stop: Stop
    ) -> None:
        self._stop = stop
        self._client = client
        self._urls = urls
        self._batches = batches
        self._visibility_s = settings.sqs_visibility_s
        self._poll_s = max(1, ceil(settings.wait_s))  # SQS counts in whole seconds; 0 would be a short poll
        self._capacity = max(settings.batch_size, ENTRIES * settings.sqs_pollers)
        self._changed = threading.Condition()
        self._buffer: deque[Held] = deque()
        self._reserved = 0  # room promised to receives under way: messages
        self._promised = 0  # ... and bytes, as decoded
        self._budget = Budget(settings.held_bytes_max, settings.event_bytes_max)
        self._forecast = Forecast(self._budget, SQS_MESSAGE_BYTES)
        self._dropped: list[int] = []  # bytes of bodies that are settled and still count
        self._held: set[Held] = set()
        self._busy: deque[str] = deque(maxlen=settings.sqs_pollers)  # queues that gave all that was asked for
        self._full: set[str] = set()  # queues whose last receive gave all that was asked for
        self._errors: dict[str, Exception] = {}
        self._failures = 0
        self._kicks = 0
        self._stopping = False
        self._extending = threading.Lock()
        stay = min(settings.sqs_pollers, len(urls))
        homes = [list(urls)[start::stay] for start in range(stay)]
        extra: list[list[str]] = [[] for _ in range(settings.sqs_pollers - stay)]
        self._threads = [
            threading.Thread(target=self._poll, args=(home,), name=f"sqs-poller-{number}", daemon=True)
            for number, home in enumerate(homes + extra, 1)
        ]
        self._threads.append(threading.Thread(target=self._beat, name="sqs-visibility", daemon=True))

    def start(self) -> None:
        """Start the threads; once."""
        for thread in self._threads:
            thread.start()

    def take(self, most: int, wait_s: float) -> list[Held]:
        """What has been received, as soon as there is any; for a moment more while a queue is known to hold more.

        Raises BrokerUnavailable when receiving fails.
        """
        with self._changed:
            # Only now: until it asked for more, the caller may have looked at what it settled.
            self._let_go(self._dropped)
            self._dropped = []
            failures = self._failures
            if self._errors:
                self._kicks += 1  # pollers that failed try again
                self._changed.notify_all()
            self._stop.wait_for(self._changed, lambda: bool(self._buffer) or failures != self._failures, wait_s)
            if not self._buffer and self._errors:
                raise next(iter(self._errors.values()))
            self._gather(most)
            taken = [self._buffer.popleft() for _ in range(min(most, len(self._buffer)))]
            self._changed.notify_all()
            # What lapsed in the buffer is somebody else's by now.
            lapsed = {held for held in taken if held.lapsed}
            self._held -= lapsed
            self._let_go([len(held.body) for held in lapsed])
        return [held for held in taken if held not in lapsed] if lapsed else taken

    def _let_go(self, sizes: list[int]) -> None:
        if sizes:
            self._budget.give_back(sizes)
            self._changed.notify_all()

    def _gather(self, most: int) -> None:
        until = time.monotonic() + GATHER_S
        while self._buffer and self._full and self._has_room() and len(self._buffer) < most:
            if not self._changed.wait(max(0.0, until - time.monotonic())):
                return

    def drop(self, settled: Iterable[Held]) -> list[Held]:
        """Stop extending these; gives those that were held until now. After it no extension of them is under way."""
        with self._extending, self._changed:
            known = [held for held in settled if held in self._held]
            self._held.difference_update(known)
            self._dropped += [len(held.body) for held in known]
        return known

    @property
    def held_bytes(self) -> int:
        """Bytes held, as decoded; any thread may ask."""
        return self._budget.held

    @property
    def holds_any(self) -> bool:
        """Whether anything is in the buffer, with the caller, or about to be received."""
        with self._changed:
            return bool(self._held)

    def stop(self) -> list[Held]:
        """End the threads within the long poll and two seconds, or what the drain leaves; gives everything that was held.

        A poll that is cut may have been given messages: they come again when their visibility ends.
        """
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        deadline = time.monotonic() + min(self._poll_s + JOIN_S, self._stop.left_to_finish_s())
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        with self._changed:
            held, self._held = list(self._held), set()
            self._buffer.clear()
        return held

    def _poll(self, homes: Sequence[str]) -> None:
        turn = 0
        while (task := self._next_queue(homes, turn)) is not None:
            queue, most, promised = task
            turn += 1
            try:
                received = self._receive(queue, most, self._wait_s(homes))
            except Exception as error:  # handed to the caller, who tells unavailability from a bug
                self._fail(queue, promised, error)
            else:
                self._accept(queue, promised, received, full=len(received) == most)
            received = []  # else the last bodies would stay in memory while nothing comes

    def _next_queue(self, homes: Sequence[str], turn: int) -> tuple[str, int, int] | None:
        """Where to receive next, how many at the most, and the bytes promised to them; None when stopping.

        It waits until there is room for ten of them and the budget is not full. Bytes that are promised to others make it
        ask for fewer, and hold nobody up: a long poll of an empty queue must not starve the rest.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._stopping or (self._has_room() and bool(homes or self._busy)))
            if self._stopping:
                return None
            queue = homes[turn % len(homes)] if homes else self._busy.popleft()
            most = self._forecast.fitting(self._budget.most - self._budget.held - self._promised, ENTRIES)
            promised = most * self._forecast.each
            self._reserved += ENTRIES
            self._promised += promised
            return queue, most, promised

    def _has_room(self) -> bool:
        return not self._budget.full and len(self._buffer) + self._reserved + ENTRIES <= self._capacity

    def _wait_s(self, homes: Sequence[str]) -> int:
        # A poller that has several queues to itself must not dwell on an empty one while another has more.
        return 0 if len(homes) > 1 and not self._full.isdisjoint(homes) else self._poll_s

    def _receive(self, queue: str, most: int, wait_s: int) -> list[Held]:
        url = self._urls[queue]
        with available():
            answer = self._client.receive_message(
                QueueUrl=url,
                MaxNumberOfMessages=most,
                WaitTimeSeconds=wait_s,
                VisibilityTimeout=self._visibility_s,
                MessageSystemAttributeNames=["ApproximateReceiveCount", "SentTimestamp"],
                MessageAttributeNames=["All"],
            )
        now = time.monotonic()
        return [
            Held(
                queue,
                Receipt(url, message["ReceiptHandle"]),
                message["Body"].encode(),
                {name: value for name, value in message.items() if name != "Body"},
                now,
                now + self._visibility_s,
            )
            for message in answer.get("Messages", ())
        ]

    def _accept(self, queue: str, promised: int, received: Sequence[Held], *, full: bool) -> None:
        sizes = [len(held.body) for held in received]
        with self._changed:
            self._reserved -= ENTRIES
            self._promised -= promised
            self._forecast.learn(sizes)
            if not self._stopping:
                self._held.update(received)
                for size in sizes:
                    self._budget.take(size)
                self._buffer.extend(received)
                self._errors.pop(queue, None)
                if full:
                    self._busy.append(queue)
                    self._full.add(queue)
                else:
                    self._full.discard(queue)
                self._changed.notify_all()
                return
        self._batches.change_visibility([(held.receipt, 0) for held in received])

    def _fail(self, queue: str, promised: int, error: Exception) -> None:
        with self._changed:
            self._reserved -= ENTRIES
            self._promised -= promised
            self._errors[queue] = error
            self._failures += 1
            kicks = self._kicks
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._stopping or self._kicks != kicks)

    def _beat(self) -> None:
        pause_s = min(5.0, self._visibility_s / 8)
        while True:
            with self._changed:
                if self._changed.wait_for(lambda: self._stopping, pause_s):
                    return
            self._extend()

    def _extend(self) -> None:
        with self._extending:
            now = time.monotonic()
            with self._changed:
                due = [
                    held
                    for held in self._held
                    if now < held.until < now + self._visibility_s / 2
                    and now + self._visibility_s < held.since + HELD_MOST_S
                ]
            if not due:
                return
            result = self._batches.change_visibility([(held.receipt, self._visibility_s) for held in due])
            for position in result.done:
                due[position].until = now + self._visibility_s
            for position in result.refused:
                due[position].until = now  # SQS says that it is ours no more
