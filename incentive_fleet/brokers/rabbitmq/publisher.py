"""Publishes to one RabbitMQ exchange through kombu, with a window of confirms. It never declares a thing.

kombu's `confirm_publish` waits for each message in turn. Here the channel is put into confirm mode by hand, so that up
to `WINDOW` messages are on their way at a time, and each is `mandatory`: what no queue takes comes back as
`basic.return`, ahead of its confirm. kombu shows returns only to whoever asks for them, so they are asked for.
"""

from __future__ import annotations

import ast
import contextlib
import logging
from collections.abc import Iterator, Sequence
from typing import Any, Final
from urllib.parse import parse_qsl

from amqp import exceptions as amqp  # kombu's own AMQP driver; its errors reach us unwrapped
from kombu.connection import Connection
from kombu.exceptions import OperationalError
from kombu.messaging import Producer

from incentive_fleet.brokers.publishing import CONTENT_TYPE, Failure, Message
from incentive_fleet.brokers.rabbitmq import address
from incentive_fleet.errors import BrokerUnavailable, SettingsError

log = logging.getLogger(__name__)

WINDOW = 500  # unconfirmed messages; 50 cost a third of the throughput, 1,000 won nothing (docs/adr)
CONFIRM_TIMEOUT_S = 30.0  # from the last sign of life; below the 120 s after which Postgres ends an idle transaction
CONNECT_TIMEOUT_S = 10.0
NODE_S = 5.0  # of one node where there are others to try
PERSISTENT = 2  # delivery mode
# pika's name of a TLS option, and the one that kombu's driver gives it
TLS_NAMES: Final = {
    "ca_certs": "ca_certs",
    "cafile": "ca_certs",
    "certfile": "certfile",
    "keyfile": "keyfile",
    "ciphers": "ciphers",
    "server_hostname": "server_hostname",
}

# A reply code closes the channel and with it the window; these say that the destination is wrong, not one message.
DESTINATION_WRONG = (amqp.NotFound, amqp.AccessRefused, amqp.NotAllowed)


