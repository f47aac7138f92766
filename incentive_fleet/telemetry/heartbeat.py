"""A serving process tells of itself in the ledger, every few seconds, so that `incentives status` sees a fleet of many hosts.

It tells what the process counts anyway. While the database is away nothing is told, and the process is not kept from its work.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final
from uuid import uuid4

from psycopg import Connection

from incentive_fleet.consumers.latency import LATENCY, RECEIVED_AGE
from incentive_fleet.errors import FleetError
from incentive_fleet.ledger.connection import connect
from incentive_fleet.ledger.processes import BEAT_S, Serving, beat, gone
from incentive_fleet.measuring import Key, Tally
from incentive_fleet.release import version

DELIVERIES: Final = "incentives_deliveries_total"
PUBLISHED: Final = "incentives_relay_published_total"
PAUSED: Final = "incentives_paused"
SETTLED: Final = ("ack", "dead-letter")  # what leaves a queue; the rest comes again
END_S: Final = 2.0  # for the last word
LOST_MS: Final = 5_000  # a beat that takes longer is given up: the next one says more

log = logging.getLogger(__name__)


def figures_of(now: Tally, before: Tally, seconds: float) -> dict[str, Any]:
    """What a process tells: its workers, what pauses, and of each source and destination the rates since `before`."""
    return {
        "workers": {
            "wanted": now.levels.get(("incentives_workers_wanted",)),
            "alive": now.levels.get(("incentives_workers_alive",)),
            "restarts": now.sums.get(("incentives_worker_restarts_total",)),
        },
        "paused": sorted([*key[1:]] for key, count in now.levels.items() if key[0] == PAUSED and count),
        "sources": {source: _source(source, now, before, seconds) for source in _labels(now, DELIVERIES, RECEIVED_AGE)},
        "published_per_s": {
            destination: _per_s(now, before, seconds, (PUBLISHED, destination))
            for destination in _labels(now, PUBLISHED)
        },
    }


def _source(source: str, now: Tally, before: Tally, seconds: float) -> dict[str, float | None]:
    ages = [age for key, age in now.levels.items() if key[:2] == (RECEIVED_AGE, source)]
    return {
        "out_per_s": _per_s(now, before, seconds, (DELIVERIES, source), SETTLED),
        "oldest_s": round(max(ages), 1) if ages else None,
        "lag_s": _mean_s(source, now, before),
    }


def _labels(tally: Tally, *metrics: str) -> list[str]:
    return sorted({key[1] for key in (*tally.sums, *tally.levels) if key[0] in metrics})


def _per_s(now: Tally, before: Tally, seconds: float, labels: Key, ends: Sequence[str] = ()) -> float:
    """How fast the series that begin with these labels grew, and end with one of `ends` where there are any."""
    grown = sum(
        count - before.sums.get(key, 0)
        for key, count in now.sums.items()
        if key[: len(labels)] == labels and (not ends or key[-1] in ends)
    )
    return round(max(0.0, grown) / seconds, 1) if seconds > 0 else 0.0


def _mean_s(source: str, now: Tally, before: Tally) -> float | None:
    """From publishing to COMMIT, of what was committed since; of each delivery by whichever clock there is."""
    times = seconds = 0.0
    for key, spread in now.spreads.items():
        if key[:2] == (LATENCY, source):
            earlier = before.spreads.get(key, [0.0] * len(spread))
            times += sum(spread[:-1]) - sum(earlier[:-1])
            seconds += spread[-1] - earlier[-1]
    return round(seconds / times, 3) if times > 0 else None


@contextmanager
def beating(url: str, activity: str, tally: Callable[[], Tally]) -> Iterator[None]:
    """Tell of this process while the body runs, and at its end that it has ended."""
    process = Serving(uuid4(), socket.gethostname(), os.getpid(), activity, version())
    heart = _Heart(url, process, tally)
    thread = threading.Thread(target=heart.run, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        heart.over.set()
        thread.join(END_S)


class _Heart:
    """Runs in a thread of its own, with a connection that it keeps."""

    def __init__(self, url: str, process: Serving, tally: Callable[[], Tally]) -> None:
        self.over = threading.Event()
        self._url = url
        self._process = process
        self._tally = tally
        self._connection: Connection[Any] | None = None
        self._failed = False

    def run(self) -> None:
        before, since = Tally(), time.monotonic()
        while True:
            tally, now = self._tally(), time.monotonic()
            if self._say(lambda connection: beat(connection, self._process, figures_of(tally, before, now - since))):  # noqa: B023
                before, since = tally, now
            if self.over.wait(BEAT_S):
                break
        self._say(lambda connection: gone(connection, self._process))
        self._close()

    def _say(self, word: Callable[[Connection[Any]], None]) -> bool:
        try:
            connection = self._connection
            if connection is None or connection.closed:
                connection = self._connection = connect(
                    self._url, application_name="incentives heartbeat", settings={"statement_timeout": str(LOST_MS)}
                )
            word(connection)
        except FleetError as error:
            if not self._failed:
                log.info("the ledger does not learn that this process runs", extra={"error": str(error)})
            self._failed = True
            self._close()
            return False
        except Exception:
            log.exception("the heartbeat failed")
            self._failed = True
            self._close()
            return False
        self._failed = False
        return True

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
