"""How everything stands, in plain values: sources, processes, letters, what waits, the jobs of a schedule, the parts.

`incentives status` prints them. It changes nothing but the note of when somebody looked. A part that does not answer within
`PART_S` is told as such, and what it would have told is None.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as Late
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Generic, Literal, TypeVar

from psycopg import Connection

from incentive_fleet.addresses import without_logins
from incentive_fleet.brokers.contract import Broker, QueueDepths
from incentive_fleet.brokers.registry import configured, parts_of
from incentive_fleet.brokers.topology import QueueDepth
from incentive_fleet.dead_letters.standing import OpenLetters, read_open
from incentive_fleet.errors import FleetError, StatementTimedOut
from incentive_fleet.ledger.connection import connect, mapped_errors, require_leading
from incentive_fleet.ledger.jobs import Job, JobRun, read_runs
from incentive_fleet.ledger.looks import keep_look, last_look
from incentive_fleet.ledger.processes import SeenProcess, read_processes
from incentive_fleet.ledger.standing import WATCHED, Backlog, read_backlog
from incentive_fleet.settings import Settings
from incentive_fleet.stopping import Stop

PART_S: Final = 5.0  # for each part, all at once
DATABASE: Final = "database"
State = Literal["reached", "unreachable", "timed-out"]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PartState:
    """Whether a part answered, and what it said where it did not."""

    part: str
    state: State
    detail: str = ""


@dataclass(frozen=True, slots=True)
class SourceStatus:
    """A broker's source queues, all together. None is what nobody tells."""

    source: str
    ready: int | None = None
    in_flight: int | None = None
    delayed: int | None = None
    dead: int | None = None  # in the dead-letter queues
    oldest_s: float | None = None  # age of the oldest message where the broker tells it, else of the one received last
    in_per_s: float | None = None
    out_per_s: float | None = None  # settled for good, acknowledged or dead
    lag_s: float | None = None  # from publishing to COMMIT, on the average of what was committed last


@dataclass(frozen=True, slots=True)
class LedgerStatus:
    """What the ledger tells. None is what it did not tell within its time."""

    at: datetime
    standby: bool
    since: datetime | None  # the look before this one
    letters: list[OpenLetters] | None
    backlog: Backlog | None
    runs: dict[Job, JobRun] | None
    processes: list[SeenProcess] | None


@dataclass(frozen=True, slots=True)
class Status:
    """One look at everything."""

    parts: list[PartState]
    sources: list[SourceStatus]
    ledger: LedgerStatus | None


@dataclass(frozen=True, slots=True)
class _Depths:
    queues: list[QueueDepth]
    at: float  # monotonic

    def of(self, *roles: str) -> list[QueueDepth]:
        return [queue for queue in self.queues if queue.role in roles]

    def waiting(self) -> int:
        return sum(one.ready + (one.in_flight or 0) + (one.delayed or 0) for one in self.of("source", "retry"))


@dataclass(slots=True)
class _Question(Generic[T]):
    """Asked in a thread of its own; one that is still under way is not asked twice."""

    part: str
    read: Callable[[], T]
    asked: Future[T] | None = None

    def ask(self) -> None:
        if self.asked is None:
            self.asked = Future()
            self.asked.set_running_or_notify_cancel()
            threading.Thread(target=self._answer, args=(self.asked,), name=f"status {self.part}", daemon=True).start()

    def _answer(self, asked: Future[T]) -> None:
        try:
            asked.set_result(self.read())
        except BaseException as error:
            asked.set_exception(error)

    def answer(self, until: float) -> tuple[T | None, PartState]:
        """What it said until then (monotonic). Raises what nobody expects."""
        assert self.asked is not None
        try:
            value = self.asked.result(max(0.0, until - time.monotonic()))
        except Late:
            return None, PartState(self.part, "timed-out", f"no answer within {PART_S:g} s")
        except FleetError as error:
            self.asked = None
            return None, PartState(self.part, "unreachable", without_logins(" ".join(str(error).split())))
        self.asked = None
        return value, PartState(self.part, "reached")


