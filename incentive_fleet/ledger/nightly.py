"""Verification that can run every night: what is new, a thirtieth of the rest, and the current balances; then it is recorded.

What was found sound is sealed in blocks (blocks.py), and the next run begins behind them. It changes nothing else: it
never repairs, and blocks nobody. The parts of the ledger that it reads are in parts.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import groupby
from operator import itemgetter
from time import monotonic
from typing import Any, Final, Literal

from psycopg import Connection, Error

from incentive_fleet.events.times import format_time
from incentive_fleet.ledger.blocks import (
    BLOCK_TRANSFERS,
    SETTLE_S,
    TURNS,
    Point,
    Range,
    blocks_of_turn,
    read_point,
    seal,
    settle,
)
from incentive_fleet.ledger.connection import mapped_errors
from incentive_fleet.ledger.jobs import read_runs, record_run
from incentive_fleet.ledger.parts import BALANCES, CLOSED, FOR_PARTS, Rows, faults_in, wrong_sums
from incentive_fleet.ledger.snapshot import Another, beside, snapshot
from incentive_fleet.ledger.verify import (
    BLOCKS,
    SAMPLE_MAX,
    Check,
    CheckResult,
    Extent,
    Part,
    VerifyReport,
    all_checks,
    check_blocks,
    faults_of,
    require_sample,
    verify,
)

Mode = Literal["auto", "full", "incremental"]
Progress = Callable[[int, int], None]
GIVE_UP_S: Final = 5.0  # to reach the server with the word that an answer is not wanted any more
WHOLE_UP_TO: Final = 200_000  # transfers below the point: a ledger so small is read whole, which takes seconds
TURN_SENTENCE: Final = f"nor this run's turn, which comes once in {TURNS} runs"
UNSAID: Final[dict[tuple[Part, ...], str]] = {
    (
        "orders",
    ): f"Orders that are neither new {TURN_SENTENCE}; without transfer, outcome or waiting fact, --full alone.",
    ("customers",): f"Customers who have nothing new {TURN_SENTENCE}; without any transfer, --full alone.",
    (
        "orders",
        "customers",
    ): f"A single account of orders and customers that are neither new {TURN_SENTENCE}: those by their sum.",
}
UNSAID_BLOCKS: Final = f"Blocks whose turn it is not, which comes once in {TURNS} runs."

MOMENT: Final = """
    SELECT now(), (SELECT count(*) FROM transfers WHERE transfer_id > %s), (SELECT coalesce(max(transfer_id), 0) FROM transfers),
           (SELECT coalesce(max(outbox_id), 0) FROM outbox)
