"""pydantic's errors as reason codes and sentences that name the field and its value. It decides no rule of its own."""

from __future__ import annotations

from typing import Any, Final

from pydantic import ValidationError

from incentive_fleet.errors import Malformed
from incentive_fleet.events.document import shown
from incentive_fleet.events.reasons import Reason

# Every type of error that the models can meet, out of pydantic's documented list, and what was needed instead.
_KINDS: Final[dict[str, tuple[Reason, str]]] = {
    "string_type": (Reason.WRONG_TYPE, "a text is needed"),
    "string_unicode": (Reason.LONE_SURROGATE, "a text without lone surrogates is needed"),
    "int_type": (Reason.WRONG_TYPE, "a whole number is needed"),
    "bool_type": (Reason.WRONG_TYPE, "true or false is needed"),
    "tuple_type": (Reason.WRONG_TYPE, "a list is needed"),
    "model_type": (Reason.WRONG_TYPE, "an object is needed"),
    "datetime_type": (Reason.WRONG_TYPE, "a text with an RFC 3339 date-time is needed"),
    "greater_than_equal": (Reason.OUT_OF_BOUNDS, "at least {ge} is needed"),
    "less_than_equal": (Reason.OUT_OF_BOUNDS, "at most {le} is allowed"),
    "string_too_short": (Reason.OUT_OF_BOUNDS, "at least {min_length} code point is needed"),
    "string_too_long": (Reason.OUT_OF_BOUNDS, "at most {max_length} code points are allowed"),
    "too_short": (Reason.OUT_OF_BOUNDS, "at least {min_length} is needed"),
    "too_long": (Reason.OUT_OF_BOUNDS, "at most {max_length} are allowed"),
    "string_pattern_mismatch": (Reason.CONTROL_CHARACTER, "control characters are not allowed"),
    "list_type": (Reason.WRONG_TYPE, "a list is needed"),
    "literal_error": (Reason.OUT_OF_BOUNDS, "{expected} is needed"),
    "extra_forbidden": (Reason.OUT_OF_BOUNDS, "no such field is known"),
}
# The same kinds where the field gives them a reason of their own.
_NARROWER: Final[dict[tuple[str, str], tuple[Reason, str]]] = {
    ("string_pattern_mismatch", "datacontenttype"): (Reason.WRONG_CONTENT_TYPE, "application/json is needed"),
    ("literal_error", "reason"): (Reason.UNKNOWN_REFUND_REASON, "{expected} is needed"),
    ("literal_error", "kind"): (Reason.UNKNOWN_LINE_KIND, "{expected} is needed"),
}
# A kind that a later pydantic brings is refused all the same; a test keeps the table whole for today's.
_UNFORESEEN: Final = (Reason.WRONG_TYPE, "another value is needed")
_CODES: Final = frozenset(Reason)


def from_validation(error: ValidationError, where: str) -> Malformed:
    """The first fault that pydantic found, as a Malformed; `where` is the path of what was validated."""
    first = error.errors(include_url=False)[0]
    path = _path(where, first["loc"])
    found = first["input"]
    kind = first["type"]
    if kind in _CODES:
        # A fault between several fields is found in their owner, whose size says nothing.
        value = f" is {shown(found)}" if isinstance(found, (str, int)) else ""
        return Malformed(Reason(kind), f"{path}{value}: {first['msg']}")
    if kind == "missing":
        return Malformed(Reason.MISSING_FIELD, f"{path} is missing")
    if found is None:
        return Malformed(Reason.NULL_FIELD, f"{path} is null: a value is needed")
    reason, needed = _NARROWER.get((kind, path.rpartition(".")[2])) or _KINDS.get(kind, _UNFORESEEN)
    if kind == "literal_error" and not isinstance(found, str):
        reason = Reason.WRONG_TYPE
    context: dict[str, Any] = first.get("ctx", {})
    return Malformed(reason, f"{path} is {shown(found)}: {needed.format_map(context)}")


def needed_for(fault: Any) -> str:
    """What one of pydantic's faults was in want of, in the words that a detail ends with."""
    kind, context = fault["type"], fault.get("ctx", {})
    if kind in _CODES:
        return str(fault["msg"])
    return _KINDS.get(kind, _UNFORESEEN)[1].format_map(context)


def _path(where: str, steps: tuple[int | str, ...]) -> str:
    path = where
    for step in steps:
        path += f"[{step}]" if isinstance(step, int) else f".{step}" if path else step
    return path
