"""The one way out: every line, table, document and error that a command prints passes here, and is printed literally.

Nothing is markup. A text that came from outside, be it an id, a file's name or a broker's error, cannot style, hide,
reorder or break a line (literal.py says what is escaped). It never reads what it prints, and it decides no exit code.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, is_dataclass
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import TextIO

import click

from incentive_fleet.cli import streams
from incentive_fleet.cli.layout import Column, fold, screen_width, table_lines
from incentive_fleet.literal import literal, literal_json


class Failed(click.ClickException):
    """A sentence for standard error, lines that belong to it, and the exit code that goes with it."""

    def __init__(self, message: str, code: int, more: Sequence[str]) -> None:
        super().__init__(message)
        self.exit_code = code  # type: ignore[misc]  # click reads it from the instance, but declares it for the class
        self.more = more


Part = str | tuple[str, str]  # a text, or a text and its style: bold, green, red, yellow or cyan


def prepare_streams() -> None:
    """Write what a terminal's encoding has no character for as its escape, and crashes of ours literally too."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    sys.excepthook = _crashed


def say(*parts: Part, folded: bool = False) -> None:
    """One line on standard output; `folded` at blanks where it is wider than the screen, which no id should be."""
    whole, *rest = fold("".join(map(_text, parts)), screen_width()) if folded else [""]
    if rest:
        lead = _text(parts[0])
        first = _styled(parts[0], sys.stdout) + whole[len(lead) :] if whole.startswith(lead) else whole
        _write("\n".join([first, *rest, ""]), sys.stdout)
    else:
        _write("".join(_styled(part, sys.stdout) for part in parts) + "\n", sys.stdout)


def tell(*parts: Part) -> None:
    """One line on standard error: what goes on, never a result."""
    _write("".join(_styled(part, sys.stderr) for part in parts) + "\n", sys.stderr)


def say_each(lines: Iterable[str]) -> None:
    """Each sentence of a list on a line of its own, folded where it is wider than the screen."""
    for line in lines:
        say(line, folded=True)


def say_lines(text: str, style: str = "") -> None:
    """Each line of a text that has lines, such as a body."""
    for line in text.split("\n"):
        say((line, style))


def say_table(columns: Iterable[str | Column], rows: Iterable[Iterable[object]], title: str = "") -> None:
    """Rows under their headings within the screen's width; see layout.py for what happens to those that do not fit."""
    lines = table_lines(
        [column if isinstance(column, Column) else Column(column) for column in columns],
        [["" if cell is None else literal(str(cell)) for cell in row] for row in rows],
        screen_width(),
    )
    if title:
        say((title, "bold"))
    if lines:
        _write("\n".join([*lines, ""]), sys.stdout)


def say_json_line(document: object) -> None:
    """A document on one line, as JSON; for commands whose result is many of them. Raises Lost once nobody reads them."""
    streams.end_if_lost()
    is_utf8 = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    _write(literal_json(document, default=plain, ascii_only=not is_utf8) + "\n", sys.stdout)


def say_raw(text: str) -> None:
    """A text of ours that is made for another program and holds nothing from outside unescaped, such as a journal.

    Raises Lost once nobody reads it.
    """
    streams.end_if_lost()
    _write(text, sys.stdout)


def clear_screen() -> None:
    """Begin again at the top of a terminal; elsewhere one empty line parts what was from what comes."""
    _write("\x1b[H\x1b[2J\x1b[3J" if sys.stdout.isatty() else "\n", sys.stdout)


def ask(question: str, *, default: bool) -> bool:
    """A question on standard error, answered on standard input. Raises click.Abort when nobody answers."""
    return click.confirm(literal(question), default=default, err=True)


def emit(document: object, output: str, render: Callable[[], object]) -> None:
    """Print a result: the document as JSON, or what `render` says."""
    if output != "json":
        render()
        return
    is_utf8 = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    _write(literal_json(document, default=plain, indent=2, ascii_only=not is_utf8) + "\n", sys.stdout)


def plain(value: object) -> object:
    """Our values as JSON ones: dataclasses as objects, times in UTC as RFC 3339."""
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, set | frozenset):
        return sorted(value)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, bytes):
        return value.hex()
    raise TypeError(f"{type(value).__name__} has no JSON form")


def tell_error(message: str, more: Iterable[str] = ()) -> None:
    """What went wrong, in one sentence, and lines that belong to it."""
    tell(f"Error: {message}")
    for line in more:
        tell(line)


def tell_failure(error: click.ClickException) -> None:
    """A command's own failure, or click's complaint: how the command is used, and what was wrong. Both quote what came in."""
    if isinstance(error, Failed):
        tell_error(error.message, error.more)
        return
    if isinstance(error, click.exceptions.NoArgsIsHelpError):  # a group without a command: its help is the message
        for line in error.format_message().split("\n"):
            tell(line)
        return
    if isinstance(error, click.UsageError) and error.ctx is not None:
        for line in error.ctx.get_usage().split("\n"):
            tell(line)
        if error.ctx.help_option_names:
            tell(f"Try '{error.ctx.command_path} {error.ctx.help_option_names[0]}' for help.")
        tell("")
    message = error.format_message()
    # Of click's own messages this one alone has line breaks that nobody typed: it lists the choices below each other.
    tell_error(" ".join(message.split()) if isinstance(error, click.MissingParameter) else message)


def _crashed(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    for line in "".join(traceback.format_exception(kind, error, trace)).rstrip("\n").split("\n"):
        tell(line)


def _text(part: Part) -> str:
    return literal(part if isinstance(part, str) else part[0])


def _styled(part: Part, stream: TextIO) -> str:
    text, style = _text(part), "" if isinstance(part, str) else part[1]
    if not style or not stream.isatty() or os.environ.get("NO_COLOR"):  # https://no-color.org
        return text
    return click.style(text, bold=True) if style == "bold" else click.style(text, fg=style)


def _write(text: str, stream: TextIO) -> None:
    stream.write(text)
    stream.flush()  # both streams in order, and a reader that has gone is noticed here
