"""Tries the fast path of stream.py on a canned stream of bytes, before anything depends on it. No network.

The fast path stands on private parts of pika. A pika that is not as it was when this was written, by its version or by
somebody's patch, is found out here, and consuming goes pika's own way instead: slower, and as safe.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable
from struct import pack
from typing import Any, Final

import pika
from pika.adapters.select_connection import IOLoop
from pika.channel import Channel
from pika.spec import FRAME_BODY, FRAME_END, FRAME_HEADER, FRAME_HEARTBEAT, FRAME_METHOD

from incentive_fleet.brokers.rabbitmq.stream import FastPathConnection, Received, SlowPathConnection, read_leniently

log = logging.getLogger(__name__)

Handed = tuple[int, str, bytes, bytes]  # tag (0 of a return), queue, properties, body

QUEUE: Final = "q"
_SHORT: Final = b"\x01q"  # the same as AMQP's short string
_TAG_FREE: Final = b"\x00"  # an empty one
_PLAIN: Final = b"\x10\x00\x02"  # properties: a delivery mode
# Headers that pika refuses to decode: milliseconds as a time, a number without end, a name that is no text.
_TIME: Final = b"\x20\x00" + pack(">L", 11) + b"\x01tT" + pack(">Q", 1_790_000_000_000)
_ENDLESS: Final = b"\x20\x00" + pack(">L", 11) + b"\x01dd" + pack(">d", float("inf"))
_NO_TEXT: Final = b"\x20\x00" + pack(">L", 3) + b"\x01\xffV"


def _frame(kind: int, channel: int, payload: bytes) -> bytes:
    return pack(">BHL", kind, channel, len(payload)) + payload + bytes((FRAME_END,))


def _method(channel: int, of: int, number: int, arguments: bytes) -> bytes:
    return _frame(FRAME_METHOD, channel, pack(">HH", of, number) + arguments)


def _content(method: bytes, properties: bytes, *bodies: bytes) -> list[bytes]:
    size = sum(len(body) for body in bodies)
    header = _frame(FRAME_HEADER, 1, pack(">HHQ", 60, 0, size) + properties)
    return [method, header, *(_frame(FRAME_BODY, 1, body) for body in bodies)]


def _delivery(tag: int, properties: bytes, *bodies: bytes) -> list[bytes]:
    arguments = _SHORT + pack(">QB", tag, 0) + _TAG_FREE + _SHORT
    return _content(_method(1, 60, 60, arguments), properties, *bodies)


HEARTBEAT: Final = _frame(FRAME_HEARTBEAT, 0, b"")
OPENING: Final = (
    _method(0, 10, 10, b"\x00\x09" + pack(">L", 0) + pack(">L", 5) + b"PLAIN" + pack(">L", 5) + b"en_US"),
    _method(0, 10, 30, pack(">HLH", 0, 131_072, 60)),
    _method(0, 10, 41, _TAG_FREE),
    _method(1, 20, 11, pack(">L", 0)),
    _method(1, 60, 21, _SHORT),
)


def _interleaved() -> list[bytes]:
    method, header, *bodies = _delivery(5, _TIME, b"in", b"ter")
    return [method, HEARTBEAT, header, HEARTBEAT, *bodies]


STREAM: Final = b"".join(
    [
        *_delivery(1, _PLAIN, b"one"),
        *_delivery(2, _TIME, b"two"),
        *_delivery(3, _TIME),
        HEARTBEAT,
        *_delivery(4, _ENDLESS, b"fo", b"ur"),
        *_interleaved(),
        *_content(_method(1, 60, 50, pack(">H", 312) + _TAG_FREE + _TAG_FREE + _SHORT), _NO_TEXT, b"back"),
        *_delivery(6, _NO_TEXT, b"\xce" * 3),  # bodies may hold the byte that ends a frame
    ]
)
EXPECTED: Final[list[Handed]] = [
    (1, QUEUE, _PLAIN, b"one"),
    (2, QUEUE, _TIME, b"two"),
    (3, QUEUE, _TIME, b""),
    (4, QUEUE, _ENDLESS, b"four"),
    (5, QUEUE, _TIME, b"inter"),
    (0, QUEUE, _NO_TEXT, b"back"),
    (6, QUEUE, _NO_TEXT, b"\xce" * 3),
]


class _Nowhere:
    """A transport that takes everything and sends nothing."""

    def write(self, data: bytes) -> None:
        """Nobody listens."""


def difference() -> str | None:
    """What is not as expected with the fast path on the pika at hand; None when all is well. Some 20 ms."""
    try:
        return _difference()
    except Exception as error:  # whatever another pika may raise
        return repr(error)


def _difference() -> str | None:
    handed: list[Handed] = []
    loop = IOLoop()
    try:
        connection = _open(loop, handed)
        pieces = (STREAM[at : at + 1] for at in range(len(STREAM)))
        for cuts in (pieces, *((STREAM[:at], STREAM[at:]) for at in range(1, len(STREAM)))):
            handed.clear()
            _feed(connection, cuts)
            if handed != EXPECTED:
                return f"{handed!r} was read, {EXPECTED!r} was sent"
    finally:
        loop.close()
    return None


def _open(loop: IOLoop, handed: list[Handed]) -> FastPathConnection:
    def on_delivery(*delivered: Any) -> None:
        handed.append(delivered)

    def on_return(_channel: Channel, method: Any, properties: Any, body: bytes) -> None:
        assert isinstance(properties, Received)
        handed.append((0, method.routing_key, properties.encoded, body))

    def on_channel(channel: Channel) -> None:
        channel.add_on_return_callback(on_return)
        channel.basic_consume(QUEUE, connection.deliver, consumer_tag=QUEUE)

    connection = FastPathConnection(
        pika.ConnectionParameters(heartbeat=60),
        on_delivery=on_delivery,
        on_open_callback=lambda opened: opened.channel(on_open_callback=on_channel),
        custom_ioloop=loop,
        internal_connection_workflow=False,
    )
    connection._proto_connection_made(_Nowhere())
    _feed(connection, OPENING)
    return connection


def _feed(connection: Any, pieces: Iterable[bytes]) -> None:
    for piece in pieces:
        connection._proto_data_received(piece)


class _Pika:
    """What this process has found out about its pika."""

    lock = threading.Lock()
    differs: bool | None = None  # until it has been looked at


def proven_connection() -> type[SlowPathConnection]:
    """The connection to read with: the fast path where it works, else pika's own. The first call finds out which, and where it is
    pika's own the log says so."""
    with _Pika.lock:
        if _Pika.differs is None:
            found = difference()
            _Pika.differs = found is not None
            if found is not None:
                read_leniently()
                log.warning(
                    "pika %s is not as this program knows it, so messages are received its own way, which is slower: %s",
                    pika.__version__,
                    found,
                )
        return SlowPathConnection if _Pika.differs else FastPathConnection
