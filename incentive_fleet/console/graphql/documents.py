"""Query texts made ready to run, once: parsed, measured, validated. What was asked before is found again by its SHA-256.

So a persisted query (Apollo's automatic ones) is nothing but one that was sent before. A bounded number is kept, those asked
for last; a client whose query is forgotten is told so, and sends its text along once more.
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

from graphql import (
    DocumentNode,
    GraphQLError,
    GraphQLSchema,
    GraphQLSyntaxError,
    OperationDefinitionNode,
    OperationType,
    parse,
    validate,
)

from incentive_fleet.console.graphql.limits import QUERY_CHARACTERS_MAX, TOKENS_MAX, check_size
from incentive_fleet.errors import Refused

KEPT_MAX: Final = 500
CHARACTERS_KEPT_MAX: Final = 512 * 1024  # of all texts; parsed they take fifty times that
FAULTS_MAX: Final = 5  # of one document that are told
NOT_FOUND: Final = "PersistedQueryNotFound"  # the words by which clients know that they have to send the text
_SHA256: Final = re.compile("[0-9a-f]{64}")


class InvalidQuery(Exception):
    """A document that GraphQL itself refuses, with what is wrong."""

    def __init__(self, faults: list[GraphQLError]) -> None:
        super().__init__(faults[0].message)
        self.faults = faults


@dataclass(frozen=True, slots=True)
class Prepared:
    """A valid document."""

    document: DocumentNode
    operations: dict[str, OperationDefinitionNode]  # "" is one without a name
    characters: int

    def operation(self, name: str | None) -> OperationDefinitionNode:
        """The one that is meant. Raises Refused (unknown-operation)."""
        if name is None and len(self.operations) == 1:
            return next(iter(self.operations.values()))
        found = self.operations.get(name or "")
        if found is None:
            known = ", ".join(sorted(self.operations)) or "none"
            raise Refused("unknown-operation", f"operationName is {name!r}: the document has {known}")
        return found


class Documents:
    """Thread-safe."""

    def __init__(self, schema: GraphQLSchema) -> None:
        self._schema = schema
        self._kept: OrderedDict[str, Prepared] = OrderedDict()
        self._characters = 0
        self._lock = threading.Lock()

    def ready(self, query: str | None, extensions: Any) -> Prepared:
        """The document that a request sends or names.

        Raises Refused (malformed, query-too-long, persisted-query-not-found, persisted-query-mismatch, and those of limits.py)
        and InvalidQuery.
        """
        named = _named(extensions)
        if query is None:
            if named is None:
                raise Refused("malformed", "query is missing: it is the GraphQL document")
            return self._found(named) or _not_found()
        if len(query) > QUERY_CHARACTERS_MAX:
            raise Refused(
                "query-too-long", f"query has {len(query)} characters: at most {QUERY_CHARACTERS_MAX} are read"
            )
        digest = sha256(query.encode("utf-8", "surrogatepass")).hexdigest()
        if named is not None and named != digest:
            raise Refused("persisted-query-mismatch", f"sha256Hash is {named!r}: the query's is {digest}")
        return self._found(digest) or self._keep(digest, prepared(self._schema, query))

    def _found(self, digest: str) -> Prepared | None:
        with self._lock:
            found = self._kept.get(digest)
            if found is not None:
                self._kept.move_to_end(digest)
            return found

    def _keep(self, digest: str, one: Prepared) -> Prepared:
        with self._lock:
            if digest not in self._kept:
                self._kept[digest] = one
                self._characters += one.characters
            while len(self._kept) > KEPT_MAX or self._characters > CHARACTERS_KEPT_MAX:
                self._characters -= self._kept.popitem(last=False)[1].characters
        return one


def _named(extensions: Any) -> str | None:
    """The digest by which a request names its query, where it does."""
    if extensions is None:
        return None
    if not isinstance(extensions, dict):
        raise Refused("malformed", "extensions is no object")
    if (persisted := extensions.get("persistedQuery")) is None:
        return None
    digest = persisted.get("sha256Hash") if isinstance(persisted, dict) and persisted.get("version") == 1 else None
    if not isinstance(digest, str) or not _SHA256.fullmatch(digest):
        raise Refused("malformed", "persistedQuery needs version 1 and sha256Hash, 64 hexadecimal digits")
    return digest


def _not_found() -> Prepared:
    raise Refused("persisted-query-not-found", NOT_FOUND)


def prepared(schema: GraphQLSchema, query: str) -> Prepared:
    """The document of a text. Raises InvalidQuery, and Refused as limits.check_size does."""
    try:
        document = parse(query, no_location=False, max_tokens=TOKENS_MAX)
    except GraphQLSyntaxError as error:
        raise InvalidQuery([error]) from None
    except RecursionError:
        raise Refused("too-deep", "the query is nested deeper than anything that is answered") from None
    check_size(document)
    if faults := validate(schema, document, max_errors=FAULTS_MAX):
        raise InvalidQuery(faults)
    operations = {
        node.name.value if node.name else "": node
        for node in document.definitions
        if isinstance(node, OperationDefinitionNode)
    }
    return Prepared(document, operations, len(query))


def is_mutation(operation: OperationDefinitionNode) -> bool:
    """Whether it changes anything."""
    return operation.operation is OperationType.MUTATION
