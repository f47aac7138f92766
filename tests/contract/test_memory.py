"""What is true of the memory broker alone: time is what its clock says, and its bounds hold."""

from __future__ import annotations

import pytest

from incentive_fleet.brokers.memory import MemoryBroker, MemoryTransport
from incentive_fleet.brokers.messages import Ack, Retry
from incentive_fleet.errors import BrokerUnavailable
from tests.contract.test_transport import failure


def test_a_retry_waits_for_the_clock_it_is_given() -> None:
    now = 1_000.0
    broker = MemoryBroker(clock=lambda: now)
    transport = MemoryTransport(broker)
    broker.publish(b"a", "order-placed.v1")
    [delivery] = transport.receive(1, 0)
    transport.settle([(delivery, Retry(600, failure()))])
    now += 599
    assert transport.receive(1, 0) == []
    assert not transport.idle()
    now += 1
    [again] = transport.receive(1, 0)
    assert again.failure == failure()
    transport.settle([(again, Ack())])
    assert transport.idle()


def test_a_full_broker_refuses() -> None:
    broker = MemoryBroker(capacity=2)
    broker.publish(b"a", None)
    broker.publish(b"b", None)
    with pytest.raises(BrokerUnavailable, match="full at 2"):
        broker.publish(b"c", None)


def test_what_is_given_back_keeps_its_place() -> None:
    broker = MemoryBroker()
    for body in (b"a", b"b", b"c"):
        broker.publish(body, "order-refunded.v1")
    first = MemoryTransport(broker)
    first.receive(2, 0)
    first.close()
    assert [delivery.body for delivery in MemoryTransport(broker).receive(3, 0)] == [b"a", b"b", b"c"]
