"""`data_base64`, in which libraries write an event's data that take data for bytes. It knows JSON and base64, no event."""

from __future__ import annotations

import binascii
from typing import Any

from incentive_fleet.errors import Malformed
from incentive_fleet.events.document import decode_text, parse_json, shown
from incentive_fleet.events.reasons import Reason


def opened(document: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """The CloudEvent with what its `data_base64` holds as `data` in its place, and the text that was held.

    Raises Malformed when `data` is there as well, or the text is no base64 of RFC 4648 or holds no JSON.
    """
    encoded = document["data_base64"]
    if "data" in document:
        raise Malformed(Reason.DATA_TWICE, "data and data_base64 are both there: one of them is needed")
    if not isinstance(encoded, str):
        reason = Reason.NULL_FIELD if encoded is None else Reason.WRONG_TYPE
        raise Malformed(reason, f"data_base64 is {shown(encoded)}: a text in base64 is needed")
    try:
        held = binascii.a2b_base64(encoded, strict_mode=True)
    except ValueError as error:  # binascii.Error is one; a text beyond ASCII is the other
        raise Malformed(Reason.BAD_BASE64, f"data_base64 is {shown(encoded)}: {error}") from None
    try:
        text = decode_text(held)
        data = parse_json(text)
    except Malformed as refusal:
        raise Malformed(refusal.reason, f"what data_base64 holds: {refusal.detail}") from None
    return {name: value for name, value in document.items() if name != "data_base64"} | {"data": data}, text


def with_data(document: dict[str, Any]) -> dict[str, Any]:
    """As `opened`; as it is when there is no `data_base64` or it cannot be read. Never raises."""
    try:
        return opened(document)[0] if "data_base64" in document else document
    except Malformed:
        return document
