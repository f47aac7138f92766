"""A sender's headers as they can be sent again: pika reads more than it writes. Pure.

It reads a double as a whole number of any size, and writes whole numbers of 64 bits and no floating-point ones.
A header that cannot be written would keep its message from ever being dead-lettered, retried or replayed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


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