"""


@dataclass(slots=True)
class Found:
    """The faults of one check so far. A row that two readings found is one."""

    check: Check
    beyond: int = 0  # rows past those that are told apart
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, faults: int, first: list[dict[str, Any]]) -> None:
        self.beyond += faults - len(first)
        for row in first:
            if len(self.rows) < SAMPLE_MAX:
                self.rows[str(row)] = row
            else:
                self.beyond += 1

    def result(self, sample: int) -> CheckResult:
        rows = [self.rows[text] for text in sorted(self.rows)]
        unsaid = UNSAID[self.check.parts] if self.check.parts else ""
        return CheckResult(self.check.name, self.check.description, len(rows) + self.beyond, rows[:sample], unsaid)


def verify_and_record(
    another: Another,
    mode: Mode = "auto",
    sample: int = 10,
    progress: Progress = lambda done, checks: None,
    *,
    settle_s: float = SETTLE_S,
    block_transfers: int = BLOCK_TRANSFERS,
) -> VerifyReport:
    """Verify by `mode`, move the point over what is new if that was sound, and write the run down.

    `auto` reads everything as long as no more than 200,000 transfers lie below the point, and is incremental beyond. With no
    point yet all is new, so any mode reads everything. On a standby, which takes no writes, nothing is sealed or recorded.
    Waits at most `settle_s` for transactions that write when it begins. It opens `another` connection, and where
    one more is to be had, the orders and the customers of what is new are read at once.

    Interrupted, it has recorded nothing, and may be run again at once; also twice at once. Raises ValueError for a sample
    outside 0 to 10,000, DatabaseUnavailable, DatabaseContention or DatabaseUnfit.
    """
    require_sample(sample)
    with mapped_errors(blameless=True), another() as connection:
        began = monotonic()
        began_at, standby = _begin(connection)
        point = read_point(connection)
        upto = None if standby else settle(connection, settle_s)
        if point.block == 0 or mode == "full" or (mode == "auto" and point.transfers <= WHOLE_UP_TO):
            report = verify(connection, sample, progress)
        else:
            report = _verify_in_part(connection, point, sample, progress, another)
        if standby:
            return report
        # A block that has changed is the past's; what is new may be sealed beside it, and the run is not sound all the same.
        if upto is not None and not any(check.faults for check in report.checks if check.name != BLOCKS):
            seal(connection, upto, block_transfers)
        report = replace(report, point=read_point(connection), recorded=True, held=upto is None)
        _record(connection, report, began_at, monotonic() - began)
    return report


def _begin(connection: Connection[Any]) -> tuple[datetime, bool]:
    row = connection.execute("SELECT now(), pg_is_in_recovery()").fetchone()
    assert row is not None
    return row[0], row[1]


def _record(connection: Connection[Any], report: VerifyReport, began_at: datetime, seconds: float) -> None:
    figures = {
        "transfers": report.transfers,
        "point": report.point.transfer_id,
        "block": report.point.block,
        "digest": report.point.digest,
        "full": report.full,
        "held": report.held,
        "faults": sum(check.faults for check in report.checks),
        "failed": [check.name for check in report.checks if check.faults],
        "seconds": {reading.what: reading.seconds for reading in report.readings},
    }
    record_run(connection, "verify", began_at, seconds, well=report.sound, figures=figures)
    if report.full:
        record_run(connection, "verify-full", began_at, seconds, well=report.sound, figures=figures)


def _verify_in_part(
    connection: Connection[Any], point: Point, sample: int, progress: Progress, another: Another
) -> VerifyReport:
    with snapshot(connection, whole_tables=True):
        connection.execute(FOR_PARTS)
        moment, fresh, *largest = connection.execute(MOMENT, (point.transfer_id,)).fetchall()[0]
        turn = _turn(connection)
        new = Range(point.transfer_id, largest[0], point.outbox_id, largest[1], fresh)
        old = blocks_of_turn(connection, turn)
        run = _Run(connection, progress, (len(old) + 1) * len(CLOSED))
        readings = [run.timed("new", fresh, lambda: run.read_new(new, another))]
        readings.append(run.timed("current", 0, lambda: run.read_current(new)))
        again = sum(one.transfers for one in old)
        readings.append(run.timed("turn", again, lambda: run.read_parts(old)))
        blocks = replace(check_blocks(connection, sample, turn), unsaid=UNSAID_BLOCKS)
        progress(run.steps, run.steps)
    checks = [*(one.result(sample) for one in run.found.values()), blocks]
    return VerifyReport(format_time(moment), point.transfers + fresh, checks, readings, point, full=False, turn=turn)


class _Run:
    """One run's reading in one snapshot, and what it has found so far."""

    def __init__(self, connection: Connection[Any], progress: Progress, in_part: int) -> None:
        self.found = {check.name: Found(check) for check in all_checks()}
        self.steps = in_part + sum(not check.parts for check in all_checks()) + 2
        self._connection = connection
        self._progress = progress
        self._done = 0

    def timed(self, what: Literal["new", "turn", "current"], transfers: int, read: Callable[[], object]) -> Extent:
        began = monotonic()
        read()
        return Extent(what, transfers, round(monotonic() - began, 3))

    def read_new(self, new: Range, another: Another) -> None:
        """The orders and customers of what is new, with all that is theirs; the orders of facts that wait, too. At once
        where there is another connection to be had, for each of the two takes a processor."""
        with beside(self._connection, another) as second:
            if second is None:
                self.read_part(new, waiting=True)
                return
            second.execute(FOR_PARTS)
            with ThreadPoolExecutor(1) as pool, _given_up(second):
                customers = pool.submit(faults_in, second, "customers", new, waiting=True)
                self._note(faults_in(self._connection, "orders", new, waiting=True))
                self._note(customers.result())

    def read_part(self, stretch: Range, *, waiting: bool) -> None:
        """The orders and customers of a stretch, with all that is theirs; with `waiting` the orders of facts that wait too."""
        for part in CLOSED:
            self._note(faults_in(self._connection, part, stretch, waiting=waiting))

    def _note(self, rows: Rows) -> None:
        for name, of_one in groupby(rows, key=itemgetter(0)):
            told = list(of_one)
            self.found[name].add(told[0][1], [fault for _, _, fault in told])
        self._tick(True)

    def read_parts(self, stretches: Sequence[Range]) -> None:
        for stretch in stretches:
            self.read_part(stretch, waiting=False)

    def read_current(self, new: Range) -> None:
        """What is little or current, whole; and the balances' sums against those of all blocks and of what is new."""
        for one in self.found.values():
            if not one.check.parts:
                one.add(*faults_of(self._connection, one.check.sql, SAMPLE_MAX))
            self._tick(not one.check.parts)
        self.found[BALANCES].add(*wrong_sums(self._connection, new))
        self._tick(True)

    def _tick(self, has_run: bool) -> None:
        self._done += has_run
        self._progress(self._done, self.steps)


def _turn(connection: Connection[Any]) -> int:
    """Counted by the runs that were recorded: thirty in a row have every turn."""
    last = read_runs(connection).get("verify")
    return last.runs % TURNS if last else 0


@contextmanager
def _given_up(second: Connection[Any]) -> Iterator[None]:
    """Whoever fails, or is interrupted, inside does not wait for what another thread reads by the second connection."""
    try:
        yield
    except BaseException:
        with suppress(Error):  # a lost connection waits for nothing
            second.cancel_safe(timeout=GIVE_UP_S)
        raise