@dataclass(slots=True)
class Watcher:
    """Looks as often as it is asked, by connections that it keeps. Belongs to one thread."""

    settings: Settings
    looker: str
    keeps: bool  # whether a look counts as the last one
    _stop: Stop = field(default_factory=Stop)
    _connection: Connection[Any] | None = None
    _since: datetime | None = None
    _looked: bool = False
    _open: dict[str, QueueDepths] = field(default_factory=dict)
    _before: dict[str, _Depths] = field(default_factory=dict)
    _questions: dict[str, _Question[Any]] = field(default_factory=dict)

    def glance(self) -> None:
        """Read the depths, so that the next look can tell the rates since."""
        depths, _ = self._ask([self._depths_of(broker) for broker in configured(self.settings)])
        self._before |= {source: read for source, read in depths.items() if read is not None}

    def look(self) -> Status:
        """Everything now; takes `PART_S` at the most. Raises SettingsError, and what is a bug."""
        brokers = configured(self.settings)
        found, states = self._ask([_Question(DATABASE, self._read_ledger), *map(self._depths_of, brokers)])
        ledger = found[DATABASE]
        serving = None if ledger is None or ledger.processes is None else ledger.processes
        sources = []
        for broker in brokers:
            depths = found[broker.source]
            sources.append(_source(broker, depths, self._before.get(broker.source), serving))
            if depths is not None:
                self._before[broker.source] = depths
        return Status(states, sources, ledger)

    def close(self) -> None:
        """Let go of what nobody is reading by. Raises nothing."""
        self._stop.set()
        for source, depths in self._open.items():
            if not self._pending(source):
                depths.close()
        if self._connection is not None and not self._pending(DATABASE):
            self._connection.close()

    def _pending(self, part: str) -> bool:
        return part in self._questions and self._questions[part].asked is not None

    def _ask(self, questions: Sequence[_Question[Any]]) -> tuple[dict[str, Any], list[PartState]]:
        asked = [self._questions.setdefault(one.part, one) for one in questions]
        for one in asked:
            one.ask()
        until = time.monotonic() + PART_S
        answers = {one.part: one.answer(until) for one in asked}
        return {part: value for part, (value, _) in answers.items()}, [state for _, state in answers.values()]

    def _depths_of(self, broker: Broker) -> _Question[_Depths]:
        def read() -> _Depths:
            depths = self._open.pop(broker.source, None) or parts_of(broker).open_depths(self.settings, self._stop)
            try:
                queues = depths.read()
            except BaseException:
                depths.close()
                raise
            self._open[broker.source] = depths
            return _Depths(queues, time.monotonic())

        return _Question(broker.source, read)

    def _read_ledger(self) -> LedgerStatus:
        connection, self._connection = self._connection, None
        if connection is None or connection.closed:
            url = self.settings.need_database_url()
            connection = connect(url, application_name="incentives status", settings=WATCHED)
        try:
            require_leading(connection)
            with mapped_errors(blameless=True):
                at, standby = connection.execute("SELECT now(), pg_is_in_recovery()").fetchall()[0]
            if not self._looked:
                self._since, self._looked = last_look(connection, self.looker), True
                if self.keeps and not standby:
                    keep_look(connection, self.looker, at)
            read = LedgerStatus(
                at,
                standby,
                self._since,
                _in_time(lambda: read_open(connection, self._since)),
                _in_time(lambda: read_backlog(connection)),
                _in_time(lambda: read_runs(connection)),
                _in_time(lambda: read_processes(connection)),
            )
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return read


def _in_time(read: Callable[[], T]) -> T | None:
    try:
        return read()
    except StatementTimedOut:
        return None


def _source(
    broker: Broker, depths: _Depths | None, before: _Depths | None, processes: Sequence[SeenProcess] | None
) -> SourceStatus:
    told = [
        one.figures["sources"][broker.source]
        for one in processes or ()
        if not one.silent and broker.source in one.figures.get("sources", {})
    ]
    out_per_s = None if processes is None else round(sum(one["out_per_s"] for one in told), 1)
    oldest, lags = ([one[name] for one in told if one[name] is not None] for name in ("oldest_s", "lag_s"))
    seen = SourceStatus(
        broker.source, out_per_s=out_per_s, oldest_s=max(oldest, default=None), lag_s=max(lags, default=None)
    )
    return seen if depths is None else _with_depths(seen, depths, before)


def _with_depths(seen: SourceStatus, depths: _Depths, before: _Depths | None) -> SourceStatus:
    source, retry, dead = depths.of("source"), depths.of("retry"), depths.of("dead-letter")
    ages = [one.oldest_s for one in source if one.oldest_s is not None]
    in_per_s = None
    if before is not None and seen.out_per_s is not None and depths.at > before.at:
        grown = (depths.waiting() - before.waiting()) / (depths.at - before.at)
        in_per_s = round(max(0.0, seen.out_per_s + grown), 1)
    return SourceStatus(
        seen.source,
        ready=sum(one.ready for one in source),
        in_flight=_sum([one.in_flight for one in (*source, *retry)]),
        delayed=_sum([*(one.delayed for one in (*source, *retry)), *(one.ready for one in retry)]),
        dead=sum(one.ready + (one.in_flight or 0) for one in dead),
        oldest_s=max(ages, default=seen.oldest_s),
        in_per_s=in_per_s,
        out_per_s=seen.out_per_s,
        lag_s=seen.lag_s,
    )


def _sum(counts: Sequence[int | None]) -> int | None:
    """None where nobody tells any of them."""
    told = [count for count in counts if count is not None]
    return sum(told) if told else None
