"""The attributes of a CloudEvent around the data, as rules 2.1 asks for them. The data itself is models.py's."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import BaseModel, BeforeValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from incentive_fleet.errors import Malformed
from incentive_fleet.events.models import WIRE, Text
from incentive_fleet.events.times import ANY_RFC3339_PATTERN, check_any_time

SPECVERSION: Final = "1.0"


def _any_case(word: str) -> str:
    """A pattern for the word in any case of letters; JSON Schema has no flag for it."""
    return "".join(f"[{letter.upper()}{letter}]" if letter.isalpha() else letter for letter in word)


# As RFC 9110 writes media types: white space around the semicolon and nowhere else, a value bare or quoted. The charset
# is the one parameter let through, for many HTTP libraries add it and it changes nothing.
_UTF_8 = _any_case("utf-8")
CONTENT_TYPE_PATTERN: Final = (
    rf"^[ \t]*{_any_case('application')}/(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+\+)?{_any_case('json')}"
    rf'(?:[ \t]*;[ \t]*(?:{_any_case("charset")}=(?:{_UTF_8}|"{_UTF_8}"))?)?[ \t]*$'
)


def _any_time(value: object) -> object:
    try:
        return check_any_time(value) if isinstance(value, str) else value
    except Malformed as refusal:
        raise PydanticCustomError(refusal.reason, "{detail}", {"detail": refusal.detail}) from None


AnyTime = Annotated[
    str,
    BeforeValidator(_any_time),
    WithJsonSchema({"type": "string", "format": "date-time", "pattern": ANY_RFC3339_PATTERN}),
]


class Envelope(BaseModel):
    """The attributes of the CloudEvent beside `data`; others are ignored."""

    model_config = WIRE

    specversion: Literal["1.0"]
    id: Text
    source: Text
    type: Text
    time: AnyTime  # no rule uses it, so it stays as it was written
    subject: Text  # the order id
    datacontenttype: Annotated[str, Field(pattern=CONTENT_TYPE_PATTERN)] | None = None
    traceparent: Text | None = None
