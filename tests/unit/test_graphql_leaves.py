"""A leaf that is only read is what graphql-core itself makes of it, whatever was read."""

from __future__ import annotations

from typing import Any

import pytest
from graphql import (
    GraphQLBoolean,
    GraphQLField,
    GraphQLFloat,
    GraphQLInt,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLSchema,
    GraphQLString,
    execute,
    parse,
)

from incentive_fleet.console.graphql.executing import PLAIN, PlainExecutor, mark_plain
from incentive_fleet.console.graphql.schema import executable

LEAVES = (GraphQLInt, GraphQLString, GraphQLBoolean, GraphQLFloat)
VALUES = (0, 7, 2**40, True, 1.5, float("nan"), "", "text", None, [1], object(), ValueError("not read"))


@pytest.mark.parametrize("of_type", [*LEAVES, *map(GraphQLNonNull, LEAVES), GraphQLList(GraphQLInt)], ids=str)
@pytest.mark.parametrize("value", VALUES, ids=lambda value: "object" if type(value) is object else repr(value))
def test_a_leaf_is_what_graphql_core_makes_of_it(of_type: Any, value: object) -> None:
    field = GraphQLField(of_type, resolve=lambda source, _info: source["read"])
    mark_plain(field, "read")
    schema = GraphQLSchema(GraphQLObjectType("Query", {"told": field}))
    ours, theirs = (
        execute(schema, parse("{ told, again: told, __typename }"), {"read": value}, executor_class=one)
        for one in (PlainExecutor, None)
    )
    assert ours == theirs


def test_most_fields_of_the_schema_are_only_read() -> None:
    transfer = executable().type_map["Transfer"]
    assert isinstance(transfer, GraphQLObjectType)
    assert {name for name, field in transfer.fields.items() if PLAIN not in field.extensions} == {"order"}
