"""Work that takes long: a bar on a terminal, elsewhere a line every ten seconds; and what an interruption says of it.

It decides nothing and owns no signal; interrupts.py asks it what to say.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Final

import click

from incentive_fleet.cli import printing
from incentive_fleet.cli.interrupted import SENTENCES, when_interrupted
from incentive_fleet.literal import literal

EVERY_S: Final = 10.0
BAR_EVERY_S: Final = 0.2


@dataclass(slots=True)
class LongWork:
    """One piece of work, and what was said of it last."""

    label: str
    note: str = ""


_latest: LongWork | None = None  # of this process: what the command did or does


@contextmanager
def working(
    label: str, total: int | None = None, *, prints: bool = False, every_s: float = EVERY_S
) -> Iterator[Callable[[int, str], None]]:
    """Tell how far the block is. Call what it gives with (done, note); the note is a few words that can stand alone.

    `prints`: its results are printed meanwhile; on a terminal they are seen, and a bar would only break their lines.
    """
    global _latest
    work = _latest = LongWork(label)
    if prints and sys.stdout.isatty():
        show: AbstractContextManager[Callable[[int, str], None]] = nullcontext(lambda done, note: None)
    else:
        show = _bar(label, total) if sys.stderr.isatty() else _lines(work, every_s)
    with show as tell:

        def note(done: int, text: str) -> None:
            work.note = text
            tell(done, text)

        yield note


@contextmanager
def showing(label: str, read: Callable[[], str], *, every_s: float = BAR_EVERY_S) -> Iterator[None]:
    """Show on a terminal what `read` gives while the block runs: for commands that serve, whose log tells it elsewhere."""
    if not sys.stderr.isatty():
        yield
        return
    with _bar(label, None) as tell, _every(every_s, lambda: tell(0, read())):
        yield


def said() -> str:
    """What is done and what is not, for the command of this process if it is interrupted now."""
    done = f"{_latest.label}: {_latest.note}. " if _latest and _latest.note else ""
    return f"{done}{when_interrupted(_command())}"


def _command() -> str:
    """The running command as people type it. Only the main thread knows for certain; another one reads what was typed."""
    context = click.get_current_context(silent=True)
    if context is None:
        words = [word for word in sys.argv[1:] if not word.startswith("-")]
        return " ".join(words[:2]) if " ".join(words[:2]) in SENTENCES else " ".join(words[:1])
    names: list[str] = []
    while context.parent is not None:
        names.insert(0, context.info_name or "")
        context = context.parent
    return " ".join(names)


@contextmanager
def _bar(label: str, total: int | None) -> Iterator[Callable[[int, str], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        TimeElapsedColumn(),
    )
    # What goes to standard error comes above the bar. So does standard output, but only where it is a terminal too: it
    # would be gone from the file or the pipe that it was sent to.
    console, both = Console(stderr=True), sys.stdout.isatty()
    with Progress(*columns, console=console, transient=True, redirect_stdout=both) as progress:
        task = progress.add_task(label, total=total, note="")
        yield lambda done, note: progress.update(task, completed=done, note=literal(note))


@contextmanager
def _lines(work: LongWork, every_s: float) -> Iterator[Callable[[int, str], None]]:
    started = time.monotonic()

    def line() -> None:
        so_far = f": {work.note}" if work.note else ""
        printing.tell(f"{work.label}, {time.monotonic() - started:.0f} s{so_far}")

    with _every(every_s, line):
        yield lambda done, note: None


@contextmanager
def _every(seconds: float, act: Callable[[], None]) -> Iterator[None]:
    """Act again and again while the block runs, from a thread, so that one long statement is seen as well."""
    over = threading.Event()

    def run() -> None:
        while not over.wait(seconds):
            act()

    thread = threading.Thread(target=run, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(seconds)
