"""RabbitMQ as a transport: quorum queues on one channel, acknowledgements many at a time. Promises: contract.py.

It never declares a queue and never publishes on the connection that consumes: a broker in a memory or disk alarm stops
reading from connections that publish, and acknowledgements are what ends such an alarm.

A dead letter or retry that the broker refused or could not route is given back, and `settle` raises BrokerUnavailable once
it has carried out the rest: the message comes again, meets the same disposition, and its queue may be there by then.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, assert_never

from incentive_fleet.brokers import message_headers
from incentive_fleet.brokers.budget import Budget
from incentive_fleet.brokers.contract import Guarantees, OnTaken, nobody_asks
from incentive_fleet.brokers.messages import Ack, DeadLetter, Delivery, Disposition, Release, Retry
from incentive_fleet.brokers.rabbitmq import RABBITMQ
from incentive_fleet.brokers.rabbitmq.client import open_link, parameters
from incentive_fleet.brokers.rabbitmq.copies import senders
from incentive_fleet.brokers.rabbitmq.counting import ready
from incentive_fleet.brokers.rabbitmq.link import Incoming, Link
from incentive_fleet.brokers.rabbitmq.management import Management
from incentive_fleet.brokers.rabbitmq.notes import delivered_before, sent_at
from incentive_fleet.brokers.rabbitmq.plan import dead_letter_exchange, rabbitmq_queues
from incentive_fleet.brokers.rabbitmq.properties import cut, shown, shown_name, shown_property
from incentive_fleet.brokers.rabbitmq.sending import Copy, send
from incentive_fleet.brokers.topology import QueueNames, facts_of
from incentive_fleet.errors import BrokerUnavailable
from incentive_fleet.failpoints import failpoint
from incentive_fleet.settings import Settings
from incentive_fleet.stopping import Stop

# Between a delay queue and the source queue a message is counted in neither: for milliseconds, longer on a busy broker.
RETURN_S: Final = 2.0
BACKOFF_FIRST_S: Final = 0.1
BACKOFF_MOST_S: Final = 5.0  # the consumers' core pauses longer where need be

NOTHING: Final[Mapping[str, str]] = {}


@dataclass(slots=True, eq=False)
class RabbitMQReceipt:
    """What names a delivery to the link that made it; replies.py reads the properties."""

    link: Link
    tag: int
    properties: bytes  # as on the wire
    arrived_at: float  # seconds since 1970


class RabbitMQTransport:
    """One consumer, of the queues of facts unless others are named. It connects at the first `receive`."""

    guarantees = Guarantees(ordered=False, carries_failures=True, counts_deliveries=True, release_is_free=False)

    def __init__(
        self, settings: Settings, stop: Stop | None = None, queues: Sequence[QueueNames] | None = None
    ) -> None:
        self._settings = settings
        self._stop = stop or Stop(settings.drain_s)
        self._nodes = parameters(settings)
        queues = facts_of(rabbitmq_queues(settings)) if queues is None else queues
        self._queues = {names.source: names for names in queues}
        self._dead_letters = dead_letter_exchange(settings.prefix)
        self._consuming: Link | None = None
        self._publishing: Link | None = None
        self._settled: set[int] = set()  # tags of the consuming link above the floor
        self._floor = 0  # every tag up to here is settled
        self._settled_sizes: list[int] = []  # bytes of bodies that are settled and still count against the budget
        self._late: list[int] = []  # done, above the floor, and not acknowledged yet
        self._given = 0  # deliveries handed out by the consuming link and not settled
        self._returns_by = 0.0  # when every retry published here is back in its source queue
        self._failures = 0
        self._not_before = 0.0
        self.skipped = 0  # settlements of what a link that is over had delivered

    @property
    def held_bytes(self) -> int:
        """See contract.py."""
        link = self._consuming
        return link.throttle.held if link is not None and link.throttle is not None and link.alive else 0

    def receive(self, max_deliveries: int, wait_s: float) -> list[Delivery]:
        """See contract.py."""
        link = self._consumer(wait_s)
        link.let_go(self._settled_sizes)  # only now: until it asked for more, the caller may have looked at them
        self._settled_sizes.clear()
        try:
            arrived = link.take(max_deliveries, wait_s)
        except BrokerUnavailable:
            self._consuming = None  # the loss is told once; the next call makes a new link
            raise
        deliveries = [self._delivery(link, incoming) for incoming in arrived]
        self._given += len(deliveries)
        return deliveries

    def _consumer(self, wait_s: float) -> Link:
        link = self._consuming
        if link is not None:
            if link.alive:
                return link
            self._consuming = None
            link.raise_if_over()
        left = self._not_before - time.monotonic()
        if left > 0:
            self._stop.wait(min(left, wait_s))
        if left > wait_s:
            raise BrokerUnavailable(f"RabbitMQ: next attempt in {left - wait_s:.1f} s")
        budget = Budget(self._settings.held_bytes_max, self._settings.event_bytes_max)
        try:
            link = open_link(
                self._nodes, self._stop, queues=tuple(self._queues), prefetch=self._settings.prefetch, budget=budget
            )
        except BrokerUnavailable:
            self._back_off()
            raise
        self._failures, self._floor, self._given, self._late = 0, 0, 0, []
        self._settled, self._settled_sizes = set(), []
        self._consuming = link
        return link

    def _back_off(self) -> None:
        self._failures += 1
        most = min(BACKOFF_FIRST_S * 2 ** min(self._failures, 10), BACKOFF_MOST_S, self._settings.pause_max_s)
        self._not_before = time.monotonic() + random.uniform(most / 2, most)

    def _publisher(self) -> Link:
        link = self._publishing
        if link is None or not link.alive:
            link = self._publishing = open_link(self._nodes, self._stop)
        return link

    def _delivery(self, link: Link, incoming: Incoming) -> Delivery:
        tag, queue, properties, body, arrived_at = incoming
        parts = cut(properties)
        raw = parts.headers
        headers = {shown_name(name): shown(value) for name, value in raw.items()} if raw else NOTHING
        message_id = parts.properties.get("message_id")
        return Delivery(
            body,
            queue,
            RABBITMQ.source,
            str(shown_property("message_id", message_id)) if message_id else "",
            delivered_before(raw) + 1,
            RabbitMQReceipt(link, tag, properties, arrived_at),
            headers,
            message_headers.failure_in(headers) if headers else None,
            sent_at(parts),
        )

    def settle(self, dispositions: Sequence[tuple[Delivery, Disposition]], on_taken: OnTaken = nobody_asks) -> None:
        """See contract.py; also raises BrokerUnavailable where a dead letter or retry was not taken by the broker."""
        held = [one for one in _receipts(dispositions) if self._holds(one[1])]
        self.skipped += len(dispositions) - len(held)
        if not held:
            return
        self._settled_sizes += [len(delivery.body) for delivery, _, _ in held]
        done: list[int] = []
        back: list[int] = []
        copies: list[tuple[Delivery, RabbitMQReceipt, Retry | DeadLetter]] = []
        for delivery, receipt, disposition in held:
            match disposition:
                case Ack():
                    done.append(receipt.tag)
                case Release():
                    back.append(receipt.tag)
                case Retry() | DeadLetter():
                    copies.append((delivery, receipt, disposition))
                case _:
                    assert_never(disposition)
        # What is settled already is acknowledged first, so that a publisher that is away does not hold it up.
        self._acknowledge(done, back)
        if copies:
            failpoint("between-settles")
            self._publish(copies, on_taken)

    def _holds(self, receipt: RabbitMQReceipt) -> bool:
        link = self._consuming
        return receipt.link is link and link.alive and receipt.tag > self._floor and receipt.tag not in self._settled

    def _publish(
        self, copies: Sequence[tuple[Delivery, RabbitMQReceipt, Retry | DeadLetter]], on_taken: OnTaken
    ) -> None:
        sent = send([self._copy(*copy) for copy in copies], self._publisher)
        failpoint("after-dead-letter")
        tags = [receipt.tag for _, receipt, _ in copies]
        self._acknowledge(
            [tag for tag, took in zip(tags, sent.taken, strict=True) if took],
            [tag for tag, took in zip(tags, sent.taken, strict=True) if not took],
        )
        for (delivery, _, disposition), took in zip(copies, sent.taken, strict=True):
            if took:
                on_taken(delivery, disposition)
        if sent.error is not None:
            raise sent.error
        failed = Counter(delivery.queue for (delivery, _, _), took in zip(copies, sent.taken, strict=True) if not took)
        if failed:
            raise BrokerUnavailable(
                f"RabbitMQ refused or could not route copies for {dict(failed)}; is the topology applied?"
            )

    def _acknowledge(self, done: Sequence[int], back: Sequence[int]) -> None:
        """Up to the oldest tag that is still with the caller, in one acknowledgement; what lies above follows later.

        One acknowledgement a message would cost pika and the broker more than all the rest of a delivery.
        """
        link = self._consuming
        if link is None or not link.alive or not (done or back):
            return
        self._given -= len(done) + len(back)
        self._settled.update(done, back)
        floor = self._floor
        while floor + 1 in self._settled:
            floor += 1
            self._settled.discard(floor)
        self._floor = floor
        self._late += done
        # The tag of a multiple acknowledgement must itself be outstanding, or RabbitMQ closes the channel.
        up_to = max((tag for tag in self._late if tag <= floor), default=0)
        self._late = [tag for tag in self._late if tag > floor]
        if up_to or back:
            link.acknowledge(up_to, (), back)
        if len(self._late) > self._settings.prefetch // 2 or not link.undelivered:
            self._acknowledge_late()

    def _acknowledge_late(self) -> None:
        late, self._late = self._late, []
        if late and self._consuming is not None and self._consuming.alive:
            self._consuming.acknowledge(0, late, ())

    def _copy(self, delivery: Delivery, receipt: RabbitMQReceipt, disposition: Retry | DeadLetter) -> Copy:
        names = self._queues[delivery.queue]
        parts = partial(senders, receipt.properties)
        if isinstance(disposition, DeadLetter):
            least = message_headers.least_of(delivery, disposition)
            ours = partial(_of_dead_letter, delivery, disposition)
            return Copy(self._dead_letters, names.source, delivery.body, parts, ours, least)
        fitting = (retry for retry in names.retries if retry[0] >= disposition.after_s)
        delay_s, step = next(fitting, names.retries[-1])
        self._returns_by = max(self._returns_by, time.monotonic() + delay_s + RETURN_S)
        count = partial(_of_retry, disposition)
        return Copy("", step, delivery.body, parts, count, count(0))

    def idle(self) -> bool:
        """See contract.py. What another process holds unacknowledged shows only over the management API.

        Without that API it is missed, but a dead consumer's messages are ready again at once.
        """
        link = self._consumer(0)
        if self._given or link.undelivered or link.arriving or time.monotonic() < self._returns_by:
            return False
        queues = [
            name for names in self._queues.values() for name in (names.source, *(queue for _, queue in names.retries))
        ]
        if any(ready(self._publisher(), queues)):
            return False
        if self._settings.rabbitmq_management_url is None:
            return True
        seen = Management(self._settings).queues()
        return all(int(str(seen.get(queue, {}).get("messages", 0))) == 0 for queue in queues)

    def close(self) -> None:
        """See contract.py."""
        self._acknowledge_late()
        links, self._consuming, self._publishing = (self._consuming, self._publishing), None, None
        for link in filter(None, links):
            link.close()


def _of_dead_letter(delivery: Delivery, disposition: DeadLetter, room: int) -> Mapping[str, str]:
    return message_headers.of_dead_letter(delivery, disposition, room // 2)


def _of_retry(disposition: Retry, room: int) -> Mapping[str, str]:
    return {message_headers.FAILURE: message_headers.of_failure(disposition.failure, room // 2)}


def _receipts(
    dispositions: Iterable[tuple[Delivery, Disposition]],
) -> Iterable[tuple[Delivery, RabbitMQReceipt, Disposition]]:
    for delivery, disposition in dispositions:
        assert isinstance(delivery.receipt, RabbitMQReceipt)
        yield delivery, delivery.receipt, disposition
