"""The scalars that GraphQL lacks: amounts and numbers of 64 bits, times, and documents whose members are not ours to list.

Amounts are JSON integers, as in the events and on the command line, not texts: JSON bounds no integer. A client whose numbers
are doubles reads amounts of more than 2^53 - 1 with a parser that keeps them.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, Final, NewType

import strawberry
from graphql import GraphQLError, IntValueNode, StringValueNode, ValueNode
from strawberry.schema.config import StrawberryConfig
from strawberry.types.scalar import ScalarDefinition, scalar

from incentive_fleet.errors import Malformed
from incentive_fleet.events.times import format_time, parse_time

DIGITS_MAX: Final = 19  # of 2^63 - 1
BOUND: Final = 2**63

MinorUnits = NewType("MinorUnits", int)
Long = NewType("Long", int)
Time = NewType("Time", str)
Document = NewType("Document", object)


def _whole(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not -BOUND <= value < BOUND:
        raise GraphQLError(f"{value!r:.50} is no whole number of 64 bits")
    return value


def _whole_literal(node: ValueNode, _variables: dict[str, Any] | None = None) -> int:
    if not isinstance(node, IntValueNode) or len(node.value) > DIGITS_MAX + 1:
        raise GraphQLError("a whole number of 64 bits is needed", node)
    return _whole(int(node.value))


def _told(value: Any) -> str:
    return format_time(value) if isinstance(value, datetime) else str(value)


def _moment(value: Any) -> datetime:
    if not isinstance(value, str):
        raise GraphQLError(f"{value!r:.50} is no RFC 3339 time")
    try:
        return parse_time(value)
    except Malformed as error:
        raise GraphQLError(error.detail) from None


def _moment_literal(node: ValueNode, _variables: dict[str, Any] | None = None) -> datetime:
    if not isinstance(node, StringValueNode):
        raise GraphQLError("an RFC 3339 time is needed, as a text", node)
    return _moment(node.value)


def _of_64_bits(name: str, description: str) -> ScalarDefinition:
    return scalar(
        name=name,
        description=description,
        serialize=int,
        parse_value=_whole,
        parse_literal=_whole_literal,
    )


SCALARS: Final[dict[object, ScalarDefinition]] = {
    MinorUnits: _of_64_bits(
        "MinorUnits",
        "An amount in the currency's minor units: a JSON integer, in answers and in variables, of up to 64 bits.",
    ),
    Long: _of_64_bits("Long", "A whole number of up to 64 bits, as a JSON integer."),
    Time: scalar(
        name="Time",
        description="An RFC 3339 time: with any offset in what is asked, in UTC in what is answered.",
        serialize=_told,
        parse_value=_moment,
        parse_literal=_moment_literal,
    ),
    Document: scalar(
        name="JSON", description="A JSON value whose members are not ours to list: an event's, a campaign's, a trail's."
    ),
}


def shows(type_: Any) -> Callable[[Callable[..., Any]], Any]:
    """Makes a resolver the field of a type: it returns what the reads give, which is not that type but has its members."""

    def field(resolver: Callable[..., Any]) -> Any:
        return strawberry.field(resolver=resolver, graphql_type=type_)

    return field


def member(source: Any, name: str) -> Any:
    """A field's value where no resolver says otherwise: the reads give dataclasses and, for what is kept as JSON, dictionaries."""
    return source.get(name) if isinstance(source, dict) else getattr(source, name)


CONFIG: Final = StrawberryConfig(default_resolver=member, scalar_map=SCALARS)
