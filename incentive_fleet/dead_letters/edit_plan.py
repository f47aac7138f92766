"""What an edit does to a body: the same fields for every letter, and values of its own for each order. Pure, but for a file.

A plan is kept with its run as JSON, so that another process can go on with it.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast

from incentive_fleet.consumers.admission import Admission, admitted
from incentive_fleet.dead_letters.editing import (
    Assignment,
    assign,
    assignment_of,
    parse_assignment,
    parse_removal,
)
from incentive_fleet.errors import Refused
from incentive_fleet.text_files import UNREADABLE, read_text

ROWS_MAX: Final = 100_000  # as many letters as one act may touch
KEYS: Final = ("order_id", "id")  # what the first column may be: an order's id, or a letter's


@dataclass(frozen=True, slots=True)
class EditPlan:
    """In this order: `sets`, `appends`, `unsets`, as they are typed; then the row of the letter's order, or of the letter."""

    sets: Sequence[str] = ()
    appends: Sequence[str] = ()
    unsets: Sequence[str] = ()
    key: str = ""  # one of KEYS, where there are rows
    rows: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # by key, then by path; empty cells left out

    def assignments(self) -> list[Assignment]:
        """What every letter gets. Raises Refused (bad-assignment)."""
        return [
            *map(parse_assignment, self.sets),
            *(parse_assignment(text, "append") for text in self.appends),
            *map(parse_removal, self.unsets),
        ]

    def parameters(self) -> dict[str, object]:
        """As JSON."""
        return {
            "set": list(self.sets),
            "append": list(self.appends),
            "unset": list(self.unsets),
            "key": self.key,
            "rows": dict(self.rows),
        }

    @staticmethod
    def of(parameters: Mapping[str, Any]) -> EditPlan:
        """Out of what `parameters` gave."""
        return EditPlan(*(parameters[name] for name in ("set", "append", "unset", "key", "rows")))


@dataclass(frozen=True, slots=True)
class Editable:
    """A letter as far as an edit looks at it."""

    id: int
    order_id: str | None
    source_queue: str
    body: bytes  # what a replay sends now


def edited(plan: EditPlan, common: Sequence[Assignment], letter: Editable, admission: Admission | None) -> bytes:
    """The letter's new body, an event that its queue takes, or the very same body when nothing in it changes.

    `common` is the plan's `assignments()`. Raises Malformed when it would be given up again, and Refused (no-fields,
    no-such-place, not-in-file).
    """
    wanted = list(common)
    if plan.rows:
        wanted += [assignment_of(path, value) for path, value in _row(plan, letter).items()]
    result = assign(letter.body, wanted)
    if assign(letter.body, []) == result:  # the same but for its white space
        return letter.body
    admitted(result, letter.source_queue, admission)
    return result


def _row(plan: EditPlan, letter: Editable) -> Mapping[str, str]:
    key = str(letter.id) if plan.key == "id" else letter.order_id
    if key is None or key not in plan.rows:
        order = f"order {letter.order_id!r}" if letter.order_id else "a letter without an order"
        what = f"dead letter {letter.id}" if plan.key == "id" else order
        raise Refused("not-in-file", f"the file has no row for {what}")
    return plan.rows[key]


def read_values(path: Path) -> tuple[str, dict[str, dict[str, str]]]:
    """A CSV file of values: its first column's name, and the cells of each row by their paths.

    Raises Refused (bad-values), which names line and column, and as read_text; nothing is changed then.
    """
    try:
        return _read(path.name, csv.reader(io.StringIO(read_text(path), newline=""), strict=True))
    except csv.Error as error:
        raise Refused("bad-values", f"{path.name} is no CSV: {error}") from None
    except UNREADABLE as error:
        raise Refused("bad-values", f"{path.name} cannot be read: {error}") from None


def _read(name: str, reader: Any) -> tuple[str, dict[str, dict[str, str]]]:
    heading = cast("list[str]", next(reader, []))
    if not heading or heading[0] not in KEYS or len(heading) < 2 or len(set(heading)) < len(heading):
        raise Refused(
            "bad-values", f"{name} line 1: order_id or id is needed, then one path or more such as data.currency"
        )
    for path in heading[1:]:
        assignment_of(path, "")
    rows: dict[str, dict[str, str]] = {}
    for cells in reader:
        where = f"{name} line {reader.line_num}"
        if not cells:
            continue
        if len(cells) != len(heading):
            raise Refused("bad-values", f"{where}: {len(cells)} cells, and {len(heading)} columns")
        key = cells[0]
        if not key or key in rows:
            raise Refused("bad-values", f"{where}: {heading[0]} {key!r} {'comes twice' if key else 'is needed'}")
        if "\x00" in "".join(cells):
            raise Refused("bad-values", f"{where}: it holds the character NUL")
        if len(rows) == ROWS_MAX:
            raise Refused("bad-values", f"{where}: at most {ROWS_MAX:,} rows are taken")
        rows[key] = {path: cell for path, cell in zip(heading[1:], cells[1:], strict=True) if cell}
    if not rows:
        raise Refused("bad-values", f"{name} has no rows")
    return heading[0], rows
