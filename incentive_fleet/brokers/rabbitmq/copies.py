"""What is published in a message's place: its properties with ours added, in one frame. Pure; it never touches a body.

A content header cannot be split over frames (AMQP 0-9-1, 4.2.6), and what the broker took from a sender may fill one by
itself. Then the sender's own give way, the least needed first, and a header of ours says which.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from pika.spec import BasicProperties

from incentive_fleet.brokers import message_headers
from incentive_fleet.brokers.message_headers import OURS, REPLAY
from incentive_fleet.brokers.rabbitmq.properties import (
    TEXT_SIZE,
    Parts,
    cut,
    join,
    short_text,
    shown,
    shown_name,
    text_value,
)
from incentive_fleet.names import TYPE_ATTRIBUTE

# What the broker itself wrote about an earlier life: it would mislead the next reader, and RabbitMQ before 4.0 would take
# a published x-death for its own and find cycles in it.
OF_THE_BROKER: Final = (
    b"x-death",
    b"x-first-death-",
    b"x-last-death-",
    b"x-delivery-count",
    b"x-acquired-count",
    b"x-opt-",
)
# By these a sender has the broker put a message into further queues; a copy of ours has one destination.
TO_FURTHER_QUEUES: Final = (b"CC", b"BCC")
# Not `expiration`, which would drop a copy, nor `user_id`, which RabbitMQ checks against the login, nor `cluster_id`, which
# means nothing. The delivery mode is ours.
KEPT: Final = (
    "type",
    "message_id",
    "content_type",
    "content_encoding",
    "correlation_id",
    "timestamp",
    "priority",
    "reply_to",
    "app_id",
)
PERSISTENT: Final = b"\x02"
# A header frame beside its properties: type, channel, size, end mark; class, weight, size of the body. Then the flags, the
# length of the table and the delivery mode, which every copy has.
BESIDE_PROPERTIES: Final = 8 + 12
ALWAYS: Final = 2 + 4 + 1
# What a broker adds when it moves a copy on (x-death, a delivery count) is to fit the frame of whoever reads it then.
FOR_THE_BROKER: Final = 1_024
LEFT_OUT: Final = message_headers.LEFT_OUT.encode()
LEFT_OUT_SIZE: Final = 1 + len(LEFT_OUT) + TEXT_SIZE + message_headers.LEFT_OUT_BYTES
FRAME_MIN: Final = 4_096  # AMQP's least


class Encoded(BasicProperties):
    """Properties that are on the wire's form already, for pika to send as they are."""

    def __init__(self, encoded: bytes) -> None:
        super().__init__()
        self.encoded = encoded

    def encode(self) -> list[bytes]:
        """What pika puts into the content header."""
        return [self.encoded]


class _Piece(NamedTuple):
    name: bytes
    value: bytes
    is_property: bool

    @property
    def size(self) -> int:
        return len(self.value) + (0 if self.is_property else 1 + len(self.name))


def room_in(frame_max: int) -> int:
    """How many bytes the properties of a copy may have, in frames of up to so many (0: without limit)."""
    return (frame_max or 1 << 31) - BESIDE_PROPERTIES - FOR_THE_BROKER


def senders(encoded: bytes) -> Parts:
    """A message's properties without what belongs to one life of it: the broker's word, and ours but for the replay's mark
    and what an earlier copy left out."""
    parts = cut(encoded)
    properties = {name: value for name, value in parts.properties.items() if name in KEPT}
    return Parts(properties, {name: value for name, value in parts.headers.items() if _stays(name)}, parts.unread)


def _stays(name: bytes) -> bool:
    if name.startswith(OF_THE_BROKER) or name in TO_FURTHER_QUEUES:
        return False
    return not name.startswith(OURS.encode()) or name in (REPLAY.encode(), LEFT_OUT)


def without_ours(parts: Parts) -> Parts:
    """The same without any header of ours, as a replay starts."""
    headers = {name: value for name, value in parts.headers.items() if not name.startswith(OURS.encode())}
    return Parts(parts.properties, headers, parts.unread)


def copy_of(parts: Parts, ours: Mapping[str, str], room: int) -> Encoded:
    """The properties of a copy: ours, and of the sender's what else fits into `room` bytes.

    Of ours those that come first stay longest. Never raises, whatever the sender's are.
    """
    pieces = list(_ranked(parts, ours))
    left_out = [f"{name} that could not be read" for name in parts.unread]
    room -= ALWAYS
    if left_out or sum(piece.size for piece in pieces) > room:
        room -= LEFT_OUT_SIZE
    headers: dict[bytes, bytes] = {}
    properties = {"delivery_mode": PERSISTENT}
    for piece in pieces:
        if piece.size > room:
            left_out.append(shown_name(piece.name))
            continue
        room -= piece.size
        if piece.is_property:
            properties[piece.name.decode()] = piece.value
        else:
            headers[piece.name] = piece.value
    if left_out:
        earlier = headers.get(LEFT_OUT)
        names = left_out if earlier is None else [shown(earlier), *left_out]
        headers[LEFT_OUT] = text_value(message_headers.of_left_out(names))
    return Encoded(join(properties, headers))


def _ranked(parts: Parts, ours: Mapping[str, str]) -> Iterator[_Piece]:
    """The most needed first: ours, by what it is routed and told apart, the sender's other properties and headers."""
    mine = {name.encode(): text_value(text) for name, text in ours.items()}
    for name, value in mine.items():
        yield _Piece(name, value, is_property=False)
    theirs = {name: value for name, value in parts.headers.items() if name not in mine}
    for name in [name for name in (LEFT_OUT, TYPE_ATTRIBUTE.encode()) if name in theirs]:
        yield _Piece(name, theirs.pop(name), is_property=False)
    for kept in KEPT:
        if kept in parts.properties:
            yield _Piece(kept.encode(), parts.properties[kept], is_property=True)
    for name, value in theirs.items():
        yield _Piece(name, value, is_property=False)


def with_type(parts: Parts, type_: str) -> Parts:
    """The same with another `type` wherever the sender gave one."""
    headers, properties = dict(parts.headers), dict(parts.properties)
    if TYPE_ATTRIBUTE.encode() in headers:
        headers[TYPE_ATTRIBUTE.encode()] = text_value(type_)
    if "type" in properties:
        properties["type"] = short_text(type_) or properties["type"]
    return Parts(properties, headers, parts.unread)
