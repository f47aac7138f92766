"""Publishes to one RabbitMQ exchange through kombu, with a window of confirms. It never declares a thing.

kombu's `confirm_publish` waits for each message in turn. Here the channel is put into confirm mode by hand, so that up
to `WINDOW` messages are on their way at a time, and each is `mandatory`: what no queue takes comes back as
`basic.return`, ahead of its confirm. kombu shows returns only to whoever asks for them, so they are asked for.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator, Sequence
from typing import Any

from amqp import exceptions as amqp  # kombu's own AMQP driver; its errors reach us unwrapped
from kombu.connection import Connection
from kombu.exceptions import OperationalError
from kombu.messaging import Producer

from incentive_fleet.addresses import Node
from incentive_fleet.brokers.messages import CONTENT_TYPE, Message, Rejection
from incentive_fleet.brokers.rabbitmq import address
from incentive_fleet.brokers.rabbitmq.confirms import Confirms, Fate
from incentive_fleet.brokers.rabbitmq.dialing import connect_to
from incentive_fleet.brokers.rabbitmq.tls import Tls, tls_of
from incentive_fleet.certificates import certificate_fault
from incentive_fleet.errors import BrokerUnavailable, SettingsError
from incentive_fleet.stopping import SLICE_S, Stop

log = logging.getLogger(__name__)

WINDOW = 500  # unconfirmed messages; 50 cost a third of the throughput, 1,000 won nothing (docs/adr)
CONFIRM_TIMEOUT_S = 30.0  # from the last sign of life; below the 120 s after which Postgres ends an idle transaction
STALL_S = 5.0  # without one byte taken: then what the broker said meanwhile is read, such as that it blocks publishers
FINISH_S = 2.0  # beyond a stop, for confirms that are on their way
NACKED = "nacked"
NACKED_S = 10.0  # a queue of a cluster has another leader within a second or two; a full one is full for longer
NACKED_FIRST_S, NACKED_MOST_S = 0.1, 1.0  # between two offers
PERSISTENT = 2  # delivery mode
BLOCKS = "blocks publishers: its memory or disk alarm is on"

# A reply code closes the channel and with it the window; these say that the destination is wrong, not one message.
DESTINATION_WRONG = (amqp.NotFound, amqp.AccessRefused, amqp.NotAllowed)


class RabbitMQPublisher:
    """See contract.py for the promises. `url` is INCENTIVES_RABBITMQ_URL; its nodes are tried in turn."""

    def __init__(
        self,
        url: str,
        exchange: str,
        *,
        confirm_timeout_s: float = CONFIRM_TIMEOUT_S,
        nacked_s: float = NACKED_S,
        stop: Stop | None = None,
        tls: Tls | None = None,
    ) -> None:
        self._address = address.read_amqp(url)
        self._tls = tls or tls_of(self._address)
        self._exchange = exchange
        self._confirm_timeout_s = confirm_timeout_s
        self._nacked_s = nacked_s
        self._stop = stop or Stop()
        self._blocked = False  # by the broker, whose memory or disk alarm is on
        self._connection: Any = None
        self._producer: Any = None
        self._confirms = Confirms()  # of the channel that is open
        self._refusing = False  # a queue refused to the end in the last call

    def check(self) -> None:
        """Raise SettingsError when the exchange is missing or the login refused, BrokerUnavailable when away."""
        with self._mapped_errors():
            self._open()
            # The type and the durability are not compared when the declaration is passive.
            self._producer.channel.exchange_declare(self._exchange, "topic", passive=True)

    def publish(self, messages: Sequence[Message]) -> list[Rejection]:
        """Publish each message and wait until each is confirmed or returned; see contract.py.

        What a queue refuses is offered again for up to `nacked_s` seconds, for a queue that elects its leader refuses too.
        After a queue that went on refusing the next call does not wait, until one was refused nothing.
        """
        rejections = self._publish_all(messages)
        until = time.monotonic() + (0 if self._refusing else self._nacked_s)
        pause_s = NACKED_FIRST_S
        while nacked := [index for index, rejection in rejections.items() if rejection.reason == NACKED]:
            self.close()  # on 3.10 a channel that was opened while the queue had no leader refuses for good
            if time.monotonic() + pause_s > until or self._stop.wait(pause_s):
                break
            pause_s = min(2 * pause_s, NACKED_MOST_S)
            again = self._publish_all([messages[index] for index in nacked])
            for place, index in enumerate(nacked):
                rejection = again.get(place)
                if rejection is None:
                    del rejections[index]
                else:
                    rejections[index] = Rejection(index, rejection.reason, rejection.detail)
        self._refusing = bool(nacked)
        return [rejections[index] for index in sorted(rejections)]

    def _publish_all(self, messages: Sequence[Message]) -> dict[int, Rejection]:
        rejections: dict[int, Rejection] = {}
        spans = [(0, len(messages))]
        while spans:  # at most two spans a message: each that is not done is halved
            start, end = spans.pop()
            if start == end:
                continue
            try:
                done = self._publish_span(messages[start:end])
            except amqp.PreconditionFailed as error:  # one message too large closes the channel for all of its window
                if end - start == 1:
                    rejections[start] = Rejection(start, "refused", f"RabbitMQ: {error.reply_text}")
                else:
                    middle = (start + end) // 2
                    spans += [(middle, end), (start, middle)]
                continue
            rejections.update((start + f.index, Rejection(start + f.index, f.reason, f.detail)) for f in done)
        return rejections

    def close(self) -> None:
        """Close the connection; what is unconfirmed stays unknown, and a broker that owes an answer is not waited for."""
        if self._connection is not None and not (self._confirms.waiting or self._stop.is_set()):
            with contextlib.suppress(OSError, amqp.AMQPError, OperationalError):  # it may be gone: that is the aim
                self._connection.release()
        self._abandon()

    def _abandon(self) -> None:
        """Drop the connection without a word to a broker that may not be listening."""
        connection, self._connection, self._producer = self._connection, None, None
        self._confirms = Confirms()
        if connection is not None:
            connection.collect()

    def __enter__(self) -> RabbitMQPublisher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _publish_span(self, messages: Sequence[Message]) -> list[Rejection]:
        with self._mapped_errors():
            self._open()
            self._confirms = Confirms(self._confirms.last_tag)  # all of the last one's are answered
            tags: list[int] = []
            for message in messages:
                tags.append(self._confirms.sent(self._exchange, message.type or "", message.body))
                self._send(message)
                self._wait_until(WINDOW - 1)
            self._wait_until(0)
            return [
                self._rejection(index, messages[index], self._confirms.fate(tag))
                for index, tag in enumerate(tags)
                if tag in self._confirms.refused
            ]

    def _rejection(self, index: int, message: Message, fate: Fate) -> Rejection:
        if fate is Fate.NACKED:
            return Rejection(index, NACKED, "RabbitMQ could not take the message: a queue is full or lost")
        detail = f"no queue takes routing key {message.type or ''!r} of exchange {self._exchange!r}"
        return Rejection(index, "unroutable", detail)

    def _send(self, message: Message) -> None:
        try:
            self._put(message)
        except BlockingIOError as error:  # the socket took nothing for STALL_S
            with contextlib.suppress(TimeoutError):
                while True:
                    self._connection.drain_events(timeout=SLICE_S)
            raise self._unconfirmed(f"took nothing for {STALL_S:g} s") from error

    def _put(self, message: Message) -> None:
        properties: dict[str, object] = {"timestamp": int(time.time())}  # AMQP has no fraction of a second
        properties |= {"message_id": message.id} if message.id else {}
        self._producer.publish(
            message.body,
            exchange=self._exchange,
            routing_key=message.type or "",
            mandatory=True,
            delivery_mode=PERSISTENT,
            content_type=CONTENT_TYPE,
            content_encoding="utf-8",
            **properties,
        )

    def _wait_until(self, waiting: int) -> None:
        heard = time.monotonic()
        while self._confirms.waiting > waiting:
            try:
                self._connection.drain_events(timeout=SLICE_S)
                heard = time.monotonic()
            except TimeoutError:
                self._raise_if_over(time.monotonic() - heard)

    def _raise_if_over(self, silent_s: float) -> None:
        since = self._stop.since
        if since is not None and time.monotonic() - since > min(FINISH_S, self._stop.drain_s / 4):
            raise BrokerUnavailable(f"RabbitMQ: told to stop with {self._confirms.waiting} messages unconfirmed")
        if silent_s >= self._confirm_timeout_s:
            raise self._unconfirmed(f"no confirm within {self._confirm_timeout_s:g} s")

    def _unconfirmed(self, otherwise: str) -> BrokerUnavailable:
        return BrokerUnavailable(f"RabbitMQ: {BLOCKS if self._blocked else otherwise}")

    def _on_blocked(self, _reason: str) -> None:
        if not self._blocked:
            log.warning("RabbitMQ %s; waiting until it takes more", BLOCKS)
        self._blocked = True

    def _on_unblocked(self) -> None:
        log.warning("RabbitMQ takes messages again")
        self._blocked = False

    def _open(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(TimeoutError):  # nothing to read: the broker has not hung up while we were idle
                try:
                    self._connection.drain_events(timeout=0)
                except (OSError, amqp.ConnectionError) as error:
                    if isinstance(error, TimeoutError):
                        raise
                    self._abandon()
        if self._connection is None:
            self._connect()

    def _connect(self) -> None:
        *others, last = self._address.nodes
        for node in others:
            try:
                self._connection = self._connected_to(node)
                break
            except (OSError, amqp.AMQPError, OperationalError) as error:
                log.info(
                    "a RabbitMQ node cannot be used",
                    extra={"node": str(node), "error": certificate_fault(error) or str(error)},
                )
                self._abandon()
        else:
            self._connection = self._connected_to(last)
        channel = self._connection.channel()
        channel.confirm_select()
        channel.events["basic_ack"].add(self._on_ack)
        channel.events["basic_nack"].add(self._on_nack)
        channel.events["basic_return"].add(self._on_return)
        self._producer = Producer(channel, auto_declare=False)
        self._confirms = Confirms()

    def _connected_to(self, node: Node) -> Connection:
        options = {
            "read_timeout": self._confirm_timeout_s,
            "write_timeout": min(STALL_S, self._confirm_timeout_s),
            "on_blocked": self._on_blocked,
            "on_unblocked": self._on_unblocked,
        }
        return connect_to(self._address, node, self._tls, options)

    def _on_ack(self, tag: int, multiple: bool) -> None:
        self._confirms.on_confirm(tag, multiple, acknowledged=True)

    def _on_nack(self, tag: int, multiple: bool) -> None:
        self._confirms.on_confirm(tag, multiple, acknowledged=False)

    def _on_return(self, _error: Exception, exchange: str, routing_key: str, returned: Any) -> None:
        body = returned.body.encode() if isinstance(returned.body, str) else bytes(returned.body)
        self._confirms.on_return(exchange, routing_key, body)

    @contextlib.contextmanager
    def _mapped_errors(self) -> Iterator[None]:
        try:
            yield
        except (amqp.PreconditionFailed, BrokerUnavailable):
            self._abandon()
            raise
        except DESTINATION_WRONG as error:
            self._abandon()
            hint = " Run `incentives topology apply`." if isinstance(error, amqp.NotFound) else ""
            raise SettingsError(
                f"RabbitMQ does not let us publish to exchange {self._exchange!r}: {error.reply_text}.{hint}"
            ) from error
        except (OSError, amqp.AMQPError, OperationalError) as error:
            self._abandon()
            raise BrokerUnavailable(f"RabbitMQ: {certificate_fault(error) or error or type(error).__name__}") from error
