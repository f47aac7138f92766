"""A full budget stops the reading from RabbitMQ, and nothing else."""

from __future__ import annotations

import time
from contextlib import closing

from incentive_fleet.brokers import topology
from incentive_fleet.brokers.messages import Ack, Delivery
from incentive_fleet.brokers.rabbitmq.dead_letters import RabbitMQDeadLetters
from tests.contract.brokers_under_test import PLACED, RabbitMQUnderTest, collect, eventually
from tests.contract.test_transport import bodies


def test_a_full_budget_stops_the_reading_and_outlives_heartbeats(rabbitmq_under_test: RabbitMQUnderTest) -> None:
    """What is held fills the budget for longer than either side waits for a sign of life; acknowledgements go out meanwhile."""
    sent = bodies(40)
    rabbitmq_under_test.send(*(body.ljust(50_000, b" ") for body in sent))
    url = rabbitmq_under_test.direct.need_rabbitmq_url()
    transport = rabbitmq_under_test.open(rabbitmq_url=f"{url}?heartbeat=1", held_bytes_max=1024 * 1024)
    held = collect(transport, 2)
    assert [delivery.body.strip() for delivery in held] == sent[:2]
    link = transport._consuming
    assert link is not None
    time.sleep(8)  # pika gives a silent peer its heartbeat and 5 s, RabbitMQ two heartbeats
    assert link.alive
    assert link.undelivered < 3
    transport.settle([(delivery, Ack()) for delivery in held])
    rest: list[Delivery] = []
    while len(rest) < len(sent) - 2:
        received = transport.receive(100, 5)
        assert 1 <= len(received) <= 3
        transport.settle([(delivery, Ack()) for delivery in received])
        rest += received
    assert [delivery.body.strip() for delivery in rest] == sent[2:]
    assert {delivery.receive_count for delivery in rest} == {1}
    assert (transport.skipped, transport._consuming) == (0, link)
    eventually(transport.idle)


def test_closing_while_the_reading_is_stopped_sends_what_is_settled_and_gives_back_the_rest(
    rabbitmq_under_test: RabbitMQUnderTest,
) -> None:
    sent = [body.ljust(400_000, b" ") for body in bodies(30)]
    rabbitmq_under_test.send(*sent)
    transport = rabbitmq_under_test.open(held_bytes_max=1024 * 1024)
    first = collect(transport, 1)
    transport.settle([(delivery, Ack()) for delivery in first])
    started = time.monotonic()
    transport.close()
    assert time.monotonic() - started < 4
    again = collect(rabbitmq_under_test.open(held_bytes_max=1024 * 1024 * 1024), len(sent) - 1)
    assert sorted(delivery.body for delivery in again) == sorted(sent[1:])


def test_closing_while_the_reading_is_stopped_outlasts_heartbeats_that_are_due(
    rabbitmq_under_test: RabbitMQUnderTest,
) -> None:
    """The broker is slow to hang up, so a heartbeat falls due meanwhile; pytest fails a test whose thread ends by an error."""
    rabbitmq_under_test.send(*(body.ljust(400_000, b" ") for body in bodies(30)))
    url = rabbitmq_under_test.settings.need_rabbitmq_url()
    transport = rabbitmq_under_test.open(rabbitmq_url=f"{url}?heartbeat=1", held_bytes_max=1024 * 1024)
    collect(transport, 1)
    link = transport._consuming
    assert link is not None
    rabbitmq_under_test.proxy.pause_s = 0.5
    try:
        transport.close()
    finally:
        rabbitmq_under_test.proxy.pause_s = 0.0
    assert not link._thread.is_alive()


def test_a_large_body_does_not_wait_for_consumers_that_are_yet_to_be_answered(
    rabbitmq_under_test: RabbitMQUnderTest,
) -> None:
    """The first queue's message stops the reading before the broker's word on the second and third was read."""
    for type_, _ in topology.SOURCES:
        rabbitmq_under_test.send(*(name.ljust(200_000, b" ") for name in bodies(2)), type_=type_)
    transport = rabbitmq_under_test.open(held_bytes_max=1024 * 1024)
    received: list[Delivery] = []
    while len(received) < 2 * len(topology.SOURCES):
        some = transport.receive(10, 5)
        assert some
        transport.settle([(delivery, Ack()) for delivery in some])
        received += some
    eventually(transport.idle)


def test_a_queue_is_not_idle_while_a_large_body_is_on_its_way(rabbitmq_under_test: RabbitMQUnderTest) -> None:
    """Once delivered, the broker counts it as ready no more, and only the management API would tell of it."""
    transport = rabbitmq_under_test.open()
    assert transport.receive(1, 0.2) == []
    rabbitmq_under_test.proxy.pause_s = 0.1
    rabbitmq_under_test.send(b"x" * 3_000_000)
    try:
        rounds = 0
        while not (received := transport.receive(10, 0.2)):
            assert not transport.idle()
            rounds += 1
    finally:
        rabbitmq_under_test.proxy.pause_s = 0.0
    assert rounds > 5, "the body was long on its way"
    transport.settle([(delivery, Ack()) for delivery in received])
    eventually(transport.idle)


def test_dead_letters_are_not_gone_while_a_large_one_is_on_its_way(rabbitmq_under_test: RabbitMQUnderTest) -> None:
    """A collector that is to end when there are none must not leave it behind."""
    queue = f"{rabbitmq_under_test.queue(PLACED)}.dlq"
    with closing(RabbitMQDeadLetters(rabbitmq_under_test.settings)) as letters:
        assert letters.receive(1, 0.2) == []
        rabbitmq_under_test.proxy.pause_s = 0.1
        with rabbitmq_under_test.channel() as channel:
            channel.confirm_delivery()
            channel.basic_publish("", queue, b"x" * 3_000_000, mandatory=True)
        try:
            rounds = 0
            while not (received := letters.receive(10, 0.2)):
                assert not letters.empty()
                rounds += 1
        finally:
            rabbitmq_under_test.proxy.pause_s = 0.0
        assert rounds > 5, "the body was long on its way"
        letters.remove(received)
        eventually(letters.empty)
