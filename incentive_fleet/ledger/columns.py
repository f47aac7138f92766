"""Columns of a batch's statements as single texts, for a list of Python values costs a function call a value to bind.

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
