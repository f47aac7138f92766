"""Deliveries are cut out of the byte stream whole, however the stream was cut into pieces; the rest is left to pika."""

from __future__ import annotations

from collections.abc import Callable
from struct import pack
from typing import Any

import pika
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pika.exceptions import InvalidFrameError
from pika.frame import Body, Header, Heartbeat, Method, decode_frame
from pika.spec import Basic, BasicProperties

from incentive_fleet.brokers.rabbitmq import proof, stream
from incentive_fleet.brokers.rabbitmq.stream import FastPathConnection, SlowPathConnection
from tests.amqp import long, nested, short, table
from tests.amqp import properties as properties_of

BODY_MAX = 100

Message = tuple[int, str, bytes, bytes]  # tag, queue, message id, body


class Stream(FastPathConnection):
    """The reading half of a connection, without a socket; notes in order what it hands over and what it leaves to pika."""

    def __init__(self) -> None:
        self._frame_buffer = b""
        self._body_max_length = BODY_MAX
        self.bytes_received = self.frames_received = 0
        self.seen: list[Any] = []
        self._on_delivery = lambda tag, queue, properties, body: self.seen.append(
            (tag, queue, BasicProperties().decode(properties).message_id, body)
        )
        self._process_frame = lambda frame: self.seen.append(type(frame).__name__)

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


UNDECODABLE = [
    b"\x20\x00" + table([(b"n", value)])
    for value in (
        b"d" + pack(">d", float("inf")),
        b"T" + b"\xff" * 8,
        b"?",
        nested(400),
        nested(400, "A"),
        b"S\xff\xff\xff\xff",
    )
]


@pytest.mark.parametrize("properties", UNDECODABLE)
@pytest.mark.parametrize("body", [b"", b"one frame", b"b" * 3 * BODY_MAX])
def test_properties_that_pika_cannot_decode_arrive_as_they_are(properties: bytes, body: bytes) -> None:
    header = pack(">HHQ", 60, 0, len(body)) + properties
    made = frames(7, "orders", "", body)
    made[1] = pack(">BHL", 2, 1, len(header)) + header + b"\xce"
    reader = Stream()
    arrived: list[bytes] = []
    reader._on_delivery = lambda tag, queue, properties, body: arrived.append(properties)
    reader._process_frame = lambda frame: (
        arrived.append(frame.properties.encoded) if isinstance(frame, Header) else None  # type: ignore[attr-defined]
    )
    reader.feed(b"".join(made), [])
    assert arrived == [properties]


def test_the_fast_path_proves_itself_on_this_pika() -> None:
    assert proof.difference() is None
    assert proof.proven_connection() is FastPathConnection


def _without_a_buffer(patch: pytest.MonkeyPatch) -> None:
    """A pika that keeps its unread bytes elsewhere."""
    patch.setattr(pika.connection.Connection, "_init_connection_state", _init_without_a_buffer)


def _init_without_a_buffer(connection: Any, real: Any = pika.connection.Connection._init_connection_state) -> None:  # type: ignore[attr-defined]
    real(connection)
    del connection._frame_buffer


def _with_another_entrance(patch: pytest.MonkeyPatch) -> None:
    """A pika whose transport hands its bytes to another method, so that the fast path is never asked."""
    own = pika.connection.Connection._on_data_available  # type: ignore[attr-defined]
    patch.setattr(pika.SelectConnection, "_proto_data_received", own)


def _with_frames_left_out(patch: pytest.MonkeyPatch) -> None:
    """A pika that looks at another attribute of a frame."""
    patch.setattr(pika.channel.ContentFrameAssembler, "process", lambda self, frame: None)


def _without_the_step(patch: pytest.MonkeyPatch) -> None:
    """A pika that has renamed what the fast path calls."""
    patch.setattr(pika.connection.Connection, "_process", pika.connection.Connection._process_frame, raising=False)  # type: ignore[attr-defined]
    patch.delattr(pika.connection.Connection, "_process_frame")


@pytest.mark.parametrize(
    "differ", [_without_a_buffer, _with_another_entrance, _with_frames_left_out, _without_the_step]
)
def test_a_pika_that_differs_is_used_its_own_way_and_that_is_said_once(
    differ: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(proof._Pika, "differs", None)
    monkeypatch.setitem(pika.spec.props, BasicProperties.INDEX, BasicProperties)
    differ(monkeypatch)
    with caplog.at_level("WARNING", logger=proof.__name__):
        assert [proof.proven_connection() for _ in range(3)] == [SlowPathConnection] * 3
    [said] = caplog.records
    assert pika.__version__ in said.getMessage()


def test_pikas_own_way_never_raises_for_what_a_sender_wrote(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(pika.spec.props, BasicProperties.INDEX, BasicProperties)
    stream.read_leniently()
    for properties in UNDECODABLE:
        header = pack(">HHQ", 60, 0, 0) + properties
        _, frame = decode_frame(pack(">BHL", 2, 1, len(header)) + header + b"\xce")
        assert isinstance(frame, Header)
        assert stream._encoded(frame.properties) == properties
    read = stream.Lenient().decode(properties_of(message_id=short(b"m"), headers=table([(b"n", long("S", b"x"))])))
    assert (read.message_id, read.headers) == ("m", {"n": "x"})
