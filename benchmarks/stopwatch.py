"""What a worker notes for the benchmark: when its first delivery came and, in latency runs, each event's COMMIT and ack.

Used by the fleet's workers and the peers' alike, in each of their processes; a file a process. Outside latency runs it costs
one comparison an event.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable
from pathlib import Path

FOLDER, DETAILED = "BENCH_STOPWATCH", "BENCH_STOPWATCH_DETAILED"

_lock = threading.Lock()
_file: tuple[int, int] | None = None  # process, descriptor: a fork needs its own
_delivered = 0  # the process that has noted its first delivery
_detailed = bool(os.environ.get(DETAILED))


def delivered() -> None:
    """A delivery has reached the worker; only the process's first is noted."""
    global _delivered
    if _delivered != os.getpid():
        _delivered = os.getpid()
        _note(f"first\t\t{time.time_ns()}\n")


def committed(ids: Iterable[str]) -> None:
    """These events' COMMIT has returned."""
    if _detailed:
        _note_all("commit", ids)


def acknowledged(ids: Iterable[str]) -> None:
    """These events' acknowledgements have been handed to the client library."""
    if _detailed:
        _note_all("ack", ids)


def read(folder: Path) -> dict[str, dict[str, int]]:
    """What all processes noted: "first" by process, "commit" and "ack" by event id, in nanoseconds since the epoch."""
    notes: dict[str, dict[str, int]] = {"first": {}, "commit": {}, "ack": {}}
    for file in folder.iterdir():
        for line in file.read_text().splitlines():
            what, event_id, moment = line.split("\t")
            notes[what].setdefault(event_id or file.name, int(moment))
    return notes


def _note_all(what: str, ids: Iterable[str]) -> None:
    now = time.time_ns()
    _note("".join(f"{what}\t{event_id}\t{now}\n" for event_id in ids))


def _note(text: str) -> None:
    global _file
    with _lock:
        if _file is None or _file[0] != os.getpid():
            path = Path(os.environ[FOLDER]) / str(os.getpid())
            _file = (os.getpid(), os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))
        os.write(_file[1], text.encode())
