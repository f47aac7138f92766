"""What a nightly verification takes of a full ledger: what is new, the thirtieth whose turn it is, and what is current.

The ledger is growth.py's: a real run's rows, repeated under other ids. It is sealed without being verified, which growth.py does
for smaller ones; then each night's events, of customers with a history, are applied by the product before the run.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import astuple, dataclass
from typing import Any

from psycopg import Connection

from benchmarks.growth import Full, _base, fill, stream
from benchmarks.measuring import cpu_s
from benchmarks.plots import Bar, bars
from benchmarks.reporting import Figure
from benchmarks.rig import CALM_BATCH, Rig
from benchmarks.sizes import Sizes
from incentive_fleet.events.codec import decode
from incentive_fleet.ledger.batch import apply_events
from incentive_fleet.ledger.blocks import seal, settle
from incentive_fleet.ledger.connection import connect
from incentive_fleet.ledger.nightly import verify_and_record
from incentive_fleet.ledger.parts import CLOSED
from incentive_fleet.ledger.session import Session

TARGET_S = 10.0
LARGEST = "SELECT max(transfer_id) FROM transfers"


@dataclass(frozen=True, slots=True)
class Night:
    """One run: transfers and seconds of its three readings, and of sealing and the rest with them.

    Of what is new also the processor time of the server, and how busy the machine was: the two cores may have others to serve.
    """

    new: int
    new_s: float
    new_cpu_s: float
    load: float
    current_s: float
    turn: int
    turn_s: float
    whole_s: float


def figure(rig: Rig, sizes: Sizes) -> Figure:
    """Measure and tell."""
    with rig.ledger(_base(sizes)) as url:
        began = time.monotonic()
        full = fill(url, sizes, sizes.nightly_transfers)
        print(f"nightly     {full.transfers:,} transfers made in {time.monotonic() - began:.0f} s", flush=True)
        sealed_s = _seal(full)
        print(f"nightly     sealed in {sealed_s:.0f} s", flush=True)
        turns = itertools.count(1)
        nights = []
        for _ in range(sizes.nightly_nights):
            _day(full, sizes, turns)
            nights.append(_night(full))  # once: a second look would find nothing new
            print(f"nightly     {nights[-1]}", flush=True)
    return _tell(full, sealed_s, nights)


def _seal(full: Full) -> float:
    began = time.monotonic()
    with closing(Session(full.url)) as session:
        upto = settle(session.connection)
        assert upto is not None
        seal(session.connection, upto)
    return time.monotonic() - began


def _day(full: Full, sizes: Sizes, turns: itertools.count[int]) -> None:
    """Events until there are so many new transfers, in full batches."""
    with closing(Session(full.url)) as session:
        before = session.connection.execute(LARGEST).fetchall()[0][0]
        for turn in turns:
            bodies = [body for _, body in stream(full, sizes, turn)]
            for start in range(0, len(bodies), CALM_BATCH):
                apply_events(session, [decode(body) for body in bodies[start : start + CALM_BATCH]])
                if session.connection.execute(LARGEST).fetchall()[0][0] - before >= sizes.nightly_new:
                    return


def _night(full: Full) -> Night:
    began, load = time.monotonic(), os.getloadavg()[0]
    servers: list[int] = []
    spent: list[float] = []

    @contextmanager
    def connected() -> Iterator[Connection[Any]]:
        with closing(connect(full.url)) as connection:
            servers.append(connection.info.backend_pid)
            yield connection

    def look(done: int, steps: int) -> None:
        if done == len(CLOSED) and not spent:  # the orders and the customers of what is new, which come first
            spent.append(sum(map(cpu_s, servers)))

    report = verify_and_record(connected, "incremental", progress=look)
    if not report.sound:
        raise AssertionError(f"the ledger is not sound: {[one for one in report.checks if one.faults]}")
    read = {one.what: one for one in report.readings}
    return Night(
        *(read["new"].transfers, read["new"].seconds, spent[0], load, read["current"].seconds),
        *(read["turn"].transfers, read["turn"].seconds, round(time.monotonic() - began, 3)),
    )


def _tell(full: Full, sealed_s: float, nights: list[Night]) -> Figure:
    rows = [
        [
            "night",
            "new transfers",
            "read in, s",
            "CPU, s",
            "at a load of",
            "current, s",
            "its turn",
            "read in, s",
            "all of it, s",
        ]
    ]
    for number, one in enumerate(nights, 1):
        rows.append(
            [
                *(f"{number}", f"{one.new:,}", f"**{one.new_s:.1f}**", f"{one.new_cpu_s:.1f}", f"{one.load:.1f}"),
                *(f"{one.current_s:.1f}", f"{one.turn:,}", f"{one.turn_s:.1f}", f"{one.whole_s:.1f}"),
            ]
        )
    most = max(one.new_s for one in nights)
    notes = [
        f"**{full.transfers:,} transfers, {nights[0].new:,} new: what is new is read in {most:.1f} s at the most** (target"
        f" {TARGET_S:.0f}). To seal all of them the first time took {sealed_s:.0f} s."
    ]
    values = [
        Bar(f"night {number}", one.new_s, one.new_s, one.new_s, ours=True) for number, one in enumerate(nights, 1)
    ]
    data = {"transfers": full.transfers, "sealed_s": sealed_s, "nights": [[*astuple(one)] for one in nights]}
    return Figure("nightly", "Nightly verification", rows, notes, bars("What is new was read in", "s", values), data)
