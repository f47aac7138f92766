"""A batch's values as single texts, columns for statements and rows for COPY: psycopg's own way is a function call a value.

No text of ours holds a control character (SPEC 2), so the unit separator cannot be part of a value; one that is there all
the same is refused before it could shift a column.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

SEPARATOR = "\x1f"


def unpacked(type_: str = "text") -> str:
    """The SQL expression that turns a packed parameter back into an array of `type_`."""
    array = "string_to_array(%s, E'\\x1f')"
    return array if type_ == "text" else f"{array}::{type_}[]"


def packed(values: Sequence[object]) -> str:
    """One parameter for `unpacked`. Raises ValueError when a value holds the separator."""
    text = SEPARATOR.join(map(str, values))
    if values and text.count(SEPARATOR) != len(values) - 1:
        raise ValueError(f"a value holds the control character U+001F: {text[:200]!r}")
    return text


def packed_columns(rows: Iterable[Sequence[object]], width: int) -> list[str]:
    """Rows as one packed parameter a column; `width` of them also when there are no rows."""
    columns: list[Sequence[object]] = list(zip(*rows, strict=True))
    if columns and len(columns) != width:
        raise ValueError(f"{len(columns)} values in a row of {width}: {columns!r:.200}")
    return [packed(column) for column in columns] if columns else [""] * width


NULL = "\x1e"  # in rows


@dataclass(frozen=True, slots=True)
class Table:
    """Where rows go, by COPY or by an INSERT that reads them from one packed parameter a column.

    A COPY takes two round trips to itself and costs Postgres least; INSERTs of a few rows go out together.
    """

    copy: str
    insert: str
    width: int

    @classmethod
    def of(cls, name: str, columns: str) -> Table:
        """`columns` as in CREATE TABLE: names with their types."""
        pairs = [column.split() for column in columns.split(",")]
        names = ", ".join(column for column, _ in pairs)
        values = ", ".join(f"string_to_array(%s, E'\\x1f', E'\\x1e')::{type_}[]" for _, type_ in pairs)
        return cls(
            copy=f"COPY {name} ({names}) FROM STDIN (NULL E'\\x1e')",
            insert=f"INSERT INTO {name} ({names}) SELECT * FROM unnest({values})",
            width=len(pairs),
        )

    def copied(self, rows: Sequence[str]) -> str:
        """What COPY reads: the rows, each its values as text with tabs between them and NULL for None.

        Raises ValueError when a value holds a tab or the end of a line, which would shift what follows.
        """
        text = "\n".join(rows)
        if text.count("\t") != len(rows) * (self.width - 1) or text.count("\n") != len(rows) - 1 or "\r" in text:
            raise ValueError(f"a value holds a tab or the end of a line: {text[:200]!r}")
        return text.replace("\\", "\\\\") + "\n"

    def inserted(self, rows: Sequence[str]) -> list[str]:
        """The parameters of the INSERT for the same rows. Raises ValueError for a tab in a value."""
        return packed_columns([row.split("\t") for row in rows], self.width)
