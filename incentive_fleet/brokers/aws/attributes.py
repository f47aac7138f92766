"""How a dead letter fits into an SQS message: ten attributes, certain characters, a bound on the whole. Pure.

The body is never touched. When not all attributes fit, the reason and the source queue stay longest, and an attribute of
ours says which are missing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from incentive_fleet import names
from incentive_fleet.brokers import message_headers
from incentive_fleet.brokers.aws.plan import SQS_MESSAGE_BYTES
from incentive_fleet.brokers.message_headers import OURS, REPLAY

FIRST: Final = (message_headers.REASON, message_headers.SOURCE_QUEUE)
ATTRIBUTES: Final = 10  # SQS delivers no more with a message
# What SQS allows in a body or attribute: #x9 | #xA | #xD | #x20 to #xD7FF | #xE000 to #xFFFD | #x10000 to #x10FFFF.
FORBIDDEN: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def fit(
    body: str, theirs: Mapping[str, Any], ours: Mapping[str, str], limit: int = SQS_MESSAGE_BYTES
) -> tuple[dict[str, Any], int, list[str]]:
    """The message for a send, its size in bytes, and the names of the attributes that had to be left out."""
    size = len(body.encode())
    ranked = list(_ranked(theirs, ours))
    kept, dropped = _choose(ranked, ATTRIBUTES, limit - size)
    if dropped:
        said = _text(message_headers.LEFT_OUT)
        room = len(message_headers.LEFT_OUT) + len(said["DataType"]) + message_headers.LEFT_OUT_BYTES
        fewer, more_dropped = _choose(ranked, ATTRIBUTES - 1, limit - size - room)
        if fewer and all(name in fewer for name in FIRST if name in kept):  # it must not drive out why and whence
            kept, dropped = fewer, more_dropped
            kept[message_headers.LEFT_OUT] = _text(message_headers.of_left_out(dropped))
    size += sum(_size(name, attribute) for name, attribute in kept.items())
    return {"MessageBody": body, "MessageAttributes": kept}, size, dropped


def _choose(ranked: Sequence[tuple[str, Mapping[str, Any]]], most: int, room: int) -> tuple[dict[str, Any], list[str]]:
    kept: dict[str, Any] = {}
    dropped: list[str] = []
    for name, attribute in ranked:
        size = _size(name, attribute)
        if len(kept) < most and size <= room:
            kept[name] = attribute
            room -= size
        else:
            dropped.append(name)
    return kept, dropped


def _ranked(theirs: Mapping[str, Any], ours: Mapping[str, str]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The most needed first: why and whence, the type, the rest of ours, the rest of the sender's."""
    mine = {name: _text(text) for name, text in ours.items()}
    first = [name for name in FIRST if name in mine]
    yield from ((name, mine[name]) for name in first)
    if names.TYPE_ATTRIBUTE in theirs:
        yield names.TYPE_ATTRIBUTE, _sendable(theirs[names.TYPE_ATTRIBUTE])
    yield from ((name, value) for name, value in mine.items() if name not in first)
    for name, value in theirs.items():
        if name != names.TYPE_ATTRIBUTE and name not in mine and (not name.startswith(OURS) or name == REPLAY):
            yield name, _sendable(value)


def _text(text: str) -> Mapping[str, Any]:
    return {"DataType": "String", "StringValue": FORBIDDEN.sub("\ufffd", text)}


def _sendable(received: Mapping[str, Any]) -> Mapping[str, Any]:
    return {key: received[key] for key in ("DataType", "StringValue", "BinaryValue") if key in received}


def _size(name: str, attribute: Mapping[str, Any]) -> int:
    value = attribute.get("BinaryValue", b"") or str(attribute.get("StringValue", "")).encode()
    return len(name.encode()) + len(str(attribute["DataType"]).encode()) + len(value)
