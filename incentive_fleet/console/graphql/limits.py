"""What a document may ask for, known before any of it runs: how deep, how many fields, and how much the answer could hold.

The cost of a query is the number of fields that its answer could have: of a page as many elements as it may have, of any other
list five. Whatever walks a document here ends at the limits, however its fragments are nested.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLField,
    GraphQLInterfaceType,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLSchema,
    InlineFragmentNode,
    IntValueNode,
    OperationDefinitionNode,
    SelectionSetNode,
    VariableNode,
    get_named_type,
)

from incentive_fleet.console.graphql.cursors import FIRST, FIRST_MAX
from incentive_fleet.errors import Refused

QUERY_CHARACTERS_MAX: Final = 32_768
TOKENS_MAX: Final = 4_000
FIELDS_MAX: Final = 500  # written in a document; validation compares each with each
ALIASES_MAX: Final = 30
DEPTH_MAX: Final = 15
COST_MAX: Final = 20_000
LISTED: Final = 5  # elements that a list without pages counts as
INTROSPECTION: Final = 8_000  # what asking for the schema counts as, which graphql-core bounds in its own way


@dataclass(slots=True)
class _Walk:
    """Over one operation with its fragments."""

    schema: GraphQLSchema
    fragments: dict[str, FragmentDefinitionNode]
    variables: Mapping[str, Any]
    defaults: Mapping[str, Any]  # of variables that were not given
    steps: int = 0

    def cost(
        self, within: GraphQLObjectType | GraphQLInterfaceType, selections: SelectionSetNode, page: int, depth: int
    ) -> int:
        """Of the selections on one object."""
        if depth > DEPTH_MAX:
            raise Refused("too-deep", f"the query is more than {DEPTH_MAX} fields deep")
        total = 0
        for node in selections.selections:
            self.steps += 1
            if self.steps > COST_MAX:
                raise too_costly(f"more than {COST_MAX}")
            match node:
                case FieldNode():
                    total += self._field(within, node, page, depth)
                case InlineFragmentNode():
                    total += self.cost(within, node.selection_set, page, depth)
                case FragmentSpreadNode():
                    fragment = self.fragments[node.name.value]
                    total += self.cost(within, fragment.selection_set, page, depth)
        return total

    def _field(self, within: GraphQLObjectType | GraphQLInterfaceType, node: FieldNode, page: int, depth: int) -> int:
        name = node.name.value
        if name in ("__schema", "__type"):
            return INTROSPECTION
        if node.selection_set is None or (field := within.fields.get(name)) is None:
            return 1
        inner = get_named_type(field.type)
        assert isinstance(inner, GraphQLObjectType | GraphQLInterfaceType)
        below = self._page(node) if "first" in field.args else 0
        times = 1 if not _is_list(field) else page if name == "edges" and page else LISTED
        return 1 + times * self.cost(inner, node.selection_set, below, depth + 1)

    def _page(self, node: FieldNode) -> int:
        """How many elements the page may have. What is no number now is the most, whatever becomes of it: 200.0 is 200."""
        given: Any = next((argument.value for argument in node.arguments or () if argument.name.value == "first"), None)
        if isinstance(given, VariableNode):
            name = given.name.value
            given = self.variables[name] if name in self.variables else self.defaults.get(name)
        if given is None:
            return FIRST
        value = int(given.value[:19]) if isinstance(given, IntValueNode) else given
        return max(1, value) if type(value) is int else FIRST_MAX


def _is_list(field: GraphQLField) -> bool:
    type_ = field.type.of_type if isinstance(field.type, GraphQLNonNull) else field.type
    return isinstance(type_, GraphQLList)


def too_costly(found: object) -> Refused:
    """The refusal of a query that could answer with too much."""
    return Refused(
        "too-costly", f"the query's cost is {found}, and at most {COST_MAX} is answered: ask for shorter pages"
    )


def cost_of(
    schema: GraphQLSchema, document: DocumentNode, operation: OperationDefinitionNode, variables: Mapping[str, Any]
) -> int:
    """What the operation of a valid document could answer with. Raises Refused (too-deep, too-costly)."""
    fragments = {node.name.value: node for node in document.definitions if isinstance(node, FragmentDefinitionNode)}
    root = schema.get_root_type(operation.operation)
    assert root is not None
    defaults = {one.variable.name.value: one.default_value for one in operation.variable_definitions or ()}
    cost = _Walk(schema, fragments, variables, defaults).cost(root, operation.selection_set, 0, 1)
    if cost > COST_MAX:
        raise too_costly(cost)
    return cost


def check_size(document: DocumentNode) -> None:
    """Before validation, whose time grows with the square of the fields. Raises Refused (too-many-fields, too-deep)."""
    fields = aliases = 0
    for node in _nodes(document):
        if isinstance(node, FieldNode):
            fields += 1
            aliases += node.alias is not None
    if fields > FIELDS_MAX:
        raise Refused("too-many-fields", f"the document has {fields} fields: at most {FIELDS_MAX} are read")
    if aliases > ALIASES_MAX:
        raise Refused("too-many-aliases", f"the document has {aliases} aliases: at most {ALIASES_MAX} are read")


def _nodes(document: DocumentNode) -> Iterator[Any]:
    """Every selection as it is written, and no deeper than may be asked for."""
    below = [
        (definition.selection_set, 1)
        for definition in document.definitions
        if isinstance(definition, OperationDefinitionNode | FragmentDefinitionNode)
    ]
    while below:
        selections, depth = below.pop()
        if depth > 2 * DEPTH_MAX:  # inline fragments are no fields
            raise Refused("too-deep", f"the query is more than {DEPTH_MAX} fields deep")
        for node in selections.selections:
            yield node
            inner = getattr(node, "selection_set", None)
            if inner is not None:
                below.append((inner, depth + 1))
