"""Gathering: a batch of a few is followed by a short wait, so that the next few together cost what one would.

The bodies are no events, so that no database is asked: they end as dead letters.
"""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from incentive_fleet.brokers.memory import MemoryBroker, MemoryTransport
from incentive_fleet.consumers.consumer import Consumer
from incentive_fleet.consumers.core import Core
from incentive_fleet.ledger.session import Session
from incentive_fleet.stopping import Stop

NOWHERE = "postgresql://127.0.0.1:1/none"


class Waited(Stop):
    """Notes each wait, and does not wait."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float] = []

    def wait(self, seconds: float) -> bool:
        self.waits.append(seconds)
        return self.is_set()


def waits_after(bodies: int, *, batch_size: int, gather_s: float) -> list[float]:
    broker, stop = MemoryBroker(), Waited()
    for number in range(bodies):
        broker.publish(b"%d" % number, "order-placed.v1")
    core = Core(Session(NOWHERE), (5.0,), lambda: datetime.now(UTC))
    consumer = Consumer("g", MemoryTransport(broker), core, batch_size, 0.01, 1.0, stop, gather_s=gather_s)
    consumer.run(until_idle_s=0)
    assert core.counts.total() == bodies
    return stop.waits


def test_a_batch_of_a_few_lets_the_next_one_gather() -> None:
    assert waits_after(2, batch_size=3, gather_s=60) == [pytest.approx(60, abs=20)]


def test_one_alone_keeps_nobody_waiting() -> None:
    assert waits_after(1, batch_size=3, gather_s=60) == []


@pytest.mark.parametrize("bodies", [2, 4])
def test_full_batches_follow_each_other_at_once(bodies: int) -> None:
    assert waits_after(bodies, batch_size=2, gather_s=60) == []


def test_where_nothing_is_to_be_gathered_nobody_waits() -> None:
    assert waits_after(2, batch_size=3, gather_s=0) == []
