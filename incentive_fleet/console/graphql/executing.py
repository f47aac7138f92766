"""Executes a document as graphql-core does, but for the many fields that are a leaf and a member of what was read: it only reads
those.

What is null where it must not be, or no value of its type, goes graphql-core's whole way, which knows what to tell. And an
execution that has ended leaves nothing that refers to itself, for looking for such garbage holds up whoever asks meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from graphql import GraphQLEnumType, GraphQLField, GraphQLNonNull, GraphQLObjectType, GraphQLScalarType
from graphql.execution import Executor

from incentive_fleet.console.graphql.scalars import member

PLAIN: Final = "plain"  # among a field's extensions


@dataclass(frozen=True, slots=True)
class _Plain:
    """How a leaf is read."""

    name: str
    value_of: Callable[[Any], Any]
    may_be_null: bool


def mark_plain(field: GraphQLField, name: str) -> None:
    """Say that a field without arguments is nothing but that member, if it is a leaf."""
    of_type = field.type
    leaf = of_type.of_type if isinstance(of_type, GraphQLNonNull) else of_type
    if isinstance(leaf, GraphQLScalarType | GraphQLEnumType) and not field.args:
        field.extensions[PLAIN] = _Plain(name, leaf.coerce_output_value, may_be_null=leaf is of_type)


class PlainExecutor(Executor[None]):
    """Of one execution."""

    def execute_field(
        self, parent_type: GraphQLObjectType, source: Any, field_details_list: Any, path: Any, position_context: None
    ) -> Any:
        """As graphql-core's."""
        field = parent_type.fields.get(field_details_list[0].node.name.value)
        plain: _Plain | None = None if field is None else field.extensions.get(PLAIN)
        if plain is not None:
            found = member(source, plain.name)
            if found is None and plain.may_be_null:
                return None
            with suppress(Exception):  # the whole way comes by it again
                return plain.value_of(found)
        return super().execute_field(parent_type, source, field_details_list, path, position_context)

    def build_response(self, data: dict[str, Any] | None) -> Any:
        """As graphql-core's, when all is resolved: its helpers refer to the executor, which holds all that was collected."""
        del self.async_helpers
        return super().build_response(data)
