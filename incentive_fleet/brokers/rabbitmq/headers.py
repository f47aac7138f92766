"""A sender's properties: what a consumer needs of them, and its headers as they can be sent again. Pure.

A sender may write anything there. What pika cannot decode (a number without end, a year beyond the calendar) is left out:
an event does not depend on it, and a message that cannot be read would otherwise never be settled.

pika reads more than it writes: it takes a double for a whole number of any size, and writes whole numbers of 64 bits and no
floating-point ones. A header that cannot be written would keep its message from being dead-lettered, retried or replayed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pika.spec import BasicProperties


def readable(properties: BasicProperties | bytes) -> BasicProperties:
    """The properties, decoded if they are not yet; none at all when pika cannot decode them."""
    if isinstance(properties, BasicProperties):
        return properties
    try:
        return BasicProperties().decode(properties)
    except Exception:  # pika documents none; OverflowError, ValueError, struct.error and its own were seen
        return BasicProperties()


def sendable(headers: Mapping[str, Any]) -> dict[str, Any]:
    """The headers with floating-point numbers, and whole ones beyond 64 bits, as text; everything else as it is."""
    return {name: _sendable(value) for name, value in headers.items()}


def _sendable(value: Any) -> Any:
    match value:
        case float():
            return str(value)
        case bool():
            return value
        case int():
            return value if -(2**63) <= value < 2**63 else str(value)  # what pika writes as an AMQP long
        case list():
            return [_sendable(item) for item in value]
        case dict():
            return sendable(value)
        case _:
            return value
