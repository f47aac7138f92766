"""Lays rows out as lines that fit the screen. What a filter takes is never cut: it can be copied whole. Pure.

Columns stand side by side where nine cells of ten of each fit; a cell that is wider than its column pushes the rest of
its row to the next line. Where columns do not fit, each row is a block of `name: value`. More than 1,000 rows that would
be blocks are one plain line each. A single cell that is wider than the screen stands alone on its line, unbroken.
"""

from __future__ import annotations

import shutil
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

ROWS_LAID_OUT_MAX: Final = 1_000  # as blocks; beyond, nobody reads them and programs want a line a row
DEFAULT_WIDTH, LEAST_WIDTH = 80, 40
GAP, INDENT = "  ", "    "
PROSE_MAX: Final = 400  # characters of a free text in a list; `show` commands and JSON have all of it
PROSE_LEAST: Final = 24  # columns that a free text needs beside others


@dataclass(frozen=True, slots=True)
class Column:
    """A heading; `right` for numbers, `prose` for free text, which no filter takes whole and which may be folded, `cut` for
    what ends with its line, for JSON has the whole and something shorter names it."""

    name: str
    right: bool = False
    prose: bool = False
    cut: bool = False


def screen_width() -> int:
    """Columns of the terminal, or of COLUMNS where it is set; 80 in a pipe, where there is neither."""
    return max(LEAST_WIDTH, shutil.get_terminal_size((DEFAULT_WIDTH, 24)).columns)


def columns_of(text: str) -> int:
    """Columns that a terminal gives to a text: two for wide characters, none for accents put on the one before."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.category(one) in ("Mn", "Me") else 2 if unicodedata.east_asian_width(one) in "WF" else 1
        for one in text
    )


def fold(text: str, width: int, indent: str = INDENT) -> list[str]:
    """The text in lines of `width` columns, broken at blanks alone; later lines are indented."""
    lines: list[str] = []
    line, *words = text.split(" ")
    for word in words:
        if line.strip() and columns_of(line) + 1 + columns_of(word) > width:
            lines.append(line)
            line = indent + word
        else:
            line = f"{line} {word}"
    return [*lines, line]


def table_lines(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int) -> list[str]:
    """The rows with their headings as lines; none where there are no rows. Cells are safe to print, on one line each."""
    if not rows:
        return []
    rows = [
        [shortened(cell) if column.prose else cell for column, cell in zip(columns, row, strict=True)] for row in rows
    ]
    kept = [at for at, _ in enumerate(columns) if any(row[at] for row in rows)]
    shown = [columns[at] for at in kept]
    cells = [[row[at] for at in kept] for row in rows]
    widths = _widths(shown, cells, width)
    if widths is not None:
        heading = _beside([Column(one.name, one.right) for one in shown], [one.name for one in shown], widths, width)
        return [*heading, *(line for row in cells for line in _beside(shown, row, widths, width))]
    if len(rows) > ROWS_LAID_OUT_MAX:
        return [GAP.join(one.name for one in columns), *(GAP.join(cell or "-" for cell in row) for row in rows)]
    return [line for row in cells for line in _block(shown, row, width)]


def _widths(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int) -> list[int] | None:
    """What each column gets, or None where they do not fit beside each other."""
    wanted = []
    for at, column in enumerate(columns):
        ordinary = sorted(columns_of(row[at]) for row in rows)[(len(rows) * 9) // 10 if len(rows) > 9 else -1]
        wanted.append(max(ordinary, columns_of(column.name)))
    if columns[-1].prose or columns[-1].cut:
        left = width - sum(wanted[:-1]) - len(GAP) * (len(wanted) - 1)
        wanted[-1] = min(wanted[-1], max(left, PROSE_LEAST))
    return wanted if sum(wanted) + len(GAP) * (len(wanted) - 1) <= width else None


def _beside(columns: Sequence[Column], row: Sequence[str], widths: Sequence[int], width: int) -> list[str]:
    lines, line, taken, start = [], "", 0, 0
    for column, cell, room in zip(columns, row, widths, strict=True):
        for piece in fold(cell, room, "") if column.prose else [cut_to(cell, room)] if column.cut else [cell]:
            if not piece:
                continue
            wide = columns_of(piece)
            begin = start + (room - wide if column.right and wide < room else 0)
            begin = min(begin, max(0, width - wide))
            if line and begin < taken + (len(GAP) if start else 0):
                lines.append(line)
                line, taken = "", 0
            line += " " * (begin - taken) + piece
            taken = begin + wide
        start += room + len(GAP)
    return [*lines, line]


def _block(columns: Sequence[Column], row: Sequence[str], width: int) -> Iterator[str]:
    line = indent = ""
    for column, cell in zip(columns, row, strict=True):
        item = f"{column.name}: {cell}"
        if column.cut:
            item = cut_to(item, width - len(INDENT))
        if not cell:
            continue
        if line and columns_of(line + GAP + item) <= width:
            line += GAP + item
            continue
        if line:
            yield line
            indent = INDENT
        *done, line = (
            fold(indent + item, width)
            if column.prose
            else [indent + item]
            if column.cut
            else _whole(column.name, cell, indent, width)
        )
        yield from done
    yield line


def _whole(name: str, cell: str, indent: str, width: int) -> list[str]:
    """Name and cell on one line, else below each other, the cell without a blank before it if only so it fits."""
    if columns_of(indent + name + cell) + len(": ") <= width:
        return [f"{indent}{name}: {cell}"]
    return [f"{indent}{name}:", cell if columns_of(INDENT + cell) > width else INDENT + cell]


def cut_to(text: str, width: int) -> str:
    """As much of a text as fits, with an ellipsis where that is not all."""
    if columns_of(text) <= width:
        return text
    kept = text[: width - 1]
    while columns_of(kept) > width - 1:
        kept = kept[:-1]
    return kept + "…"


def shortened(text: str) -> str:
    """The beginning of a free text, 400 characters at the most."""
    return text if len(text) <= PROSE_MAX else text[: PROSE_MAX - 1] + "…"
