"""SIGINT and SIGTERM, the same way in every command. It imports nothing slow, so that it listens as early as can be.

A command that serves (`consume`, `relay`, `dlq collect`, `serve`) drains: its stop is set, and it ends with 0, or with 1 where the
drain's end cut it. Every other command is interrupted where it stands, cleans up, says what is done and what is not,
and ends with 130 or 143. A second signal, or the end of the drain, ends either at once; nothing is lost by that, for
what is not committed or confirmed is not done.

The signals are read by a thread, from the descriptor that the interpreter itself writes them to. So they are heard
while the main thread is inside a driver that does not come back, and no lock is taken in a signal handler.

A command is interrupted by an exception, and the interpreter drops what is raised in the callback of a weak reference or
in a destructor. Such an interruption is made again until it is heard.
"""

from __future__ import annotations

import _thread
import logging
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, NoReturn

from incentive_fleet.stopping import Stop

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
SERVING: Final = (("consume",), ("answer-quotes",), ("relay",), ("dlq", "collect"), ("serve",))
# `timeout`, a supervisor that signals a whole group, or a shell may send one order twice; a person is slower than this.
SAME_ORDER_S: Final = 0.5
AGAIN: Final = 0  # stands for no signal: what interrupted the main thread was dropped
AGAIN_AFTER_S: Final = 0.001
CUT_AFTER_S: Final = 1.0  # beyond the drain: what ends by its own bound may say so itself


class Interrupted(KeyboardInterrupt):
    """A signal ended a command. psycopg knows its base, and cancels on the server what was running there."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


@dataclass(slots=True)
class _Signals:
    """What this process knows of its signals."""

    stop: Stop = field(default_factory=Stop)
    drains: bool = False  # it is one of SERVING
    ready: bool = False  # the stop reaches everything: no need to interrupt the main thread
    first: int = 0  # the signal that came first
    ways_to_cut: list[Callable[[], None]] = field(default_factory=list)
    said_by: Callable[[], str] = lambda: "Nothing was begun."
    said: str = ""  # by the command, as it stood when the signal came


_signals = _Signals()


def listen(arguments: Sequence[str]) -> None:
    """Take over both signals; once, from the main thread, as early as possible."""
    words = tuple(word for word in arguments if not word.startswith("-"))
    _signals.drains = any(words[: len(names)] == names for names in SERVING)
    heard, written = socket.socketpair()
    written.setblocking(False)
    signal.set_wakeup_fd(written.fileno(), warn_on_full_buffer=False)
    sys.unraisablehook = partial(_dropped, written, sys.unraisablehook)
    threading.Thread(target=_hear, args=(heard, written), name="signals", daemon=True).start()
    for number in SIGNALS:
        signal.signal(number, _interrupt)


def stop_of_process(drain_s: float | None = None) -> Stop:
    """The stop that the first signal sets, its drain set if given."""
    if drain_s is not None:
        _signals.stop.drain_s = drain_s
    return _signals.stop


def serve(drain_s: float) -> Stop:
    """From now on a signal does nothing but set this stop; the command drains by itself."""
    _signals.ready = True
    return stop_of_process(drain_s)


def on_cut(way: Callable[[], None]) -> None:
    """Also do this when the process is ended at once; it must not wait."""
    _signals.ways_to_cut.append(way)


def tell_by(said_by: Callable[[], str]) -> None:
    """Who says what is done and what is not. It is asked in the main thread, or in another one if that does not answer."""
    _signals.said_by = said_by


def signalled() -> int:
    """The signal that came first; 0 when none did."""
    return _signals.first


def _sentence(number: int) -> str:
    return f"Stopped by {signal.Signals(number).name}. {_signals.said or _signals.said_by()}"


def interrupted(number: int) -> int:
    """Say it, for a command that was interrupted; its exit code."""
    if _signals.drains:  # before it had begun
        return 0
    _write(_sentence(number))
    return 128 + number


def leave(code: int) -> NoReturn:
    """End the process. After a signal nothing is waited for any more, threads inside a driver least of all."""
    if not _signals.first:
        sys.exit(code)
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        code = code or 1  # what was to be read could not be written
    os._exit(code)


def _interrupt(number: int, _frame: object) -> None:
    if not _signals.ready and not _signals.first:
        _signals.first = number
        _signals.said = _signals.said_by()
        raise Interrupted(number)


def _dropped(written: socket.socket, otherwise: Callable[[Any], object], what: Any) -> None:
    """What the interpreter calls when it drops an exception."""
    if not isinstance(what.exc_value, Interrupted):
        otherwise(what)
        return
    _signals.first = 0
    with suppress(OSError):  # nobody reads: it is as if the signal had come too late
        written.send(bytes((AGAIN,)))


def _hear(heard: socket.socket, _written: socket.socket) -> None:
    since: float | None = None
    asked = repeated = 0
    while True:
        left_s = None if since is None else _signals.stop.left_s() + CUT_AFTER_S
        if not select.select([heard], [], [], left_s)[0]:
            _cut(asked, f"its {_signals.stop.drain_s:g} s to end were over")
        number = heard.recv(1)[0]
        if number == AGAIN:
            time.sleep(AGAIN_AFTER_S)  # the callback that it ended is left by then
            if _signals.ready:
                _signals.first = asked
            else:
                repeated += 1
                _thread.interrupt_main(signal.Signals(asked))
        if number not in SIGNALS:
            continue
        if repeated:  # it is ours
            repeated -= 1
        elif since is None:
            since = time.monotonic()
            if _signals.ready:
                _signals.first = number
            _signals.stop.set()
            asked = number
        elif time.monotonic() - since > SAME_ORDER_S:
            _cut(asked, "told to stop again")


def _write(line: str) -> None:
    """Past every lock; and the process ends all the same where standard error takes no more, or nobody reads it."""
    with suppress(OSError):
        os.write(2, f"{line}\n".encode())


def _log_line(message: str) -> str:
    """As the fleet's other lines, without logging's locks: whoever is cut may hold them."""
    from incentive_fleet.logs import JsonLines

    record = logging.LogRecord(__name__, logging.ERROR, __file__, 0, message, None, None)
    return JsonLines().format(record)


def _cut(number: int, why: str) -> NoReturn:
    """End at once, past every lock that the other threads may hold."""
    for way in _signals.ways_to_cut:
        way()
    if _signals.drains:
        text, code = _log_line(f"cut: {why}"), 1
    else:
        text, code = f"{_sentence(number)} ({why})", 128 + number
    _write(text)
    os._exit(code)
