"""Peaks of memory: bodies that are dear to hold, and how much a process of the product had at the most while it met them."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

MIB: Final = 1024 * 1024
SAMPLE_S: Final = 0.02
PAIR: Final = "\N{GRINNING FACE}"  # escaped it takes 12 bytes, in UTF-8 four, and four in Python


@dataclass
class Peak:
    """Of one process, in bytes; it grows while the process lives."""

    bytes: int = 0
    _over: threading.Event = field(default_factory=threading.Event)

    def follow(self, pid: int) -> None:
        while not self._over.wait(SAMPLE_S):
            self.look(pid)

    def look(self, pid: int) -> None:
        try:
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError):
            return
        found = next((line for line in lines if line.startswith("VmHWM")), "VmHWM: 0 kB")
        self.bytes = max(self.bytes, int(found.split()[1]) * 1024)


@contextmanager
def watched(process: subprocess.Popen[bytes]) -> Iterator[Peak]:
    """The peak of the process's resident memory, as the kernel keeps it, for as long as the block runs."""
    peak = Peak()
    thread = threading.Thread(target=peak.follow, args=(process.pid,))
    thread.start()
    try:
        yield peak
    finally:
        peak.look(process.pid)
        peak._over.set()
        thread.join()


def order(number: int | str, *, lines: int = 1, text: str = "", extra: str = "") -> bytes:
    """A placing whose lines have three texts of up to 200 characters; `extra` is JSON in front of the data."""
    items = [
        {
            "line_id": f"{line}{text}"[:200],
            "sku": f"{line}{text}"[:200],
            "category": f"c{text}"[:200],
            "quantity": 1,
            "unit_price": 5,
        }
        for line in range(lines)
    ]
    data = {"order_id": f"o-{number}", "customer_id": "c-1", "currency": "EUR", "placed_at": "2026-01-10T12:00:00Z"}
    head = {"specversion": "1.0", "id": f"e-{number}", "source": "shop", "type": "order-placed.v1"}
    event = {**head, "time": "2026-01-10T12:00:00Z", "subject": f"o-{number}", "data": {**data, "lines": items}}
    body = json.dumps(event)
    return (f"{{{extra}," + body[1:] if extra else body).encode()


def largest_order(number: int | str) -> bytes:
    """2,000 lines, every text of 200 characters, every character an escaped surrogate pair: 13.6 MiB."""
    return order(number, lines=2_000, text=PAIR * 200)


def junk(number: int, size: int) -> bytes:
    """No event, and no two alike."""
    return f"junk {number} ".encode().ljust(size, b"x")
