"""One connection to RabbitMQ with one channel, from open to closed, its I/O on a thread of its own.

The thread answers heartbeats whatever the caller is doing, and fills a queue that the caller drains. A link never reconnects:
when its connection, channel or one of its consumers ends, the link is over, what it held is the broker's again, and the
owner makes another. Delivery tags mean something on the link that gave them and on no other.

A link that consumes stops reading while what it delivered and its owner did not let go fills the budget (tap.py).
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Final

import pika
from pika.channel import Channel
from pika.exceptions import AMQPError, ChannelClosedByBroker, ConnectionClosedByBroker
from pika.spec import Basic, BasicProperties

from incentive_fleet.brokers.budget import Budget
from incentive_fleet.brokers.rabbitmq.confirms import BLAMES_WHAT_WAS_SENT, Confirms, Publication
from incentive_fleet.brokers.rabbitmq.proof import proven_connection
from incentive_fleet.brokers.rabbitmq.throttle import Throttle
from incentive_fleet.certificates import certificate_fault
from incentive_fleet.errors import BrokerUnavailable
from incentive_fleet.stopping import SLICE_S, Stop

OPEN_S: Final = 15.0  # TCP, TLS, AMQP handshake, channel and consumers
CLOSE_S: Final = 5.0
CONNECT_ON_S: Final = 1.0  # beyond a stop: what is about to open is closed in order

CLOSED_BY_BROKER: Final = (ChannelClosedByBroker, ConnectionClosedByBroker)

# Tag, queue, properties as on the wire, body, and when it arrived in seconds since 1970.
Incoming = tuple[int, str, bytes, bytes, float]


class Link:
    """See the module. One thread owns it and calls everything here; the I/O thread calls the methods named `_on_...`."""

    def __init__(
        self,
        parameters: pika.URLParameters,
        stop: Stop,
        *,
        queues: Sequence[str] = (),
        prefetch: int = 1,
        budget: Budget | None = None,
    ) -> None:
        self._stop = stop
        self._queues = queues
        self._prefetch = prefetch
        self._incoming: deque[Incoming] = deque()
        self._changed = threading.Condition()
        self._waiting = False
        # Once shut, the answers of consumers that were to follow wait unread as well; the link is open enough.
        self.throttle = None if budget is None else Throttle(budget, lambda: self._connection.tap, self._on_ready)
        self._open = False
        self.blocked = False  # an alarm keeps the broker from reading what we publish
        self._ended: str | None = None  # why, once it is over
        self.blamed = False  # whether it is over for something that was sent on it
        self._channel: Channel | None = None
        self._consuming = 0
        self.published = 0  # the delivery tag of the last publication
        self._confirms: Confirms | None = None
        self._answered = threading.Event()  # what the owner waits for has come, or the link is over
        self._connection = proven_connection()(
            parameters,
            on_delivery=self._on_delivery,
            on_open_callback=self._on_connection_open,
            on_open_error_callback=self._on_end,
            on_close_callback=self._on_end,
        )
        self._thread = threading.Thread(target=self._run, name="rabbitmq-io", daemon=True)
        self._thread.start()

    # The owner's side.

    @property
    def alive(self) -> bool:
        """Whether tags given by this link may still be acknowledged on it."""
        return self._ended is None

    def raise_if_over(self) -> None:
        """Raises BrokerUnavailable with the reason when the link is over."""
        if self._ended is not None:
            raise BrokerUnavailable(f"RabbitMQ: {self._ended}")

    def wait_until_open(self) -> None:
        """Raises BrokerUnavailable, the link then being over. A stop ends the wait of a consumer a moment later."""
        patience_s = CONNECT_ON_S if self._queues else self._stop.drain_s - CONNECT_ON_S
        with self._changed:
            opened = self._stop.wait_for(
                self._changed, lambda: self._open or self._ended is not None, OPEN_S, patience_s=patience_s
            )
        if not opened:
            self.abandon("told to stop" if self._stop.is_set() else f"did not open within {OPEN_S:g} s")
        self.raise_if_over()

    def take(self, most: int, wait_s: float) -> list[Incoming]:
        """What has been delivered, as soon as there is any or the stop is set; raises BrokerUnavailable when it is over."""
        if not self._incoming and wait_s > 0:
            with self._changed:
                self._waiting = True
                # The I/O thread appends first and looks at the flag then; here it is the other way round.
                self._stop.wait_for(self._changed, lambda: bool(self._incoming) or self._ended is not None, wait_s)
                self._waiting = False
        self.raise_if_over()
        return [self._incoming.popleft() for _ in range(min(most, len(self._incoming)))]

    @property
    def undelivered(self) -> int:
        """How many messages have arrived that nobody took yet."""
        return len(self._incoming)

    @property
    def arriving(self) -> bool:
        """Whether a message may be in the middle of its way: bytes came a moment ago. Unknown without a tap, then False."""
        return self._connection.tap is not None and self._connection.tap.arriving

    def let_go(self, sizes: Iterable[int]) -> None:
        """The owner holds bodies of so many bytes no more; settled or not, they count for nothing from here on."""
        if self.throttle is not None and self._ended is None and self.throttle.let_go(sizes):
            self._submit(self.throttle.read_on)

    def acknowledge(self, up_to: int, others: Sequence[int], give_back: Sequence[int]) -> None:
        """Acknowledge every tag up to `up_to` (0: none) and the `others`, requeue the last. Returns before it is sent."""
        self._submit(partial(self._on_acknowledge, up_to, others, give_back))

    def post(self, confirms: Confirms, publications: Sequence[Publication]) -> None:
        """Publish all at once, `confirms` being told what becomes of them; `answered` is said once none of it waits."""
        self.published += len(publications)
        self._answered.clear()
        self._submit(partial(self._on_publish, confirms, publications))

    @property
    def frame_max(self) -> int:
        """How large a frame may be on this link, as it was agreed on when it opened; 0 when without limit."""
        return int(self._connection.params.frame_max)

    def ask(self, act: Callable[[], None], within_s: float, what: str) -> None:
        """Have the I/O thread do it, and wait until somebody says `answered`. Raises BrokerUnavailable."""
        self._answered.clear()
        self._submit(act)
        self.wait_for_answer(within_s, what)

    def wait_for_answer(self, within_s: float, what: str) -> None:
        """Wait until somebody says `answered`, or end the link. Raises BrokerUnavailable."""
        until = time.monotonic() + within_s
        while not self._answered.wait(SLICE_S):
            if time.monotonic() > until or self._stop.left_to_finish_s() <= 0:
                self.abandon(f"no {what} within {within_s:g} s, or before the drain was over")
        self.raise_if_over()

    def answered_within(self, seconds: float) -> bool:
        """The same, but the link goes on when nobody does. Raises BrokerUnavailable when it is over."""
        said = self._answered.wait(min(seconds, self._stop.left_to_finish_s()))
        self.raise_if_over()
        return said

    def quiet(self) -> None:
        """The link is over: let its thread end, so that no confirm arrives while they are read."""
        self._thread.join(min(CLOSE_S, self._stop.left_s() / 2))

    def close(self, reason: str = "closed by this process") -> None:
        """Send what is unsent, then close; the broker requeues what is unacknowledged. Harmless when it is over."""
        loop = self._connection.ioloop
        loop.add_callback_threadsafe(partial(self._on_close, reason))
        self._thread.join(min(CLOSE_S, self._stop.left_s() / 2))
        if self._thread.is_alive():
            self.abandon(reason)

    def abandon(self, reason: str) -> None:
        """End without a word to a peer that does not answer: leaving the loop leaves the socket to the kernel."""
        self._connection.ioloop.add_callback_threadsafe(partial(self._on_end, None, reason))
        self._thread.join(min(CLOSE_S, self._stop.left_s() / 2))
        self._mark_ended(reason)

    def _submit(self, act: Callable[[], None]) -> None:
        self.raise_if_over()
        self._connection.ioloop.add_callback_threadsafe(partial(self._on_submitted, act))

    # The I/O thread's side.

    def _run(self) -> None:
        try:
            self._connection.ioloop.start()
        except (AMQPError, OSError) as error:
            self._mark_ended(error)
        finally:
            self._mark_ended("the I/O thread met an error of its own")
            self._connection.ioloop.close()

    def answered(self) -> None:
        """What `ask` waits for has come."""
        self._answered.set()

    def _on_submitted(self, act: Callable[[], None]) -> None:
        if self._ended is None:
            act()

    def _on_connection_open(self, connection: Any) -> None:
        connection.add_on_connection_blocked_callback(lambda *_: setattr(self, "blocked", True))
        connection.add_on_connection_unblocked_callback(lambda *_: setattr(self, "blocked", False))
        connection.channel(on_open_callback=self._on_channel_open)

    def _on_channel_open(self, channel: Channel) -> None:
        self._channel = channel
        channel.add_on_close_callback(self._on_channel_close)
        channel.add_on_cancel_callback(lambda frame: self._on_channel_close(channel, "a consumer was cancelled"))
        channel.add_on_return_callback(self._on_return)
        if self._queues:
            channel.basic_qos(prefetch_count=self._prefetch, callback=self._on_qos)
        else:
            channel.confirm_delivery(self._on_confirm, callback=lambda _: self._on_ready())

    def _on_qos(self, _frame: Any) -> None:
        deliver = self._connection.deliver
        for queue in self._queues:
            self.channel.basic_consume(queue, deliver, consumer_tag=queue, callback=self._on_consuming)

    @property
    def channel(self) -> Channel:
        """For what `ask` does."""
        assert self._channel is not None, "nothing is asked of a link before it is open"
        return self._channel

    def _on_consuming(self, _frame: Any) -> None:
        self._consuming += 1
        if self._consuming == len(self._queues):
            self._on_ready()

    def _on_ready(self) -> None:
        with self._changed:
            self._open = True
            self._changed.notify_all()

    def _on_delivery(self, tag: int, queue: str, properties: bytes, body: bytes) -> None:
        if self.throttle is not None:
            self.throttle.arrived(len(body))
        self._incoming.append((tag, queue, properties, body, time.time()))
        if self._waiting:
            with self._changed:
                self._changed.notify_all()

    def _on_acknowledge(self, up_to: int, others: Sequence[int], give_back: Sequence[int]) -> None:
        for tag in give_back:
            self.channel.basic_nack(tag, requeue=True)
        for tag in others:
            self.channel.basic_ack(tag)
        if up_to:
            self.channel.basic_ack(up_to, multiple=True)

    def _on_publish(self, confirms: Confirms, publications: Sequence[Publication]) -> None:
        self._confirms = confirms
        for item in publications:
            self.channel.basic_publish(*item.told, item.properties, item.mandatory)

    def _on_return(self, _channel: Channel, method: Basic.Return, _properties: BasicProperties, body: bytes) -> None:
        if self._confirms is not None:
            self._confirms.on_return(method.exchange or "", method.routing_key or "", body)

    def _on_confirm(self, frame: Any) -> None:
        if self._confirms is not None:
            method = frame.method
            self._confirms.on_confirm(method.delivery_tag, method.multiple, isinstance(method, Basic.Ack))
            if not self._confirms.waiting:
                self._answered.set()

    def _on_channel_close(self, _channel: Channel, reason: object) -> None:
        self._on_close(reason)

    def _on_close(self, reason: object) -> None:
        self._mark_ended(reason)
        tap = self._connection.tap
        if tap is not None and tap.shut:
            tap.hang_up(CLOSE_S / 2)  # then pika says the connection's end
        elif not (self._connection.is_closing or self._connection.is_closed):
            self._connection.close()

    def _on_end(self, _connection: object, reason: object) -> None:
        self._mark_ended(reason)
        self._connection.ioloop.stop()

    def _mark_ended(self, reason: object) -> None:
        with self._changed:
            if self._ended is None:
                self._ended = certificate_fault(reason) or str(reason) or repr(reason)
                closed_for = reason.reply_code if isinstance(reason, CLOSED_BY_BROKER) else 0
                self.blamed = closed_for in BLAMES_WHAT_WAS_SENT
            self._incoming.clear()
            self._answered.set()
            self._changed.notify_all()
