"""The attributes of a CloudEvent around the data, as SPEC 2 asks for them. The data itself is models.py's."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import BaseModel, Field

from incentive_fleet.events.models import WIRE, Text, UtcTime

SPECVERSION: Final = "1.0"
CONTENT_TYPE_PATTERN: Final = (
    r"^[Aa][Pp][Pp][Ll][Ii][Cc][Aa][Tt][Ii][Oo][Nn]/[Jj][Ss][Oo][Nn]"
    r'(?:[ \t]*;[ \t]*[Cc][Hh][Aa][Rr][Ss][Ee][Tt]=(?:[Uu][Tt][Ff]-8|"[Uu][Tt][Ff]-8"))?$'
)


class Envelope(BaseModel):
    """The attributes of the CloudEvent beside `data`; others are ignored."""

    model_config = WIRE

    specversion: Literal["1.0"]
    id: Text
    source: Text
    type: Text
    time: UtcTime
    subject: Text  # the order id
    datacontenttype: Annotated[str, Field(pattern=CONTENT_TYPE_PATTERN)] | None = None
    traceparent: Text | None = None
