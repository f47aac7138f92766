"""Reads the envelopes of dead letters that were collected before properties were kept as they came on the wire. Pure.

There a header is JSON: bytes and times in forms of their own, whatever JSON has not as text. Nothing writes these any more.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pika.spec import BasicProperties


def encoded_by(envelope: Mapping[str, Any]) -> bytes:
    """The properties, as on the wire."""
    kept: Mapping[str, Any] = envelope.get("headers", {})
    headers = {name: _sendable(_restored(value)) for name, value in kept.items()}
    return b"".join(BasicProperties(headers=headers, **envelope.get("properties", {})).encode())


def _restored(value: object) -> object:
    match value:
        case {"base64": str(text)}:
            return base64.b64decode(text)
        case {"time": str(text)}:
            return datetime.fromisoformat(text)
        case {"table": dict(table)}:
            return {name: _restored(item) for name, item in table.items()}
        case list():
            return [_restored(item) for item in value]
        case _:
            return value


def _sendable(value: Any) -> Any:
    """What pika cannot write (floating-point numbers, whole ones beyond 64 bits) as text."""
    match value:
        case float():
            return str(value)
        case bool():
            return value
        case int():
            return value if -(2**63) <= value < 2**63 else str(value)
        case list():
            return [_sendable(item) for item in value]
        case dict():
            return {name: _sendable(item) for name, item in value.items()}
        case _:
            return value
