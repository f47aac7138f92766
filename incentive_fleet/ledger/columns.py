"""A batch's values as single texts, columns for statements and rows for COPY: psycopg's own way is a function call a value.

No text of ours holds a control character (SPEC 2), so the unit separator cannot be part of a value; one that is there all
the same is refused before it could shift a column.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

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
    return [packed(column) for column in columns] if columns else [""] * width


NULL = SEPARATOR  # in rows for COPY; `copy_statement` says so to Postgres


def copy_statement(table: str, columns: str) -> str:
    """The COPY that takes what `copied_rows` makes."""
    return f"COPY {table} ({columns}) FROM STDIN (NULL E'\\x1f')"


def copied_rows(rows: Sequence[str], width: int) -> str:
    """Rows for COPY, each its `width` values as text with tabs between them. Raises ValueError when a value holds a tab or
    the end of a line, which would shift what follows."""
    text = "\n".join(rows)
    if text.count("\t") != len(rows) * (width - 1) or text.count("\n") != len(rows) - 1 or "\r" in text:
        raise ValueError(f"a value holds a tab or the end of a line: {text[:200]!r}")
    return text.replace("\\", "\\\\") + "\n"
