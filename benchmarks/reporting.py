"""Results as files: JSON for programs, a plot, and a table in the page that people read. It measures nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
PAGE = HERE / "README.md"


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure: a table (the first row is its head), sentences below it, a plot, and the data behind them."""

    name: str
    title: str
    table: Sequence[Sequence[str]]
    notes: Sequence[str]
    plot: str
    data: Mapping[str, Any] = field(default_factory=dict)

    def markdown(self, plots: str = "results/") -> str:
        """The table, the sentences and the plot as they stand in the page."""
        sentences = "\n".join(f"- {note}" for note in self.notes)
        return f"{table(self.table)}\n\n{sentences}\n\n![{self.title}]({plots}{self.name}.svg)"


def table(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; every column but the first is flush right."""
    head, *body = rows
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, rule, *body])


def write(figure: Figure, folder: Path, machine: Mapping[str, Any], page: Path | None = None) -> None:
    """Write NAME.json and NAME.svg, and put the table between the page's markers of that name."""
    folder.mkdir(parents=True, exist_ok=True)
    document = {
        "figure": figure.title,
        "machine": machine,
        "table": figure.table,
        "notes": figure.notes,
        "data": figure.data,
    }
    text = json.dumps(document, indent=1, ensure_ascii=False, default=str)
    (folder / f"{figure.name}.json").write_text(text + "\n", encoding="utf-8")
    (folder / f"{figure.name}.svg").write_text(figure.plot, encoding="utf-8")
    if page is not None:
        put(page, figure.name, figure.markdown())


def put(page: Path, name: str, text: str) -> None:
    """Replace what stands between `<!-- NAME -->` and `<!-- /NAME -->`."""
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, found, rest = page.read_text(encoding="utf-8").partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"{page.name} has no place for {name!r}: {begin} and {end} are missing")
    page.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")
