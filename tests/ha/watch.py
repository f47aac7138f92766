"""Watches the database from beside the fleet, past every wire: when it took a write of ours, and when the fleet got on.

A member is asked ten times a second. It takes a write when a commit of ours returns, which waits for the standby as the
fleet's commits do; the fleet gets on when more outcomes are visible than ever before. It judges nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from itertools import pairwise

import psycopg

EVERY_S = 0.1
TABLE = "CREATE TABLE watched (member text PRIMARY KEY, at timestamptz NOT NULL)"
WRITE = """
    INSERT INTO watched VALUES (%s, clock_timestamp()) ON CONFLICT (member) DO UPDATE SET at = excluded.at
"""
READ = "SELECT coalesce(max(outbox_id), 0) FROM outbox"


class Watch:
    """Times are monotonic seconds. `writes` and `progress` only grow, in the order of time."""

    def __init__(self, urls: dict[str, str]) -> None:
        self.writes: list[float] = []
        self.progress: list[float] = []
        self._most = 0
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._follow, args=entry, daemon=True) for entry in urls.items()]

    def __enter__(self) -> Watch:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(10)

    def _follow(self, member: str, url: str) -> None:
        while not self._over.wait(EVERY_S):
            try:
                with psycopg.connect(url, autocommit=True, connect_timeout=2) as connection:
                    self._ask(connection, member)
            except psycopg.Error:
                continue  # it is down, or being hurt, or a standby: that is what this is about

    def _ask(self, connection: psycopg.Connection, member: str) -> None:
        while not self._over.wait(EVERY_S):
            connection.execute(WRITE, (member,))
            row = connection.execute(READ).fetchone()
            now = time.monotonic()
            with self._lock:
                self.writes.append(now)
                if row is not None and row[0] > self._most:
                    self._most = row[0]
                    self.progress.append(now)

    def goes_on(self, since: float) -> bool:
        """Whether the fleet got on after that time."""
        return bool(self.progress) and self.progress[-1] > since


def longest_gap(times: Sequence[float], start: float, end: float) -> tuple[float, float]:
    """The longest time between two of them, of those from `start` to `end`, which count as two: its length and its end."""
    inside = [start, *(one for one in times if start < one < end), end]
    return max((later - earlier, later) for earlier, later in pairwise(inside))


def next_after(times: Sequence[float], moment: float) -> float:
    return next(one for one in times if one >= moment)
