"""pika's connection with a fast path for deliveries: they are cut out of the byte stream, everything else is pika's.

pika makes three frames, three objects of the protocol and a chain of callbacks of each message, and moves all unread bytes
after each frame; with that, receiving a message costs as much as deciding it. A delivery whose three frames (Basic.Deliver,
content header, one body; AMQP 0-9-1, 4.2.6) are all there is taken whole instead. What is larger than a frame, empty or
interleaved goes pika's way and arrives by the same callback.

On neither path are a message's properties decoded here: a sender may write there what pika cannot read, and an error on the
thread that does the I/O ends the link for all messages.

The fast path stands on private parts of pika; proof.py tries it, and where it fails, `SlowPathConnection` is used.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from struct import Struct
from typing import Any, Final

import pika
from pika import spec
from pika.channel import Channel
from pika.frame import Header, decode_frame
from pika.spec import FRAME_BODY, FRAME_END, FRAME_HEADER, FRAME_HEARTBEAT, FRAME_METHOD, Basic, BasicProperties

from incentive_fleet.brokers.rabbitmq.properties import NONE
from incentive_fleet.brokers.rabbitmq.tap import Tap

log = logging.getLogger(__name__)

DeliveryCallback = Callable[[int, str, bytes, bytes], None]  # tag, queue, properties as on the wire, body

RECEIVE_BYTES: Final = 64 * 1024  # of one recv; pika's own 4 KiB are five messages

_FRAME: Final = Struct(">BHL")  # type, channel, size of the payload; then the payload and an end mark
_METHOD: Final = Struct(">BHLL")  # ... and the method's class and number as one
_HEADER: Final = Struct(">BHLHHQ")  # ... and class, weight, size of the body; then the properties
_TAG: Final = Struct(">Q")
_KINDS: Final = {FRAME_METHOD, FRAME_HEADER, FRAME_BODY, FRAME_HEARTBEAT}


class Received(BasicProperties):
    """Properties as they came, which nobody has decoded."""

    def __init__(self) -> None:
        super().__init__()
        self.encoded = NONE

    def decode(self, encoded: bytes, offset: int = 0) -> Received:
        """Keep them."""
        self.encoded = encoded[offset:]
        return self


class Lenient(Received):
    """The same where others in this process read properties too: decoded as far as pika can. Never raises."""

    def decode(self, encoded: bytes, offset: int = 0) -> Lenient:
        """Keep them, and decode what can be decoded."""
        self.encoded = encoded[offset:]
        try:
            BasicProperties.decode(self, encoded, offset)
        except Exception:  # pika documents none; what was kept is what counts
            log.debug("pika cannot decode properties", exc_info=True)
        return self


class SlowPathConnection(pika.SelectConnection):
    """A connection that hands deliveries to `on_delivery`, by what pika has published of itself and no more. Consumers
    must be started with `deliver` as their callback and their queue's name as their tag."""

    def __init__(
        self, parameters: pika.connection.Parameters, *, on_delivery: DeliveryCallback, **callbacks: Any
    ) -> None:
        self._on_delivery = on_delivery
        self.tap: Tap | None = None  # once there is a socket
        super().__init__(parameters, **callbacks)

    def deliver(self, _channel: Channel, method: Basic.Deliver, properties: BasicProperties, body: bytes) -> None:
        """What pika put together itself."""
        assert method.delivery_tag is not None
        assert method.consumer_tag is not None
        self._on_delivery(method.delivery_tag, method.consumer_tag, _encoded(properties), body)


def _encoded(properties: BasicProperties) -> bytes:
    if isinstance(properties, Received):
        return properties.encoded
    try:
        return b"".join(properties.encode())
    except Exception:  # a message goes on without what pika decoded and cannot encode again
        log.warning("pika cannot encode properties that it decoded", exc_info=True)
        return NONE


def read_leniently() -> None:
    """Have all of pika in this process read properties without ever raising, which its own way needs."""
    spec.props[BasicProperties.INDEX] = Lenient


class FastPathConnection(SlowPathConnection):
    """The same with the fast path."""

    # What pika keeps and its stubs do not tell.
    _frame_buffer: bytes
    _body_max_length: int
    _process_frame: Callable[[object], None]
    bytes_received: int
    frames_received: int

    def _proto_connection_made(self, transport: Any) -> None:
        transport._MAX_RECV_BYTES = RECEIVE_BYTES
        self.tap = Tap.of(self, transport)
        super()._proto_connection_made(transport)  # type: ignore[misc]

    def _on_data_available(self, data_in: bytes) -> None:
        """pika's, with the fast path in front. It must never lose its place: what is incomplete stays in the buffer."""
        buffer = self._frame_buffer + data_in if self._frame_buffer else data_in
        self._frame_buffer = b""
        place, end = 0, len(buffer)
        while end - place >= _FRAME.size:
            kind, _, size = _FRAME.unpack_from(buffer, place)
            if kind not in _KINDS:  # another protocol, or nonsense: pika's to refuse
                self._frame_buffer = buffer[place:]
                super()._on_data_available(b"")  # type: ignore[misc]
                return
            after = place + _FRAME.size + size + 1
            if after > end:
                break
            if kind == FRAME_METHOD and _METHOD.unpack_from(buffer, place)[3] == Basic.Deliver.INDEX:
                cut = self._cut_delivery(buffer, place, after)
                if cut < 0:
                    break
                if cut:
                    self.bytes_received += cut - place
                    self.frames_received += 3
                    place = cut
                    continue
            self._pass_on(kind, buffer[place:after])
            place = after
        self._frame_buffer = buffer[place:]

    def _pass_on(self, kind: int, encoded: bytes) -> None:
        """One whole frame that is pika's."""
        self.bytes_received += len(encoded)
        if kind == FRAME_HEADER and encoded[-1] == FRAME_END and len(encoded) > _HEADER.size:
            _, channel, _, of, _, body_size = _HEADER.unpack_from(encoded)
            if of == BasicProperties.INDEX:
                self._process_frame(Header(channel, body_size, Received().decode(encoded[:-1], _HEADER.size)))
                return
        _, frame = decode_frame(encoded)
        assert frame is not None
        self._process_frame(frame)

    def _cut_delivery(self, buffer: bytes, method: int, header: int) -> int:
        """Hand over the delivery whose method frame lies there; returns its end, -1 when more bytes are needed to tell,
        0 when it is not as simple as that."""
        end = len(buffer)
        if end - header < _HEADER.size:
            return -1
        kind, channel, size, _, _, body_size = _HEADER.unpack_from(buffer, header)
        body = header + _FRAME.size + size + 1
        if kind != FRAME_HEADER or not 0 < body_size <= self._body_max_length:
            return 0
        start = body + _FRAME.size
        stop: int = start + body_size
        if stop >= end:
            return -1
        if (
            _FRAME.unpack_from(buffer, body) != (FRAME_BODY, channel, body_size)
            or not buffer[header - 1] == buffer[body - 1] == buffer[stop] == FRAME_END
        ):
            return 0
        name = method + _METHOD.size + 1
        tag = name + buffer[name - 1]
        queue = buffer[name:tag].decode()
        properties = buffer[header + _HEADER.size : body - 1]
        self._on_delivery(_TAG.unpack_from(buffer, tag)[0], queue, properties, buffer[start:stop])
        return stop + 1
