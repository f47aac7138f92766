"""The RabbitMQ publisher against a real broker: each message is confirmed, or named with the reason."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from typing import Any
from urllib.parse import urlsplit

import pytest

from incentive_fleet.brokers.messages import Message
from incentive_fleet.brokers.rabbitmq.publisher import RabbitMQPublisher
from incentive_fleet.embedded.rabbitmq import RabbitMQ
from incentive_fleet.errors import BrokerUnavailable, SettingsError

TYPE = "order-placed.v1"


@pytest.fixture
def exchange(channel: Any, prefix: str) -> Iterator[str]:
    name = f"{prefix}.events"
    channel.exchange_declare(name, "topic", durable=True, auto_delete=False)
    yield name
    channel.exchange_delete(name)


@pytest.fixture
def make_queue(channel: Any, exchange: str, prefix: str) -> Iterator[Callable[..., str]]:
    made: list[str] = []

    def make(routing_key: str = TYPE, **arguments: object) -> str:
        name = f"{prefix}.{len(made)}"
        arguments = {"x-queue-type": "quorum"} | {key.replace("_", "-"): value for key, value in arguments.items()}
        channel.queue_declare(name, durable=True, auto_delete=False, arguments=arguments)
        channel.queue_bind(name, exchange, routing_key)
        made.append(name)
        return name

    yield make
    for name in made:
        channel.queue_delete(name)


@pytest.fixture
def publisher(rabbitmq: RabbitMQ, exchange: str) -> Iterator[RabbitMQPublisher]:
    with RabbitMQPublisher(rabbitmq.url, exchange) as publisher:
        yield publisher


def drain(channel: Any, queue: str) -> list[Any]:
    return list(iter(lambda: channel.basic_get(queue, no_ack=True), None))


def messages(count: int, type_: str | None = TYPE) -> list[Message]:
    return [Message(b'{"number": %d}' % number, type_, f"id-{number}") for number in range(count)]


def test_a_message_arrives_as_it_was_given(
    publisher: RabbitMQPublisher, make_queue: Callable[..., str], channel: Any
) -> None:
    queue = make_queue()
    publisher.check()
    assert publisher.publish([Message(b'{"a":"\xc3\xa4"}', TYPE, "id-1")]) == []
    (arrived,) = drain(channel, queue)
    body = arrived.body.encode() if isinstance(arrived.body, str) else arrived.body
    assert body == b'{"a":"\xc3\xa4"}'
    assert arrived.delivery_info["routing_key"] == TYPE
    assert arrived.properties["message_id"] == "id-1"
    assert arrived.properties["content_type"] == "application/cloudevents+json"
    assert arrived.properties["delivery_mode"] == 2


def test_more_than_a_window_is_confirmed_and_there(
    publisher: RabbitMQPublisher, make_queue: Callable[..., str], channel: Any
) -> None:
    queue = make_queue()
    assert publisher.publish(messages(1_234)) == []
    assert len(drain(channel, queue)) == 1_234


def test_without_a_queue_each_message_is_named_as_unroutable(publisher: RabbitMQPublisher) -> None:
    rejections = publisher.publish(messages(3))
    assert [(rejection.index, rejection.reason) for rejection in rejections] == [
        (0, "unroutable"),
        (1, "unroutable"),
        (2, "unroutable"),
    ]
    assert TYPE in rejections[0].detail


def test_among_others_exactly_the_unroutable_are_named(
    publisher: RabbitMQPublisher, make_queue: Callable[..., str], channel: Any
) -> None:
    queue = make_queue()
    lost = Message(b"same", "nobody-listens", "x")
    given = [lost, *messages(700), lost, Message(b"same", TYPE, "x"), lost, Message(b"no type", None, None)]
    rejections = publisher.publish(given)
    assert [rejection.index for rejection in rejections] == [0, 701, 703, 704]
    assert len(drain(channel, queue)) == 701
    assert publisher.publish(messages(1)) == []  # the channel is as good as before


def test_a_missing_exchange_is_an_error_and_the_publisher_recovers(
    rabbitmq: RabbitMQ, prefix: str, channel: Any
) -> None:
    with RabbitMQPublisher(rabbitmq.url, f"{prefix}.late") as publisher:
        for act in (publisher.check, lambda: publisher.publish(messages(700))):
            with pytest.raises(SettingsError, match=rf"{prefix}\.late.*topology apply"):
                act()
        channel.exchange_declare(f"{prefix}.late", "topic", durable=True, auto_delete=False)
        try:
            publisher.check()
        finally:
            channel.exchange_delete(f"{prefix}.late")


def test_an_exchange_that_goes_away_in_between_is_an_error(
    publisher: RabbitMQPublisher, exchange: str, channel: Any
) -> None:
    publisher.check()
    channel.exchange_delete(exchange)
    with pytest.raises(SettingsError, match="NOT_FOUND"):
        publisher.publish(messages(10))


def test_a_refused_login_is_a_setting(rabbitmq: RabbitMQ) -> None:
    parts = urlsplit(rabbitmq.url)
    with (
        RabbitMQPublisher(f"amqp://nobody:wrong@{parts.hostname}:{parts.port}//", "e") as publisher,
        pytest.raises(SettingsError, match="ACCESS_REFUSED"),
    ):
        publisher.check()


def test_what_a_queue_refuses_for_a_moment_is_offered_again(
    publisher: RabbitMQPublisher, make_queue: Callable[..., str], channel: Any
) -> None:
    queue = make_queue(x_queue_type="classic", x_max_length=5, x_overflow="reject-publish")
    came: list[bytes] = []
    done = threading.Event()

    def publish() -> None:
        assert publisher.publish(messages(12)) == []
        done.set()

    thread = threading.Thread(target=publish)
    thread.start()
    while not done.wait(0.05) and thread.is_alive():  # room comes bit by bit
        came += drain(channel, queue)
    thread.join()
    assert done.is_set()
    assert len({*came, *drain(channel, queue)}) == 12


def test_a_full_queue_refuses_by_name(
    rabbitmq: RabbitMQ, exchange: str, make_queue: Callable[..., str], channel: Any
) -> None:
    queue = make_queue(x_queue_type="classic", x_max_length=5, x_overflow="reject-publish")
    with RabbitMQPublisher(rabbitmq.url, exchange, nacked_s=0.5) as publisher:
        rejections = publisher.publish(messages(20))
    assert [(rejection.index, rejection.reason) for rejection in rejections] == [
        (index, "nacked") for index in range(5, 20)
    ]
    assert len(drain(channel, queue)) == 5


def test_one_message_too_large_does_not_take_its_neighbours_along(
    publisher: RabbitMQPublisher, make_queue: Callable[..., str], channel: Any
) -> None:
    queue = make_queue()
    limit = 128 * 1024 * 1024  # RabbitMQ 3.x; later releases allow less
    rejections = publisher.publish([*messages(3), Message(bytes(limit + 1), TYPE, "big"), *messages(2)])
    assert [(rejection.index, rejection.reason) for rejection in rejections] == [(3, "refused")]
    assert {arrived.properties["message_id"] for arrived in drain(channel, queue)} == {"id-0", "id-1", "id-2"}


def test_a_broker_that_is_away_is_unavailable() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        with (
            RabbitMQPublisher(f"amqp://127.0.0.1:{taken.getsockname()[1]}//", "e") as publisher,
            pytest.raises(BrokerUnavailable),
        ):
            publisher.publish(messages(1))


class Link:
    """A proxy to the broker that can be cut, or can swallow what is sent over it."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._target = (parts.hostname or "", parts.port or 5672)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"amqp://{parts.username}:{parts.password}@127.0.0.1:{self._listener.getsockname()[1]}//"
        self.swallows = threading.Event()
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        while self._open:
            with suppress(OSError):
                self._open.pop().shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        with suppress(OSError):  # closed: the test is over
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(self._target)
                self._open += [near, far]
                for source, sink, swallowed in ((near, far, True), (far, near, False)):
                    threading.Thread(target=self._pump, args=(source, sink, swallowed), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, swallowed: bool) -> None:
        with source, sink:
            with suppress(OSError):
                while data := source.recv(65_536):
                    if not (swallowed and self.swallows.is_set()):
                        sink.sendall(data)
            # Whatever ended it, and before they are closed: of a mere close nothing is sent while the other thread still reads.
            for one in (source, sink):
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def link(rabbitmq: RabbitMQ) -> Iterator[Link]:
    with closing(Link(rabbitmq.url)) as link:
        yield link


def test_a_connection_that_was_cut_while_idle_is_opened_again(
    link: Link, exchange: str, make_queue: Callable[..., str], channel: Any
) -> None:
    queue = make_queue()
    with RabbitMQPublisher(link.url, exchange) as publisher:
        assert publisher.publish(messages(3)) == []
        sock = publisher._connection.connection.sock  # asked for after the cut, it might be that of a new connection
        link.cut()
        assert select.select([sock], [], [], 30)[0]  # the news of the cut has come
        assert publisher.publish(messages(3)) == []
    assert len(drain(channel, queue)) == 6


def test_silence_is_not_taken_for_a_confirm(
    link: Link, exchange: str, make_queue: Callable[..., str], channel: Any
) -> None:
    queue = make_queue()
    with RabbitMQPublisher(link.url, exchange, confirm_timeout_s=0.5) as publisher:
        publisher.check()
        link.swallows.set()
        with pytest.raises(BrokerUnavailable):
            publisher.publish(messages(3))
        link.swallows.clear()
        assert publisher.publish(messages(3)) == []
    assert len(drain(channel, queue)) == 3
