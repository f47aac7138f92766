"""W3C Trace Context's `traceparent`: which trace a message belongs to. Pure; what cannot be read is no trace, never an error."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

# https://www.w3.org/TR/trace-context/#traceparent-header; later versions may append fields, version ff is none.
_FORM: Final = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-[!-~]{0,150})?"
)
NAME: Final = "traceparent"  # of the CloudEvents extension, the message attribute and the AMQP header


class TraceParent(NamedTuple):
    """The trace, the span that is the parent in it, and whether its beginning is recorded."""

    trace_id: str  # 32 hexadecimal digits
    span_id: str  # 16
    sampled: bool


def read_traceparent(text: str | None) -> TraceParent | None:
    """None where there is none, or none that the standard knows."""
    found = _FORM.fullmatch(text) if text else None
    if found is None or (found[4] and text is not None and text.startswith("00")):
        return None
    return TraceParent(found[1], found[2], bool(int(found[3], 16) & 1))


def trace_id_of(text: str | None) -> str | None:
    """The trace's id, to look it up by."""
    found = read_traceparent(text)
    return found.trace_id if found else None
