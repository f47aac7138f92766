"""Editing a body: as text for an editor, or by fields. Pure: it validates by the one codec and saves nothing."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, assert_never

from incentive_fleet.errors import Malformed, Refused
from incentive_fleet.events.data_base64 import with_data
from incentive_fleet.events.document import decode_text, parse_object, shown

STEP: Final = re.compile(r"([^.\[\]]+)|\[(\d{1,6})\]")
PATH: Final = re.compile(r"[^.\[\]]+(?:\[\d{1,6}\]|\.[^.\[\]]+)*")


@dataclass(frozen=True, slots=True)
class Assignment:
    """One `--set path=value`, `--append path=value` or `--unset path`."""

    path: str  # data.lines[0].quantity
    value: object = None
    kind: Literal["set", "append", "unset"] = "set"


def parse_assignment(text: str, kind: Literal["set", "append"] = "set") -> Assignment:
    """`data.currency=GBP`: the value is JSON where it parses as JSON, else it is that text.

    Raises Refused (bad-assignment).
    """
    path, equals, value = text.partition("=")
    if not equals:
        raise Refused("bad-assignment", f"{text!r} has no '=': write data.currency=GBP")
    return assignment_of(path, value, kind)


def assignment_of(path: str, value: str, kind: Literal["set", "append"] = "set") -> Assignment:
    """The same from its two halves. Raises Refused (bad-assignment)."""
    _steps(path)
    return Assignment(path, _typed(value), kind)


def parse_removal(path: str) -> Assignment:
    """The field to be taken out. Raises Refused (bad-assignment)."""
    _steps(path)
    return Assignment(path, kind="unset")


def editable(body: bytes) -> str:
    """The text that a person edits: the event itself, without its SNS envelope, its data never in base64, indented where it
    is clean JSON.

    What is not UTF-8 shows U+FFFD; what is not clean JSON stays as it came, for indenting would hide what is wrong.
    """
    try:
        text = decode_text(body)
        document = parse_object(text)
        inner = _unwrapped(document)
        document = inner if inner is not None else document
    except Malformed:
        return body.decode("utf-8", "replace")
    return text if document is None else _indented(with_data(document))


def assign(body: bytes, assignments: Sequence[Assignment]) -> bytes:
    """The event with the fields set. Raises Refused (no-fields, no-such-place) when it has no such places."""
    try:
        document = parse_object(decode_text(body))
        inner = _unwrapped(document)
    except Malformed as error:
        raise Refused(
            "no-fields", f"the body has no fields to set ({error.reason}: {error.detail}); edit it as text"
        ) from None
    document = inner if inner is not None else document
    if document is None:
        raise Refused("no-fields", "the body is not a JSON object; edit it as text")
    document = with_data(document)
    for assignment in assignments:
        _assign(document, assignment)
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def difference(before: bytes, after: bytes, label: str) -> list[str]:
    """A unified diff of the two as people edit them; empty when nothing differs there."""
    old, new = (editable(body).splitlines() for body in (before, after))
    return list(difflib.unified_diff(old, new, f"{label} before", f"{label} after", lineterm="", n=3))


def _unwrapped(document: dict[str, Any] | None) -> dict[str, Any] | None:
    """The event inside an SNS notification; None when the document is not one."""
    if document is None or "specversion" in document or document.get("Type") != "Notification":
        return None
    message = document.get("Message")
    return parse_object(message) if isinstance(message, str) else None


def _indented(document: dict[str, Any]) -> str:
    return json.dumps(document, ensure_ascii=False, indent=2) + "\n"


def _typed(text: str) -> object:
    try:
        # Through an object, so that the strict reader refuses in a value what it refuses in a body.
        document = parse_object(f'{{"value":{text}}}')
    except Malformed:
        return text
    return document["value"] if document is not None and list(document) == ["value"] else text


def _steps(path: str) -> list[str | int]:
    if not PATH.fullmatch(path):
        raise Refused("bad-assignment", f"{path!r} is not a path like data.currency or data.lines[0].quantity")
    return [int(index) if index else name for name, index in STEP.findall(path)]


def _assign(document: dict[str, Any], assignment: Assignment) -> None:
    *way, last = _steps(assignment.path)
    place: Any = document
    for step in way:
        place = _inside(place, step, assignment.path)
    exists = 0 <= last < len(place) if isinstance(place, list) and isinstance(last, int) else False
    if isinstance(place, dict) and isinstance(last, str):
        exists = last in place
    elif not exists:
        raise Refused("no-such-place", f"{assignment.path}: {shown(place)} has no {last!r}")
    match assignment.kind:
        case "set":
            place[last] = assignment.value
        case "append":
            _append(place, last, exists, assignment)
        case "unset":
            if not exists:
                raise Refused("no-such-place", f"{assignment.path}: there is nothing to remove")
            del place[last]
        case _:
            assert_never(assignment.kind)


def _append(place: Any, last: str | int, exists: bool, assignment: Assignment) -> None:
    """To the list that is there; a list that may be left out is made."""
    items = place[last] if exists else []
    if not isinstance(items, list):
        raise Refused("no-such-place", f"{assignment.path}: {shown(items)} is no list")
    place[last] = [*items, assignment.value]


def _inside(place: Any, step: str | int, path: str) -> Any:
    fits = (isinstance(place, dict) and step in place) or (
        isinstance(place, list) and isinstance(step, int) and step < len(place)
    )
    if not fits:
        raise Refused("no-such-place", f"{path}: {shown(place)} has no {step!r}")
    return place[step]
