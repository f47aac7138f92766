"""A message's properties as they stand on the wire: cut into their parts, put together again, shown to people. Pure.

A sender may write anything there that the broker takes: a year beyond the calendar, a number without end, tables nested as
deep as a frame is long, bytes that are no text. So nothing is decoded in order to be sent on: each part is cut out by the
length that it has on the wire, and goes as it came. `shown` alone decodes, as deep as people read.

Nothing here raises for what a sender wrote. AMQP 0-9-1, 4.2.5 and 4.2.6, with RabbitMQ's types of field values.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from struct import Struct
from typing import Final

NONE: Final = b"\x00\x00"  # no property at all
# In the order of their flags, the highest bit first: how long each is, None for a short string, 0 for the table.
_PROPERTIES: Final[tuple[tuple[str, int, int | None], ...]] = tuple(
    (name, 1 << (15 - place), size)
    for place, (name, size) in enumerate(
        {
            "content_type": None,
            "content_encoding": None,
            "headers": 0,
            "delivery_mode": 1,
            "priority": 1,
            "correlation_id": None,
            "reply_to": None,
            "expiration": None,
            "message_id": None,
            "timestamp": 8,
            "type": None,
            "user_id": None,
            "app_id": None,
            "cluster_id": None,
        }.items()
    )
)
_UNKNOWN_FLAGS: Final = 0b11  # a bit that no property has, and the one that says that more flags follow
_FLAGS: Final = Struct(">H")
_LENGTH: Final = Struct(">L")
# The formats of field values of a fixed size, and the types that begin with their length.
_NUMBERS: Final = {
    byte: Struct(">" + format_)
    for byte, format_ in {
        **{ord("b"): "b", ord("B"): "B", ord("s"): "h", ord("U"): "h", ord("u"): "H", ord("I"): "i", ord("i"): "I"},
        **{ord("l"): "q", ord("L"): "q", ord("f"): "f", ord("d"): "d"},
    }.items()
}
_SIZES: Final = {
    **{byte: form.size for byte, form in _NUMBERS.items()},
    ord("t"): 1,
    ord("D"): 5,
    ord("T"): 8,
    ord("V"): 0,
}
_MEASURED: Final = frozenset(b"SxAF")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

SHOWN_DEPTH: Final = 8  # tables within tables that are shown; what lies deeper is "…"
TEXT_SIZE: Final = 5  # bytes that a text takes as a header's value beside itself


@dataclass(frozen=True, slots=True)
class Parts:
    """Properties and headers, each as it stood on the wire."""

    properties: Mapping[str, bytes] = field(default_factory=dict)  # by pika's names; a short string with its length
    headers: Mapping[bytes, bytes] = field(default_factory=dict)  # type and value
    unread: tuple[str, ...] = ()  # what could not be cut and is therefore not among them


def cut(encoded: bytes) -> Parts:
    """The parts of the properties of one message; what is no AMQP is left out and named in `unread`. Never raises."""
    properties: dict[str, bytes] = {}
    headers: dict[bytes, bytes] = {}
    unread: tuple[str, ...] = ()
    place, end = _FLAGS.size, len(encoded)
    if end < place:
        return Parts(unread=("properties",))
    (flags,) = _FLAGS.unpack_from(encoded)
    if flags & _UNKNOWN_FLAGS:
        return Parts(unread=("properties",))
    for name, flag, size in _PROPERTIES:
        if not flags & flag:
            continue
        if size is None:
            stop = place + 1 + encoded[place] if place < end else end + 1
        elif size:
            stop = place + size
        else:
            stop = place + 4 + _LENGTH.unpack_from(encoded, place)[0] if place + 4 <= end else end + 1
        if stop > end:
            return Parts(properties, headers, (*unread, "properties"))
        if size == 0:
            cut_headers = table(encoded[place + 4 : stop])
            if cut_headers is None:
                unread = ("headers",)
            else:
                headers = cut_headers
        else:
            properties[name] = encoded[place:stop]
        place = stop
    return Parts(properties, headers, unread)


def table(encoded: bytes) -> dict[bytes, bytes] | None:
    """The fields of a table, without its length; None when it is none. Of two with one name the later counts."""
    fields: dict[bytes, bytes] = {}
    place, end = 0, len(encoded)
    while place < end:
        start = place + 1 + encoded[place]
        stop = _end_of_value(encoded, start)
        if stop is None:
            return None
        fields[encoded[place + 1 : start]] = encoded[start:stop]
        place = stop
    return fields


def array(encoded: bytes) -> list[bytes] | None:
    """The values of an array, without its length; None when it is none."""
    values: list[bytes] = []
    place = 0
    while place < len(encoded):
        stop = _end_of_value(encoded, place)
        if stop is None:
            return None
        values.append(encoded[place:stop])
        place = stop
    return values


def _end_of_value(encoded: bytes, place: int) -> int | None:
    end = len(encoded)
    if place >= end:
        return None
    kind = encoded[place]
    size = _SIZES.get(kind)
    if size is not None:
        stop = place + 1 + size
    elif kind in _MEASURED and place + 5 <= end:
        stop = place + 5 + int(_LENGTH.unpack_from(encoded, place + 1)[0])
    else:
        return None
    return stop if stop <= end else None


def join(properties: Mapping[str, bytes], headers: Mapping[bytes, bytes]) -> bytes:
    """What `cut` takes apart. Names are of 255 bytes at the most; no headers at all make no table."""
    flags = 0
    pieces = [b""]
    for name, flag, size in _PROPERTIES:
        piece = properties.get(name)
        if size == 0 and headers:
            piece = _joined_table(headers.items())
        if piece is not None:
            flags |= flag
            pieces.append(piece)
    pieces[0] = _FLAGS.pack(flags)
    return b"".join(pieces)


def _joined_table(fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    joined = b"".join(bytes((len(name),)) + name + value for name, value in fields)
    return _LENGTH.pack(len(joined)) + joined


def text_value(text: str) -> bytes:
    """A text as the value of a header."""
    encoded = text.encode("utf-8", "replace")
    return b"S" + _LENGTH.pack(len(encoded)) + encoded


def short_text(text: str) -> bytes | None:
    """A text as a property; None when it is longer than the 255 bytes that AMQP allows."""
    encoded = text.encode("utf-8", "replace")
    return bytes((len(encoded),)) + encoded if len(encoded) <= 255 else None


def whole_number(value: bytes | None) -> int | None:
    """A header's value if it is a whole number; None for anything else, truth values included."""
    form = _NUMBERS.get(value[0]) if value else None
    if value is None or form is None or value[0] in b"fd":
        return None
    return int(form.unpack_from(value, 1)[0])


