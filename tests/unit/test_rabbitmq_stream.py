"""Deliveries are cut out of the byte stream whole, however the stream was cut into pieces; the rest is left to pika."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pika.exceptions import InvalidFrameError
from pika.frame import Body, Header, Heartbeat, Method
from pika.spec import Basic, BasicProperties

from incentive_fleet.brokers.rabbitmq.headers import readable
from incentive_fleet.brokers.rabbitmq.stream import DeliveringConnection

BODY_MAX = 100

Message = tuple[int, str, bytes, bytes]  # tag, queue, message id, body


class Stream(DeliveringConnection):
    """The reading half of a connection, without a socket; notes in order what it hands over and what it leaves to pika."""

    def __init__(self) -> None:
        self._frame_buffer = b""
        self._body_max_length = BODY_MAX
        self.bytes_received = self.frames_received = 0
        self.seen: list[Any] = []
        self._on_delivery = lambda tag, queue, properties, body: self.seen.append(
            (tag, queue, readable(properties).message_id, body)
        )
        self._process_frame = lambda frame: self.seen.append(type(frame).__name__)  # type: ignore[assignment, attr-defined]

    def feed(self, data: bytes, cuts: list[int]) -> list[Any]:
        for start, stop in zip([0, *cuts], [*cuts, len(data)], strict=True):
            if start < stop:
                self._on_data_available(data[start:stop])
        return self.seen


def frames(tag: int, queue: str, id: str, body: bytes, *, heartbeat_at: int = 0, channel: int = 1) -> list[bytes]:
    pieces = [body[start : start + BODY_MAX] for start in range(0, len(body), BODY_MAX)]
    properties = BasicProperties(message_id=id, headers={"n": "x"}, delivery_mode=2)
    made = [
        Method(channel, Basic.Deliver(queue, tag, False, "exchange", "key")).marshal(),
        Header(channel, len(body), properties).marshal(),
        *(Body(channel, piece).marshal() for piece in pieces),
    ]
    if heartbeat_at:
        made.insert(heartbeat_at, Heartbeat().marshal())
    return made


messages = st.tuples(
    st.integers(1, 2**64 - 1),
    st.text("abc.é", min_size=1, max_size=20),
    st.text(max_size=20),
    st.binary(max_size=3 * BODY_MAX),
    st.integers(0, 2),  # a heartbeat inside
)


@given(st.lists(messages, max_size=5), st.data())
def test_any_stream_cut_anywhere(sent: list[tuple[int, str, str, bytes, int]], data: st.DataObject) -> None:
    expected: list[Any] = []
    stream = b""
    for tag, queue, id, body, heartbeat_at in sent:
        stream += b"".join(frames(tag, queue, id, body, heartbeat_at=heartbeat_at)) + Heartbeat().marshal()
        if 0 < len(body) <= BODY_MAX and not heartbeat_at:
            expected.append((tag, queue, id, body))
        else:
            kinds = ["Method", "Header", *["Body"] * -(-len(body) // BODY_MAX)]
            if heartbeat_at:
                kinds.insert(heartbeat_at, "Heartbeat")
            expected += kinds
        expected.append("Heartbeat")
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    reader = Stream()
    assert reader.feed(stream, cuts) == expected
    assert reader.bytes_received == len(stream)
    assert reader._frame_buffer == b""


def test_byte_by_byte() -> None:
    stream = b"".join(frames(7, "orders", "id-7", b"body"))
    assert Stream().feed(stream, list(range(1, len(stream)))) == [(7, "orders", "id-7", b"body")]


def test_a_broken_end_mark_is_pikas_to_refuse() -> None:
    stream = bytearray(b"".join(frames(7, "orders", "id-7", b"body")))
    stream[-1] = 0
    with pytest.raises(InvalidFrameError):
        Stream().feed(bytes(stream), [])


def test_another_protocol_is_pikas_to_refuse() -> None:
    assert Stream().feed(b"AMQP\x00\x00\x09\x01", []) == ["ProtocolHeader"]


def test_properties_that_pika_cannot_decode_are_left_out() -> None:
    """An endless double and a year beyond the calendar: the message itself is none the worse."""
    for field in (b"d\x7f\xf0\x00\x00\x00\x00\x00\x00", b"T\xff\xff\xff\xff\xff\xff\xff\xff"):
        table = b"\x01n" + field
        assert readable(b"\x20\x00" + len(table).to_bytes(4) + table).headers is None
