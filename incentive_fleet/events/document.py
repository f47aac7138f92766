"""Bytes to a JSON object, stricter than RFC 8259 asks of parsers: UTF-8 without a mark, no repeated names, no NaN, no
lone surrogates, at most 64 deep. It knows JSON alone, nothing of events, and raises nothing but Malformed.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final, NoReturn

from incentive_fleet.errors import Malformed
from incentive_fleet.events.reasons import Reason

# RabbitMQ 4 carries messages of up to 16 MiB by default (`max_message_size`), SNS and SQS up to 1 MiB since 2025. An
# order of 2,000 lines in which every code point is an escaped surrogate pair comes to 14 MiB, so no broker's default
# carries a valid event that this refuses.
BODY_BYTES_MAX: Final = 16 * 1024 * 1024
# An event needs 4, unknown fields may need more. The bound is well below what Python's own parser can bear, so that the
# answer does not depend on how deep the caller's stack is.
DEPTH_MAX: Final = 64
# Members and elements of a document, names apart. The largest event of ours, a refund of 10,000 lines, has 50,000. A parser
# makes up to 300 bytes of each, so a body of nothing but brackets would take forty times its size.
VALUES_MAX: Final = 200_000
BYTE_ORDER_MARK: Final = "\ufeff"
SHOWN_MAX: Final = 80  # code points of an offending value in a detail

# A text, taken whole, or a mark that begins, parts or ends values.
_MARK: Final = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[\[\]{},]', re.DOTALL)
_ESCAPED_SURROGATE = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"  # a pair, which is one character
    r"|\\u(?P<lone>[dD][89a-fA-F][0-9a-fA-F]{2})"
    r"|\\."  # any other escape, taken whole so that an escaped backslash does not begin one
)


def parse_object(text: str) -> dict[str, Any] | None:
    """The object that the text holds, or None when it is a JSON document of another kind. Raises Malformed."""
    document = parse_json(text)
    return document if type(document) is dict else None


def parse_json(text: str) -> object:
    """The JSON document that the text holds. Raises Malformed."""
    refuse_many(text)
    document = _load(text)
    if "\\u" in text:
        _refuse_lone_surrogates(text)
    if text.count("[") + text.count("{") > DEPTH_MAX:
        _refuse_deep(document)
    return document


def _load(text: str, decoder: json.JSONDecoder | None = None) -> object:
    try:
        return (decoder or _DECODER).decode(text)
    except json.JSONDecodeError as error:
        if text.startswith(BYTE_ORDER_MARK):
            raise Malformed(Reason.NOT_JSON, "a byte order mark stands before it: send it without one") from None
        raise Malformed(Reason.NOT_JSON, f"{error.msg} at line {error.lineno}, column {error.colno}") from None
    except RecursionError:
        raise _too_deep() from None
    except ValueError:
        # Python refuses to read integers of more than 4,300 digits. An unknown field may hold one, a known one may not.
        return _load(text, _SHORTENING_DECODER)


def refuse_large(size: int, most: int = BODY_BYTES_MAX) -> None:
    """Raises Malformed (too-large) for a body of more bytes."""
    if size > most:
        raise Malformed(Reason.TOO_LARGE, f"the body has {size} bytes, more than {most}")


def refuse_many(text: str) -> None:
    """Raises Malformed (too-many-values, too-deep). Costs nothing for a text of ordinary size, and little for a large one,
    unless its strings are full of commas."""
    if len(text) <= VALUES_MAX or sum(map(text.count, "[{,")) <= VALUES_MAX:
        return
    values = depth = 0
    for match in _MARK.finditer(text):
        mark = text[match.start()]
        depth += (mark in "[{") - (mark in "]}")
        values += mark in "[{,"
        if depth > DEPTH_MAX:
            raise _too_deep()
        if values > VALUES_MAX:
            raise Malformed(Reason.TOO_MANY_VALUES, f"the document holds more than {VALUES_MAX} values")


def decode_text(body: bytes) -> str:
    """The body's text; raises Malformed (too-large, not-utf8)."""
    refuse_large(len(body))
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Malformed(Reason.NOT_UTF8, f"{error.reason} at byte {error.start} (0x{body[error.start]:02x})") from None


def shown(value: object) -> str:
    """A value as a detail shows it: printable, on one line, of bounded length; lists and objects by their size."""
    match value:
        case str():
            cut = value[:SHOWN_MAX]
            return repr(cut) + (f"... ({len(value)} code points)" if len(value) > len(cut) else "")
        case bool() | None:
            return json.dumps(value)
        case int():
            return str(value) if value.bit_length() <= 128 else f"a number of {value.bit_length()} bits"
        case float():
            return repr(value)
        case dict():
            return f"an object of {len(value)} fields"
        case list() | tuple():
            return f"a list of {len(value)}"
        case _:
            return type(value).__name__


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise Malformed(Reason.REPEATED_NAME, f"an object holds the name {shown(name)} twice")
            seen.add(name)
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise Malformed(Reason.NOT_FINITE, f"{name} is not JSON")


def _shortened(digits: str) -> int:
    # Forty digits are out of every bound that a field of ours has, as the whole number would be.
    return int(digits[:40])


def _refuse_lone_surrogates(text: str) -> None:
    for match in _ESCAPED_SURROGATE.finditer(text):
        if match["lone"]:
            raise Malformed(
                Reason.LONE_SURROGATE, f"the escape \\u{match['lone']} at character {match.start()} is half of a pair"
            )


def _refuse_deep(document: object) -> None:
    level = [document] if isinstance(document, (dict, list)) else []
    for _ in range(DEPTH_MAX):
        children = (child for parent in level for child in (parent.values() if isinstance(parent, dict) else parent))
        level = [child for child in children if isinstance(child, (dict, list))]
        if not level:
            return
    raise _too_deep()


def _too_deep() -> Malformed:
    return Malformed(Reason.TOO_DEEP, f"arrays and objects are nested more than {DEPTH_MAX} deep")


# Made once: json.loads makes a decoder anew for every call that has hooks.
_DECODER: Final = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse_constant)
_SHORTENING_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_unique, parse_constant=_refuse_constant, parse_int=_shortened
)