class RabbitMqPublisher:
    """See publishing.py for the promises. `url` is INCENTIVES_RABBITMQ_URL; its nodes are tried in turn."""

    def __init__(self, url: str, exchange: str, *, window: int = WINDOW, confirm_timeout_s: float = CONFIRM_TIMEOUT_S):
        self._address = address.read(url, address.AMQP)
        self._tls = _tls(self._address)
        self._exchange = exchange
        self._window = window
        self._confirm_timeout_s = confirm_timeout_s
        self._connection: Any = None
        self._producer: Any = None
        self._messages: Sequence[Message] = ()
        self._on_their_way: dict[int, int] = {}  # delivery tag -> index into _messages
        self._published = 0  # the channel's last delivery tag
        self._failures: dict[int, Failure] = {}

    def check(self) -> None:
        """Raise SettingsError when the exchange is missing or the login refused, BrokerUnavailable when away."""
        with self._mapped_errors():
            self._open()
            # The type and the durability are not compared when the declaration is passive.
            self._producer.channel.exchange_declare(self._exchange, "topic", passive=True)

    def publish(self, messages: Sequence[Message]) -> list[Failure]:
        """Publish each message and wait until each is confirmed or returned; see publishing.py."""
        failures: dict[int, Failure] = {}
        spans = [(0, len(messages))]
        while spans:  # at most two spans a message: each that is not done is halved
            start, end = spans.pop()
            if start == end:
                continue
            try:
                done = self._publish_span(messages[start:end])
            except amqp.PreconditionFailed as error:  # one message too large closes the channel for all of its window
                if end - start == 1:
                    failures[start] = Failure(start, "refused", f"RabbitMQ: {error.reply_text}")
                else:
                    middle = (start + end) // 2
                    spans += [(middle, end), (start, middle)]
                continue
            failures.update((start + f.index, Failure(start + f.index, f.reason, f.detail)) for f in done)
        return [failures[index] for index in sorted(failures)]

    def close(self) -> None:
        """Close the connection; what is unconfirmed stays unknown."""
        if self._connection is not None:
            with contextlib.suppress(OSError, amqp.AMQPError, OperationalError):  # it may be gone: that is the aim
                self._connection.release()
        self._abandon()

    def _abandon(self) -> None:
        """Drop the connection without a word to a broker that may not be listening."""
        connection, self._connection, self._producer = self._connection, None, None
        self._on_their_way.clear()
        if connection is not None:
            connection.collect()

    def __enter__(self) -> RabbitMqPublisher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _publish_span(self, messages: Sequence[Message]) -> list[Failure]:
        with self._mapped_errors():
            self._open()
            self._messages, self._failures = messages, {}
            for index, message in enumerate(messages):
                self._published += 1
                self._on_their_way[self._published] = index
                self._send(message)
                self._wait_until(self._window - 1)
            self._wait_until(0)
            return list(self._failures.values())

    def _send(self, message: Message) -> None:
        properties = {"message_id": message.id} if message.id else {}
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

    def _wait_until(self, on_their_way: int) -> None:
        while len(self._on_their_way) > on_their_way:
            self._connection.drain_events(timeout=self._confirm_timeout_s)

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
                self._connect_to(node)
                break
            except (OSError, amqp.AMQPError, OperationalError) as error:
                log.info("a RabbitMQ node cannot be used", extra={"node": str(node), "error": str(error)})
                self._abandon()
        else:
            self._connect_to(last)
        channel = self._connection.channel()
        channel.confirm_select()
        channel.events["basic_ack"].add(self._on_ack)
        channel.events["basic_nack"].add(self._on_nack)
        channel.events["basic_return"].add(self._on_return)
        self._producer = Producer(channel, auto_declare=False)
        self._published = 0
        self._on_their_way.clear()

    def _connect_to(self, node: address.Node) -> None:
        # No heartbeats: nobody would answer them between two calls. The driver's TCP keep-alive finds the dead.
        timeouts = {"read_timeout": self._confirm_timeout_s, "write_timeout": self._confirm_timeout_s}
        alone = len(self._address.nodes) == 1
        self._connection = Connection(
            f"[{node.host}]" if ":" in node.host else node.host,
            port=node.port,
            userid=self._address.user or None,
            password=self._address.password or None,
            virtual_host=self._address.virtual_host,
            ssl={"server_hostname": node.host, **self._tls} if self._address.secure else False,
            connect_timeout=CONNECT_TIMEOUT_S if alone else NODE_S,
            heartbeat=0,
            transport_options=timeouts,
        )
        # Alone, one more try at once; and the driver's own errors: whoever called decides how long to wait.
        self._connection.ensure_connection(max_retries=1, interval_start=0, reraise_as_library_errors=False)

    def _take(self, tag: int, multiple: bool) -> list[int]:
        # Tags are in publishing order, so a multiple confirm covers a run from the front.
        tags = [one for one in self._on_their_way if one <= tag] if multiple else [tag]
        return [self._on_their_way.pop(one) for one in tags]

    def _on_ack(self, tag: int, multiple: bool) -> None:
        self._take(tag, multiple)

    def _on_nack(self, tag: int, multiple: bool) -> None:
        for index in self._take(tag, multiple):
            self._failures[index] = Failure(
                index, "nacked", "RabbitMQ could not take the message: a queue is full or lost"
            )

    def _on_return(self, error: Exception, exchange: str, routing_key: str, returned: Any) -> None:
        # A return names no delivery tag. Equal messages share their fate, so the first of them that waits will do.
        body = returned.body.encode() if isinstance(returned.body, str) else bytes(returned.body)
        detail = f"no queue takes routing key {routing_key!r} of exchange {exchange!r}"
        for index in self._on_their_way.values():
            message = self._messages[index]
            if index not in self._failures and message.body == body and (message.type or "") == routing_key:
                self._failures[index] = Failure(index, "unroutable", detail)
                return
        raise AssertionError("RabbitMQ returned a message that is not on its way")

    @contextlib.contextmanager
    def _mapped_errors(self) -> Iterator[None]:
        try:
            yield
        except amqp.PreconditionFailed:
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
            raise BrokerUnavailable(f"RabbitMQ: {error or type(error).__name__}") from error


def _tls(where: address.Address) -> dict[str, Any]:
    """What pika's `ssl_options` of the URL say, as kombu's driver takes it. Raises SettingsError, without any value."""
    text = dict(parse_qsl(where.query)).get("ssl_options")
    if text is None:
        return {}
    try:
        options = dict(ast.literal_eval(text))
    except (ValueError, TypeError, SyntaxError):
        raise SettingsError(f"{address.AMQP} has ssl_options that are no dictionary of Python.") from None
    known = {TLS_NAMES[name]: value for name, value in options.items() if name in TLS_NAMES}
    if len(known) < len(options):
        raise SettingsError(
            f"{address.AMQP} has ssl_options beyond {', '.join(TLS_NAMES)}: kombu cannot publish with them."
        )
    return known
