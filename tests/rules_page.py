"""Reads docs/rules.md: its numbered sections, and of each the examples in the order in which they stand.

It only reads; tests/worked_examples.py plays what it finds.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/rules.md"

HEADING = re.compile(r"^(#{2,3}) (?:(\d+(?:\.\d+)?)\.? )?(.+)$")
FENCE = re.compile(r"^```(\w+)$")


@dataclass(slots=True)
class Block:
    """A fenced block: `toml` campaigns, or the `json` of an event or an outcome."""

    language: str
    text: str


@dataclass(slots=True)
class Table:
    """A table's rows as cells by the name of their column. Cells are as they stand in the page, but for backticks."""

    columns: tuple[str, ...]
    rows: list[dict[str, str]]


@dataclass(slots=True)
class Section:
    """What stands under one heading, up to the next; `number` is empty for a heading without one."""

    number: str
    title: str
    lines: list[str] = field(default_factory=list)
    anchored: str = ""  # the anchor in the line before its heading

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def parts(self) -> list[Block | Table]:
        """The section's fenced blocks and tables, in their order."""
        parts: list[Block | Table] = []
        lines = iter(self.lines)
        for line in lines:
            if fence := FENCE.match(line):
                parts.append(Block(fence[1], "\n".join(iter(lambda: next(lines), "```"))))
            elif line.startswith("| "):
                columns = tuple(_cells(line))
                assert set(next(lines)) <= set("| -:"), f"{self.number}: a table begins with its columns' names"
                rows = []
                while (row := next(lines, "")).startswith("|"):
                    rows.append(dict(zip(columns, _cells(row), strict=True)))
                parts.append(Table(columns, rows))
        return parts


def sections() -> list[Section]:
    """All sections of the page, numbered or not, without what stands before the first."""
    found: list[Section] = []
    anchor, fenced = "", False
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        fenced ^= line.startswith("```")
        heading = None if fenced else HEADING.match(line)
        if heading:
            found.append(Section(heading[2] or "", heading[3], anchored=anchor))
        elif found:
            found[-1].lines.append(line)
        anchor = named[1] if (named := re.fullmatch(r'<a id="([\w.]+)"></a>', line)) else ""
    return found


def table_of(number: str, column: str) -> list[dict[str, str]]:
    """The rows of the section's table that has the column."""
    [section] = [section for section in sections() if section.number == number]
    [table] = [part for part in section.parts() if isinstance(part, Table) and column in part.columns]
    return table.rows


def _cells(row: str) -> list[str]:
    return [cell.strip().replace("`", "").replace(r"\|", "|") for cell in re.split(r"(?<!\\)\|", row.strip())[1:-1]]
