"""CSV files as people save them: named columns in any order, every bad row named by its line. It never writes."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

from incentive_fleet.errors import Malformed, Refused
from incentive_fleet.events.document import shown
from incentive_fleet.events.models import NO_CONTROL_PATTERN, TEXT_LENGTH_MAX
from incentive_fleet.events.times import parse_time
from incentive_fleet.text_files import UNREADABLE, csv_lines

_TEXT: Final = re.compile(NO_CONTROL_PATTERN)

Cells = dict[str, str]


def read_rows(
    path: Path, columns: Sequence[str], optional: Sequence[str] = ()
) -> Iterator[tuple[int, Cells | Refused]]:
    """The rows of a .csv or .csv.gz file with their line numbers, each as its cells or why it is none (bad-row).

    A column of `optional` may be missing; its cells are empty then. Columns that are not ours are passed over, but not where
    some may be missing. Raises Refused (bad-file) when it is no such file.
    """
    line = 0
    try:
        reader = csv.DictReader(csv_lines(path), strict=True)
        if fault := _fault_of(list(reader.fieldnames or ()), columns, optional):
            raise Refused("bad-file", f"{path}: the first line {fault}")
        for values in reader:
            line = reader.line_num
            if None in values or None in values.values():
                yield line, Refused("bad-row", f"the row does not have {len(reader.fieldnames or ())} columns")
            else:
                yield line, {name: values.get(name) or "" for name in (*columns, *optional)}
    except UnicodeDecodeError as error:
        raise Refused("bad-file", f"{path}: behind line {line}: not UTF-8: {error.reason}") from None
    except (csv.Error, *UNREADABLE) as error:
        raise Refused("bad-file", f"{path}: behind line {line}: {error}") from None


def _fault_of(names: Sequence[str], columns: Sequence[str], optional: Sequence[str]) -> str | None:
    if missing := [column for column in columns if column not in names]:
        return f"lacks the columns {', '.join(missing)}"
    if twice := [column for column in (*columns, *optional) if names.count(column) > 1]:
        return f"has the column {twice[0]} more than once"
    # One that is optional and misspelt would pass for one that was left out. Spreadsheets add columns without a name.
    unknown = [name for name in names if name and name not in (*columns, *optional)] if optional else []
    return f"has the column {shown(unknown[0])}: known are {', '.join((*columns, *optional))}" if unknown else None


def require_text(field: str, text: str) -> str:
    """The text, which is one that an id may be. Raises Refused (bad-text) naming field and value."""
    if not 1 <= len(text) <= TEXT_LENGTH_MAX or not _TEXT.fullmatch(text):
        raise Refused(
            "bad-text", f"{field} is {shown(text)}: must have 1 to {TEXT_LENGTH_MAX} characters, none a control"
        )
    return text


def optional_time(field: str, text: str) -> datetime | None:
    """The RFC 3339 time, None for no text. Raises Refused (bad-time) naming field and value."""
    if not text:
        return None
    try:
        return parse_time(text)
    except Malformed as error:
        raise Refused("bad-time", f"{field} is {shown(text)}: {error.detail}") from None
