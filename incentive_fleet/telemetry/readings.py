"""Reads the gauges that live in the ledger and in the brokers: when somebody scrapes, never more often than a reading's time,
and never twice at once. A part that does not answer keeps no scrape waiting for longer than `SCRAPE_WAIT_S`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from typing import Any, Final

from psycopg import Connection

from incentive_fleet.addresses import without_logins
from incentive_fleet.brokers.contract import Broker
from incentive_fleet.brokers.registry import parts_of
from incentive_fleet.errors import FleetError
from incentive_fleet.ledger.connection import connect, require_leading
from incentive_fleet.ledger.standing import WATCHED
from incentive_fleet.measuring import Key
from incentive_fleet.settings import Settings
from incentive_fleet.stopping import Stop
from incentive_fleet.telemetry import figures

SCRAPE_WAIT_S: Final = 2.0  # for what is read anew; Prometheus gives up after ten
END_WAIT_S: Final = 1.0
EVERY_S: Final = 15.0  # one scrape interval, as most have it
MONEY_EVERY_S: Final = 60.0  # sums of all wallets
KEPT_TIMES: Final = 3  # intervals after which what was read is too old to be told

log = logging.getLogger(__name__)

Levels = dict[Key, float]


@dataclass(slots=True)
class Reading:
    """One part's gauges. `ask` and `levels` may be called by any thread."""

    name: str
    read: Callable[[], Levels]
    every_s: float = EVERY_S
    clock: Callable[[], float] = time.monotonic
    _asked: Future[None] | None = None
    _levels: Levels = field(default_factory=dict)
    _read_at: float = float("-inf")
    _failed: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _ended: bool = False

    def ask(self) -> Future[None] | None:
        """Read anew where it is time; the reading under way is everybody's. None when what is there is fresh."""
        with self._lock:
            if self._asked is not None and not self._asked.done():
                return self._asked
            if self._ended:
                return None
            if not self._failed and self.clock() - self._read_at < self.every_s:
                return None
            self._asked = Future()
            self._asked.set_running_or_notify_cancel()  # one who gives up waiting cannot take it from the others
            threading.Thread(target=self._answer, args=(self._asked,), name=f"reading {self.name}", daemon=True).start()
            return self._asked

    def _answer(self, asked: Future[None]) -> None:
        began = self.clock()
        try:
            levels = self.read()
        except FleetError as error:
            self._fail("a part's gauges cannot be read", {"error": without_logins(str(error))})
        except Exception:
            self._fail("reading gauges failed", {}, trace=True)
        else:
            if self._failed:
                log.info("a part's gauges are read again", extra={"reading": self.name})
            self._levels, self._read_at, self._failed = levels, began, False
        asked.set_result(None)

    def _fail(self, what: str, extra: dict[str, object], *, trace: bool = False) -> None:
        if not self._failed and not self._ended:
            log.warning(what, extra=extra | {"reading": self.name}, exc_info=trace)
        self._failed = True

    def end(self) -> None:
        """Read no more; a reading that is under way is waited for a moment, so that what it reads by can be closed."""
        with self._lock:
            self._ended, asked = True, self._asked
        if asked is not None:
            wait([asked], END_WAIT_S)

    def levels(self) -> Levels:
        """What is known: the gauges while they are fresh enough, and whether they are."""
        age_s = self.clock() - self._read_at
        if self._failed or age_s > max(self.every_s, EVERY_S) * KEPT_TIMES:
            return {("incentives_reading_up", self.name): 0}
        told = {("incentives_reading_up", self.name): 1.0, ("incentives_reading_age_seconds", self.name): age_s}
        return self._levels | told


@dataclass(slots=True)
class Ledger:
    """Reads by one connection that is kept, one reading after the other. Any thread."""

    url: str
    _connection: Connection[Any] | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def read(self, figures: Callable[[Connection[Any]], Levels]) -> Levels:
        """Raises TransientError and StatementTimedOut; the next call connects anew then."""
        with self._lock:
            connection, self._connection = self._connection, None
            if connection is None or connection.closed:
                connection = connect(self.url, application_name="incentives metrics", settings=WATCHED)
            try:
                require_leading(connection)
                levels = figures(connection)
            except BaseException:
                connection.close()
                raise
            self._connection = connection
            return levels

    def close(self) -> None:
        """Give the connection back. Harmless when called twice."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


@dataclass(slots=True)
class Queues:
    """Reads by a connection that is kept. One thread at a time."""

    broker: Broker
    settings: Settings
    stop: Stop
    _depths: Any = None

    def __call__(self) -> Levels:
        """Raises BrokerUnavailable and SettingsError; the next call connects anew then."""
        depths = self._depths or parts_of(self.broker).open_depths(self.settings, self.stop)
        try:
            levels = figures.of_queues(self.broker.source, depths.read())
        except BaseException:
            self._depths = None
            depths.close()
            raise
        self._depths = depths
        return levels

    def close(self) -> None:
        """Give the connection back. Harmless when called twice."""
        depths, self._depths = self._depths, None
        if depths is not None:
            depths.close()
