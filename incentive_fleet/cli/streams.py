"""Standard streams that are closed, full, or read by nobody any more. It prints nothing itself, and imports nothing slow.

None of them ends work half-way. What cannot be written is dropped and remembered: a command goes on to its own end, and
then the program says that its result is not whole (cli/root.py). Only what prints line after line and does nothing else
ends there (`end_if_lost`). Standard error that takes no more is told nowhere, for there is nowhere left to tell it.
"""

from __future__ import annotations

import io
import os
import sys
from typing import TYPE_CHECKING, Final, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

IN, OUT, ERR = 0, 1, 2
DEFAULT_ENCODING: Final = "utf-8"  # of a stream that was closed, and has none


class Lost(Exception):
    """Standard output takes no more, and a command that only prints need not go on."""


class _Forgiving(io.FileIO):
    """Takes everything, and from its first error on keeps nothing."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self.error: OSError | None = None

    def write(self, data: ReadableBuffer, /) -> int:
        size = memoryview(data).nbytes
        if self.error is not None:
            return size
        try:
            return super().write(data)
        except OSError as error:
            self.error = error
            return size


_streams: dict[int, _Forgiving] = {}


def prepare() -> None:
    """Take over the streams, before anything else is opened; once.

    Nothing that is opened later may get the number of a stream that was closed: what a library prints there would reach
    a database or a broker, and a signal's own words would be read as one more signal.
    """
    for descriptor in (IN, OUT, ERR):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest number that is free: this one
    sys.stdin = sys.stdin or open(os.devnull, encoding=DEFAULT_ENCODING)  # noqa: SIM115  (the process's own, to its end)
    # One that a program around this one has put there is its own.
    if sys.stdout is sys.__stdout__:
        sys.stdout = _stream(OUT, sys.stdout)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _stream(ERR, sys.stderr)


def _stream(descriptor: int, was: TextIO | None) -> TextIO:
    _streams[descriptor] = raw = _Forgiving(descriptor)
    encoding = DEFAULT_ENCODING if was is None else was.encoding
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding=encoding, errors="backslashreplace", line_buffering=True)


def lost() -> OSError | None:
    """Why standard output takes no more; None while it does. A BrokenPipeError is a reader that has had enough, like `head`."""
    return _streams[OUT].error if OUT in _streams else None


def end_if_lost() -> None:
    """For commands that only print: raises Lost once nothing more can be read of it."""
    if lost() is not None:
        raise Lost
