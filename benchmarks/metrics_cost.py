"""`python -m benchmarks.metrics_cost`: what counting costs of a worker's CPU an event, in ten interleaved pairs with and without.

Each half of a pair consumes events of its own from memory into one real Postgres; the worker's CPU time alone is compared, for
counting happens nowhere else. Which half comes first changes from pair to pair.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import patch

from incentive_fleet.brokers.memory import MemoryBroker, MemoryTransport
from incentive_fleet.consumers import consumer as consuming
from incentive_fleet.consumers import core as deciding
from incentive_fleet.consumers.consumer import Consumer
from incentive_fleet.consumers.core import Core
from incentive_fleet.embedded import sample_shop
from incentive_fleet.embedded.postgres import Postgres
from incentive_fleet.incentives.campaign_file import parse_campaigns
from incentive_fleet.ledger.grants import Grant, grant
from incentive_fleet.ledger.migrate import upgrade
from incentive_fleet.ledger.session import Session
from incentive_fleet.ledger.terms import load_campaigns
from incentive_fleet.measuring import Tally
from incentive_fleet.stopping import Stop

PAIRS, ORDERS, BATCH = 10, 2_000, 500
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@contextmanager
def nothing_counted() -> Iterator[None]:
    """The same program, whose counting does nothing."""

    def nothing(*_: Any, **__: Any) -> None:
        pass

    with ExitStack() as stack:
        for name in ("add", "level", "observe", "observe_all"):
            stack.enter_context(patch.object(Tally, name, nothing))
        stack.enter_context(patch.object(Tally, "phase", lambda *_: time.perf_counter()))
        stack.enter_context(patch.object(deciding, "tell_latencies", nothing))
        for name in ("tell_received", "tell_empty"):
            stack.enter_context(patch.object(consuming, name, nothing))
        yield


def consume(url: str, name: str) -> float:
    """Microseconds of CPU an event."""
    shop = sample_shop.Shop(ORDERS, seed=len(name), name=name)
    bodies = list(sample_shop.events(shop))
    with closing(Session(url)) as session:
        grant(session, [Grant(*row, expires_at=None) for row in sample_shop.grants(shop)], NOON)
        broker = MemoryBroker()
        for type_, body in bodies:
            broker.publish(body, type_)
        core = Core(session, (1.0,), lambda: datetime.now(UTC))
        consumer = Consumer("memory-1", MemoryTransport(broker), core, BATCH, 0.05, 1.0, Stop())
        began = time.process_time()
        consumer.run(0.01)
        took_s = time.process_time() - began
    assert sum(core.counts.values()) == len(bodies)
    return took_s / len(bodies) * 1e6


def main() -> int:
    """Print each pair and the median."""
    with tempfile.TemporaryDirectory() as folder:
        server = Postgres(Path(folder) / "postgres")
        server.start()
        try:
            url = server.url("postgres")
            upgrade(url)
            with closing(Session(url)) as session:
                load_campaigns(session.connection, parse_campaigns(sample_shop.CAMPAIGNS))
            consume(url, "warm")
            shares = [_pair(url, number) for number in range(PAIRS)]
        finally:
            server.stop()
    print(f"median of {PAIRS} pairs: {statistics.median(shares):+.1%} of CPU an event")
    return 0


def _pair(url: str, number: int) -> float:
    took: dict[bool, float] = {}
    for counted in (True, False) if number % 2 else (False, True):
        if counted:
            took[counted] = consume(url, f"c{number}")
        else:
            with nothing_counted():
                took[counted] = consume(url, f"n{number}")
    share = took[True] / took[False] - 1
    print(f"pair {number}: {took[True]:.1f} µs with, {took[False]:.1f} µs without, {share:+.1%}", flush=True)
    return share


if __name__ == "__main__":
    sys.exit(main())