def shown_property(name: str, value: bytes) -> str | int:
    """A property for people: numbers as such, a short string as text, or in hex when it is none."""
    if name in ("delivery_mode", "priority", "timestamp"):
        return int.from_bytes(value)
    return _text(value[1:])


def shown(value: bytes) -> str:
    """A header's value for people; bytes that are no text stand in hex. Never raises."""
    return _shown(value, SHOWN_DEPTH)


def shown_name(name: bytes) -> str:
    """A header's name for people."""
    return name.decode("utf-8", "backslashreplace")


def _text(encoded: bytes) -> str:
    try:
        return encoded.decode()
    except UnicodeDecodeError:
        return encoded.hex()


def _shown(value: bytes, depth: int) -> str:
    match chr(value[0]):
        case "S":
            return _text(value[TEXT_SIZE:])
        case "x":
            return value[TEXT_SIZE:].hex()
        case "V":
            return "None"
        case "t":
            return str(value[1] != 0)
        case "D":
            return f"{int.from_bytes(value[2:], signed=True)}E-{value[1]}"
        case "T":
            return _shown_time(int.from_bytes(value[1:]))
        case "A" | "F" if not depth:
            return "…"
        case "A":
            values = array(value[TEXT_SIZE:])
            return "…" if values is None else f"[{', '.join(_shown(item, depth - 1) for item in values)}]"
        case "F":
            fields = table(value[TEXT_SIZE:])
            if fields is None:
                return "…"
            return f"{{{', '.join(f'{shown_name(name)}: {_shown(item, depth - 1)}' for name, item in fields.items())}}}"
        case _:
            return str(_NUMBERS[value[0]].unpack_from(value, 1)[0])


def _shown_time(seconds: int) -> str:
    try:
        return (_EPOCH + timedelta(seconds=seconds)).isoformat()
    except OverflowError:  # milliseconds, say: a year beyond the calendar
        return str(seconds)
