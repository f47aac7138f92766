"""Clocks and counters: when a run was over, what it cost, whether it did the job. It starts nothing and prints nothing."""

from __future__ import annotations

import hashlib
import os
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import psycopg

from incentive_fleet.ledger.balances import read_balances

DRAIN_MOST_S = 900.0
POLL_S = 0.1
LAST = "SELECT coalesce(max(outbox_id), 0) FROM outbox"
TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Spread:
    """Median, least and most over the rounds."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: list[float]) -> Spread:
        return cls(median(values), min(values), max(values))

    def text(self, digits: int = 0) -> str:
        return f"{self.median:,.{digits}f} ({self.least:,.{digits}f} to {self.most:,.{digits}f})"


def last_outcome(database_url: str) -> int:
    """The number of the last outcome that the ledger holds; 0 when it holds none."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        return int(_one(connection, LAST))


def wait_until_booked(database_url: str, events: int, *, after: int = 0, most_s: float = DRAIN_MOST_S) -> int:
    """Wait until so many facts have taken effect; returns when the last COMMIT was, in nanoseconds since the epoch.

    `after` is the ledger's last outcome before. Looked at through the outbox's primary key, so that waiting costs the
    server nothing to speak of. Raises TimeoutError.
    """
    deadline = time.monotonic() + most_s
    booked = f"FROM outbox WHERE outbox_id > {int(after)} AND order_id <> ''"  # no notice of a grant
    with psycopg.connect(database_url, autocommit=True) as connection:
        # Numbers have gaps where a transaction was tried again, so they only tell when counting is worth while.
        while _one(connection, LAST) < after + events or _one(connection, f"SELECT count(*) {booked}") < events:
            if time.monotonic() > deadline:
                done = _one(connection, f"SELECT count(*) {booked}")
                raise TimeoutError(f"{done} of {events} events were booked within {most_s:g} s")
            time.sleep(POLL_S)
        committed = f"SELECT (extract(epoch FROM max(pg_xact_commit_timestamp(xmin))) * 1e9)::bigint {booked}"
        return int(_one(connection, committed))


def fingerprint(database_url: str) -> str:
    """A short digest of every balance: equal for two ledgers that hold the same."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        balances = sorted(read_balances(connection).items())
    return hashlib.sha256(repr(balances).encode()).hexdigest()[:16]


def wal_bytes(database_url: str) -> int:
    with psycopg.connect(database_url, autocommit=True) as connection:
        return int(_one(connection, "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')"))


def cpu_s(pid: int) -> float:
    """CPU seconds of a process, of its children that ended, and of those that run."""
    total = 0.0
    pending = [pid]
    while pending:
        one = pending.pop()
        try:
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
            for thread in Path(f"/proc/{one}/task").iterdir():  # a child is listed with the thread that started it
                pending += [int(child) for child in (thread / "children").read_text().split()]
        except (FileNotFoundError, ProcessLookupError):
            continue
        total += sum(map(int, fields[11:15])) / TICKS
    return total


def rss_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE


def peak_rss_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("the kernel does not tell VmHWM")


def percentile(values: list[float], share: float) -> float:
    """The value that so large a share of the values does not exceed (nearest rank)."""
    ranked = sorted(values)
    return ranked[max(0, -(-len(ranked) * share // 1).__int__() - 1)]


def _one(connection: psycopg.Connection[Any], statement: str) -> Any:
    row = connection.execute(statement).fetchone()
    assert row is not None
    return row[0]
