"""CSV files as people save them: named columns in any order, every bad row named by its line. It never writes."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

from incentive_fleet.errors import Malformed, Refused
from incentive_fleet.events.models import NO_CONTROL_PATTERN, TEXT_LENGTH_MAX
from incentive_fleet.events.times import parse_time
from incentive_fleet.text_files import UNREADABLE, open_text

_TEXT: Final = re.compile(NO_CONTROL_PATTERN)

Cells = dict[str, str]


def read_rows(
    path: Path, columns: Sequence[str], optional: Sequence[str] = ()
) -> Iterator[tuple[int, Cells | Refused]]:
    """The rows of a .csv or .csv.gz file with their line numbers, each as its cells or why it is none (bad-row).

    A column of `optional` may be missing; its cells are empty then. Raises Refused (bad-file) when it is no such file.
    """
    line = 0
    try:
        with open_text(path) as raw:
            reader = csv.DictReader(io.TextIOWrapper(raw, encoding="utf-8", newline=""), strict=True)
            missing = [column for column in columns if column not in (reader.fieldnames or ())]
            if missing:
                raise Refused("bad-file", f"{path}: the first line lacks the columns {', '.join(missing)}")
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


def require_text(field: str, text: str) -> str:
    """The text, which is one that an id may be. Raises Refused (bad-text) naming field and value."""
    if not 1 <= len(text) <= TEXT_LENGTH_MAX or not _TEXT.match(text):
        raise Refused("bad-text", f"{field} is {text!r}: must have 1 to {TEXT_LENGTH_MAX} characters, none a control")
    return text


def optional_time(field: str, text: str) -> datetime | None:
    """The RFC 3339 time, None for no text. Raises Refused (bad-time) naming field and value."""
    if not text:
        return None
    try:
        return parse_time(text)
    except Malformed as error:
        raise Refused("bad-time", f"{field} is {text!r}: {error.detail}") from None
