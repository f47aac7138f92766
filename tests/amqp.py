"""AMQP 0-9-1 as bytes: field tables and property lists with whatever a sender might put there, and a connection to send them by.

Made from the specification and RabbitMQ's errata, not with pika: what pika cannot write is what this is for.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Iterable, Sequence
from struct import pack
from urllib.parse import unquote, urlsplit

# The properties in the order of their flags, and how each is written: a short string, an octet or a time.
PROPERTIES = (
    ("content_type", "s"),
    ("content_encoding", "s"),
    ("headers", "F"),
    ("delivery_mode", "B"),
    ("priority", "B"),
    ("correlation_id", "s"),
    ("reply_to", "s"),
    ("expiration", "s"),
    ("message_id", "s"),
    ("timestamp", "T"),
    ("type", "s"),
    ("user_id", "s"),
    ("app_id", "s"),
    ("cluster_id", "s"),
)
FRAME_MAX = 131_072
NUMBERS = {"b": 1, "B": 1, "s": 2, "u": 2, "I": 4, "i": 4, "l": 8, "f": 4, "d": 8}  # types of so many bytes
HOSTILE_NUMBERS = {
    "f": [b"\x7f\x80\x00\x00", b"\xff\xc0\x00\x00"],  # endless, not a number
    "d": [pack(">d", number) for number in (float("inf"), float("-inf"), float("nan"), 1e308, 5e-324)],
}


def short(text: bytes) -> bytes:
    return bytes((len(text),)) + text


def long(kind: str, content: bytes) -> bytes:
    return kind.encode() + pack(">L", len(content)) + content


def fields(pairs: Iterable[tuple[bytes, bytes]]) -> bytes:
    return b"".join(short(name) + value for name, value in pairs)


def table(pairs: Iterable[tuple[bytes, bytes]]) -> bytes:
    content = fields(pairs)
    return pack(">L", len(content)) + content


def properties(**given: bytes) -> bytes:
    """A property list; each value is encoded already."""
    flags = sum(1 << (15 - place) for place, (name, _) in enumerate(PROPERTIES) if name in given)
    return pack(">H", flags) + b"".join(given[name] for name, _ in PROPERTIES if name in given)


def nested(depth: int, kind: str = "F") -> bytes:
    """A value with so many tables, or arrays, in each other."""
    value = b"V"
    for _ in range(depth):
        value = long(kind, (short(b"n") if kind == "F" else b"") + value)
    return value


def any_value(chance: random.Random, depth: int = 3) -> bytes:
    """A field value of any type that RabbitMQ reads."""
    kind = chance.choice("bBsuIilfdDTtVSxAF" if depth else "bBsuIilfdDTtVSx")
    match kind:
        case "f" | "d" if chance.random() < 0.001:  # RabbitMQ 3.10 takes none from a sender and crashes at length
            return kind.encode() + chance.choice(HOSTILE_NUMBERS[kind])
        case "D":
            return b"D" + chance.randbytes(5)
        case "T":
            return b"T" + chance.choice([chance.randbytes(8), pack(">Q", 1_790_000_000_000), b"\xff" * 8, b"\x00" * 8])
        case "t":
            return b"t" + chance.choice([b"\x00", b"\x01", b"\x02"])
        case "V":
            return b"V"
        case "S" | "x":
            return long(kind, any_text(chance, chance.choice([0, 3, 30, 300, 3_000])))
        case "A":
            return long("A", b"".join(any_value(chance, depth - 1) for _ in range(chance.randrange(4))))
        case "F":
            pairs = [
                (any_text(chance, chance.randrange(9)), any_value(chance, depth - 1))
                for _ in range(chance.randrange(4))
            ]
            return long("F", fields(pairs))
        case _:
            return kind.encode() + chance.randbytes(NUMBERS[kind])


def any_text(chance: random.Random, size: int) -> bytes:
    """Text, or bytes that are none, of so many bytes."""
    match chance.randrange(4):
        case 0:
            return chance.randbytes(size)
        case 1:
            return ("é\u202e\u2028\U0001f600" * size).encode()[:size]  # may be cut within a character
        case 2:
            return b"\x00\x1b[31m"[:size]
        case _:
            return bytes(chance.choices(b"abcdefghijklmnopqrstuvwxyz-", k=size))


def any_property(chance: random.Random, name: str, kind: str) -> bytes:
    match name, kind:
        case "expiration", _:
            return short(b"%d" % chance.randrange(10**6, 10**9))  # RabbitMQ takes nothing but a time to live here
        case "delivery_mode", _:
            return chance.choice([b"\x01", b"\x02"])  # nor anything else here
        case _, "s":
            return short(any_text(chance, chance.choice([0, 1, 20, 255])))
        case _, "B":
            return chance.randbytes(1)
        case _:
            return chance.choice([chance.randbytes(8), b"\xff" * 8, pack(">Q", 1_790_000_000_000)])


class RawConnection:
    """A connection to RabbitMQ with one channel, in confirm mode, that sends content headers as they are given."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        vhost = unquote(parts.path[1:]) or "/"
        self._socket = socket.create_connection((parts.hostname, parts.port or 5672), timeout=30)
        self._reader = self._socket.makefile("rb")
        self._published = 0
        self._socket.sendall(b"AMQP\x00\x00\x09\x01")
        self._expect(10, 10)
        login = (
            b"\x00"
            + unquote(parts.username or "guest").encode()
            + b"\x00"
            + unquote(parts.password or "guest").encode()
        )
        self._method(0, 10, 11, table([]) + short(b"PLAIN") + pack(">L", len(login)) + login + short(b"en_US"))
        self._expect(10, 30)
        self._method(0, 10, 31, pack(">HLH", 1, FRAME_MAX, 0))
        self._method(0, 10, 40, short(vhost.encode()) + short(b"") + b"\x00")
        self._expect(10, 41)
        self._method(1, 20, 10, short(b""))
        self._expect(20, 11)
        self._method(1, 85, 10, b"\x00")
        self._expect(85, 11)

    def publish(self, messages: Sequence[tuple[str, bytes, bytes]]) -> None:
        """Queue, properties and body of each, to the default exchange; returns when RabbitMQ has taken them all."""
        for queue, properties, body in messages:
            self._method(1, 60, 40, b"\x00\x00" + short(b"") + short(queue.encode()) + b"\x00")
            self._frame(2, 1, pack(">HHQ", 60, 0, len(body)) + properties)
            for start in range(0, len(body), FRAME_MAX - 8):
                self._frame(3, 1, body[start : start + FRAME_MAX - 8])
        waiting = set(range(self._published + 1, self._published + len(messages) + 1))
        self._published += len(messages)
        while waiting:
            arguments = self._expect(60, 80)
            tag = int.from_bytes(arguments[:8])
            waiting -= {one for one in waiting if one <= tag} if arguments[8] else {tag}

    def close(self) -> None:
        self._reader.close()
        self._socket.close()

    def _frame(self, kind: int, channel: int, payload: bytes) -> None:
        self._socket.sendall(pack(">BHL", kind, channel, len(payload)) + payload + b"\xce")

    def _method(self, channel: int, of: int, number: int, arguments: bytes) -> None:
        self._frame(1, channel, pack(">HH", of, number) + arguments)

    def _expect(self, of: int, number: int) -> bytes:
        while True:
            head = self._reader.read(7)
            assert len(head) == 7, "RabbitMQ closed the connection"
            payload = self._reader.read(int.from_bytes(head[3:]) + 1)[:-1]
            if head[0] == 1:
                assert payload[:4] == pack(">HH", of, number), f"RabbitMQ says {payload!r}"
                return payload[4:]
