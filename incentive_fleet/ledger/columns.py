"""A batch's values as single texts, columns for statements and rows for COPY: psycopg's own way is a function call a value.

A row is a NamedTuple whose fields are named as the table's columns, so no value can stand in another's place. No text of
ours holds a control character (rules 2.1), so the separators cannot be part of a value; one that is there all the same is
refused before it could shift a column.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import NoneType
from typing import Annotated, Any, Final, NamedTuple, get_args, get_origin, get_type_hints

from incentive_fleet.events.times import format_time

SEPARATOR: Final = "\x1f"
NULL: Final = "\x1e"

Int = Annotated[int, "int"]  # where the column is no bigint
Json = Annotated[str, "json"]
Bytea = Annotated[str, "bytea"]  # written as \x and hexadecimal digits

_SQL_TYPES: Final[dict[object, str]] = {str: "text", int: "bigint", datetime: "timestamptz", bool: "boolean"}


def unpacked(type_: str = "text") -> str:
    """The SQL expression that turns a packed parameter back into an array of `type_`."""
    # Each value has its separator before it, for of an empty text alone string_to_array makes no element.
    return f"(string_to_array(%s, E'\\x1f', E'\\x1e'))[2:]::{type_}[]"


def unpacked_rows(row: type[NamedTuple]) -> str:
    """The SQL of a table `k` with the row's columns, to stand after FROM or USING; `packed_rows` gives its parameters."""
    types = sql_types(row)
    return f"unnest({', '.join(map(unpacked, types.values()))}) AS k ({', '.join(types)})"


def sql_types(row: type[NamedTuple]) -> dict[str, str]:
    """The columns of a row and their SQL types, in the row's order."""
    return {name: _sql_type(hint) for name, hint in get_type_hints(row, include_extras=True).items()}


def _sql_type(hint: object) -> str:
    known = [one for one in get_args(hint) if one is not NoneType] if NoneType in get_args(hint) else [hint]
    if get_origin(known[0]) is Annotated:
        return str(get_args(known[0])[1])
    return _SQL_TYPES[known[0]]


def packed(values: Sequence[object]) -> str:
    """One parameter for `unpacked`. Raises ValueError when a value holds the separator."""
    text = SEPARATOR + SEPARATOR.join([v if v.__class__ is str else _text(v) for v in values]) if values else ""
    if text.count(SEPARATOR) != len(values):
        raise ValueError(f"a value holds the control character U+001F: {text[:200]!r}")
    return text


def packed_rows(rows: Iterable[Sequence[object]]) -> list[str]:
    """At least one row, as one packed parameter a column."""
    return [packed(column) for column in zip(*rows, strict=True)]


def _text(value: object) -> str:
    if value is None:
        return NULL
    return format_time(value) if isinstance(value, datetime) else str(value)


@dataclass(frozen=True, slots=True)
class Table:
    """Where rows go, by COPY or by an INSERT that reads them from one packed parameter a column.

    A COPY takes two round trips to itself and costs Postgres least; INSERTs of a few rows go out together.
    """

    copy: str
    insert: str
    width: int

    @classmethod
    def of(cls, name: str, row: type[NamedTuple]) -> Table:
        """The table whose columns the row's fields are named after; others have defaults."""
        names = ", ".join(sql_types(row))
        return cls(
            copy=f"COPY {name} ({names}) FROM STDIN (NULL E'\\x1e')",
            insert=f"INSERT INTO {name} ({names}) SELECT * FROM {unpacked_rows(row)}",
            width=len(sql_types(row)),
        )

    def copied(self, rows: Sequence[tuple[Any, ...]]) -> str:
        """What COPY reads: the rows, each its values as text with tabs between them and NULL for None.

        Raises ValueError when a value holds a tab or the end of a line, which would shift what follows.
        """
        # Written out for each row and not called for each value: there are dozens of values to an event.
        texts = [
            [
                v if (of := v.__class__) is str else NULL if v is None else format_time(v) if of is datetime else str(v)
                for v in row
            ]
            for row in rows
        ]
        held = "".join(map("".join, texts))
        if "\t" in held or "\n" in held or "\r" in held:
            shifting = next(v for row in texts for v in row if not {"\t", "\n", "\r"}.isdisjoint(v))
            raise ValueError(f"a value holds a tab or the end of a line: {shifting[:200]!r}")
        if set(map(len, rows)) != {self.width}:
            raise ValueError(f"a row has not {self.width} values")
        text = "\n".join(["\t".join(row) for row in texts] + [""])
        return text.replace("\\", "\\\\") if "\\" in text else text  # to look for one costs a tenth of counting them
