"""What transport.py promises, checked alike against memory, SQS (LocalStack and moto) and RabbitMQ."""

from __future__ import annotations

import random
import threading
import time
from datetime import UTC, datetime

import pytest

from incentive_fleet.brokers import message_headers
from incentive_fleet.brokers.messages import Ack, DeadLetter, Delivery, Failure, Release, Retry
from incentive_fleet.errors import BrokerUnavailable
from tests.contract.brokers_under_test import DELIVERED, PLACED, REFUNDED, BrokerUnderTest, collect, eventually

AT = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)


def failure(attempts: int = 1) -> Failure:
    return Failure(
        attempts=attempts,
        error_class="ValueError",
        message="no such thing \u2013 really",
        traceback="Traceback ...\nValueError",
        first_at=AT,
        last_at=AT,
        host="here",
    )


def bodies(count: int) -> list[bytes]:
    return [f'{{"n": {number}}}'.encode() for number in range(count)]


def test_receive_returns_as_soon_as_anything_is_there(broker: BrokerUnderTest) -> None:
    transport = broker.open()
    transport.receive(1, 0.01)
    threading.Timer(0.3, broker.send, (b"one",)).start()
    started = time.monotonic()
    assert [delivery.body for delivery in transport.receive(100, 20)] == [b"one"]
    assert time.monotonic() - started < 10


def test_receive_without_messages_gives_an_empty_list_after_the_wait(broker: BrokerUnderTest) -> None:
    transport = broker.open()
    transport.receive(1, 0.01)
    started = time.monotonic()
    assert transport.receive(10, 0.3) == []
    assert 0.25 < time.monotonic() - started < 3


def test_receive_gives_at_most_what_was_asked_for(broker: BrokerUnderTest) -> None:
    broker.send(*bodies(25))
    transport = broker.open()
    seen: list[bytes] = []
    while len(seen) < 25:
        deliveries = transport.receive(7, 5)
        assert 0 < len(deliveries) <= 7
        seen += [delivery.body for delivery in deliveries]
        transport.settle([(delivery, Ack()) for delivery in deliveries])
    assert sorted(seen) == sorted(bodies(25))


def test_a_delivery_says_what_and_whence_it_is(broker: BrokerUnderTest) -> None:
    body = '{"text": "\u00e9\n\u6f22\U0001f600"}'.encode() + b" " * 200_000
    broker.send(body, type_=REFUNDED)
    [delivery] = collect(broker.open(), 1)
    assert delivery.body == body
    assert delivery.queue == broker.queue(REFUNDED)
    assert delivery.receive_count == 1
    assert delivery.headers["type"] == REFUNDED
    assert delivery.message_id
    assert delivery.failure is None


def test_each_type_has_its_queue_and_the_unknown_go_to_the_placed_queue(any_broker: BrokerUnderTest) -> None:
    any_broker.send(b"placed")
    any_broker.send(b"refunded", type_=REFUNDED)
    any_broker.send(b"delivered", type_=DELIVERED)
    any_broker.send(b"unknown", type_="order-placed.v99")
    any_broker.send(b"untyped", type_=None)
    got = {delivery.body: delivery.queue for delivery in collect(any_broker.open(), 5)}
    placed = any_broker.queue(PLACED)
    assert got == {
        b"placed": placed,
        b"refunded": any_broker.queue(REFUNDED),
        b"delivered": any_broker.queue(DELIVERED),
        b"unknown": placed,
        b"untyped": placed,
    }


def test_deliveries_come_in_publishing_order_where_that_is_guaranteed(broker: BrokerUnderTest) -> None:
    transport = broker.open()
    broker.send(*bodies(30))
    got = [delivery.body for delivery in collect(transport, 30)]
    assert sorted(got) == sorted(bodies(30))
    if transport.guarantees.ordered:
        assert got == bodies(30)


def test_an_acknowledged_message_never_comes_again(broker: BrokerUnderTest) -> None:
    broker.send(*bodies(12))
    transport = broker.open()
    transport.settle([(delivery, Ack()) for delivery in collect(transport, 12)])
    eventually(transport.idle)
    assert transport.receive(10, 1.5) == []
    assert transport.skipped == 0


def test_settling_works_in_any_order_and_in_several_calls(broker: BrokerUnderTest) -> None:
    broker.send(*bodies(40))
    broker.send(*bodies(10), type_=REFUNDED)
    transport = broker.open()
    deliveries = collect(transport, 50)
    random.Random(7).shuffle(deliveries)
    for start in range(0, 50, 9):
        transport.settle([(delivery, Ack()) for delivery in deliveries[start : start + 9]])
    eventually(transport.idle)
    transport.close()
    assert broker.open().receive(10, 1.5) == []
    assert transport.skipped == 0


def test_a_released_message_is_there_again_at_once(broker: BrokerUnderTest) -> None:
    broker.send(b"later")
    transport = broker.open(sqs_visibility_s=30)
    [first] = collect(transport, 1)
    transport.settle([(first, Release())])
    [second] = collect(transport, 1, within_s=5)
    assert second.body == b"later"
    assert second.receive_count == (2 if transport.guarantees.counts_deliveries else 1)


def test_a_retry_comes_after_its_delay_with_its_failure_where_the_transport_carries_it(broker: BrokerUnderTest) -> None:
    broker.send(b"again")
    transport = broker.open()
    [first] = collect(transport, 1)
    started = time.monotonic()
    transport.settle([(first, Retry(1.0, failure()))])
    [second] = collect(transport, 1)
    assert time.monotonic() - started > 0.9
    assert second.body == b"again"
    assert second.queue == first.queue
    assert second.headers["type"] == PLACED
    assert second.failure == (failure() if transport.guarantees.carries_failures else None)


def test_retry_keeps_counting_until_the_dead_letter(broker: BrokerUnderTest) -> None:
    broker.send(b"poison")
    transport = broker.open()
    for attempt, delay in enumerate((1.0, 2.0), 1):
        [delivery] = collect(transport, 1)
        if transport.guarantees.carries_failures:
            assert (delivery.failure.attempts if delivery.failure else 0) == attempt - 1
        else:
            assert delivery.receive_count == attempt
        transport.settle([(delivery, Retry(delay, failure(attempt)))])
    [delivery] = collect(transport, 1)
    transport.settle([(delivery, DeadLetter("unexpected-error", "ValueError", failure(3)))])
    [letter] = eventually(broker.letters)
    carried = message_headers.failure_in(letter.headers)
    assert carried == failure(3)
    eventually(transport.idle)


def test_a_dead_letter_keeps_body_and_headers_and_says_why(any_broker: BrokerUnderTest) -> None:
    any_broker.send(b"bad\tbody", type_=REFUNDED)
    transport = any_broker.open()
    [delivery] = collect(transport, 1)
    transport.settle([(delivery, DeadLetter("not-json", "byte 3 is 'b', not a value\x00"))])
    [letter] = eventually(lambda: any_broker.letters(REFUNDED))
    assert letter.body == b"bad\tbody"
    assert letter.headers["type"] == REFUNDED
    assert letter.headers[message_headers.REASON] == "not-json"
    assert letter.headers[message_headers.DETAIL].startswith("byte 3 is 'b', not a value")
    assert letter.headers[message_headers.SOURCE_QUEUE] == any_broker.queue(REFUNDED)
    assert message_headers.FAILURE not in letter.headers
    eventually(transport.idle)


def test_many_dead_letters_go_at_once(broker: BrokerUnderTest) -> None:
    sent = bodies(60)
    broker.send(*sent)
    transport = broker.open()
    transport.settle([(delivery, DeadLetter("not-json", "no")) for delivery in collect(transport, 60)])
    assert sorted(letter.body for letter in broker.letters()) == sorted(sent)
    eventually(transport.idle)


def test_dispositions_of_all_kinds_settle_in_one_call(any_broker: BrokerUnderTest) -> None:
    any_broker.send(b"ack", b"retry", b"release", b"dead")
    transport = any_broker.open()
    by_body = {delivery.body: delivery for delivery in collect(transport, 4)}
    transport.settle(
        [
            (by_body[b"release"], Release()),
            (by_body[b"dead"], DeadLetter("conflict", "other content")),
            (by_body[b"ack"], Ack()),
            (by_body[b"retry"], Retry(1.0, failure())),
        ]
    )
    again = collect(transport, 2)
    assert {delivery.body for delivery in again} == {b"release", b"retry"}
    transport.settle([(delivery, Ack()) for delivery in again])
    assert [letter.body for letter in any_broker.letters()] == [b"dead"]
    eventually(transport.idle)


def test_what_is_no_longer_held_is_skipped_and_counted(broker: BrokerUnderTest) -> None:
    broker.send(b"one", b"two", b"three")
    transport = broker.open()
    lost = collect(transport, 3)
    broker.lose(transport, lost)
    dispositions = (Retry(1.0, failure()), Release(), DeadLetter("conflict", "stale"))
    transport.settle(list(zip(lost, dispositions, strict=True)))
    assert transport.skipped == 3
    again = collect(transport, 3)
    assert {delivery.body for delivery in again} == {b"one", b"two", b"three"}
    transport.settle([(delivery, Ack()) for delivery in again])
    eventually(transport.idle)
    assert broker.letters() == []


def test_what_is_settled_already_is_skipped_and_counted(broker: BrokerUnderTest) -> None:
    broker.send(*bodies(3))
    transport = broker.open()
    deliveries = collect(transport, 3)
    transport.settle([(delivery, Ack()) for delivery in deliveries])
    transport.settle([(delivery, DeadLetter("conflict", "twice")) for delivery in deliveries])
    assert transport.skipped == 3
    assert broker.letters() == []
    broker.send(b"fine")
    transport.settle([(delivery, Ack()) for delivery in collect(transport, 1)])
    eventually(transport.idle)


def test_what_is_received_is_held_while_the_caller_is_busy(broker: BrokerUnderTest) -> None:
    """For longer than the visibility timeout, for what runs and for what waits in the adapter's own buffer."""
    broker.send(*bodies(6))
    visibility_s = 10  # extended after 5 s at the latest, so that a machine may be busy for as long
    busy, other = broker.open(sqs_visibility_s=visibility_s), broker.open()
    running = collect(busy, 2)
    keeps_a_buffer = not busy.guarantees.ordered
    if not keeps_a_buffer:
        running += collect(busy, 4)
    assert other.receive(10, visibility_s + 2 if keeps_a_buffer else 1) == []
    waiting = collect(busy, 6 - len(running))
    busy.settle([(delivery, Ack()) for delivery in running + waiting])
    eventually(busy.idle)
    assert busy.skipped == 0


def test_close_gives_back_at_once_and_leaves_no_thread(broker: BrokerUnderTest) -> None:
    before = {thread.ident for thread in threading.enumerate()}
    broker.send(*bodies(20))
    first = broker.open(sqs_visibility_s=600)
    kept = collect(first, 5)
    first.settle([(kept.pop(), Ack())])
    first.close()
    first.close()
    left = [thread for thread in threading.enumerate() if thread.ident not in before]
    assert not [thread.name for thread in left if thread.name.startswith(("sqs", "rabbitmq"))]
    second = broker.open()
    again = collect(second, 19, within_s=10)
    second.settle([(delivery, Ack()) for delivery in again])
    eventually(second.idle)


def test_a_broker_that_is_away_is_named_so_and_the_next_call_reconnects(broker: BrokerUnderTest) -> None:
    broker.send(b"before")
    transport = broker.open()
    [held] = collect(transport, 1)
    broker.cut()

    def unavailable() -> bool:
        try:
            transport.receive(10, 0.2)
        except BrokerUnavailable:
            return True
        return False

    eventually(unavailable)
    eventually(unavailable)
    _settle_while_away(transport, held)
    broker.heal()
    broker.send(b"after")
    got: set[bytes] = set()

    def both() -> bool:
        try:
            deliveries: list[Delivery] = transport.receive(10, 0.5)
            transport.settle([(delivery, Ack()) for delivery in deliveries])
        except BrokerUnavailable:
            return False
        got.update(delivery.body for delivery in deliveries)
        return {b"before", b"after"} <= got

    eventually(both, within_s=30)
    eventually(transport.idle)
    assert broker.letters() == []


def _settle_while_away(transport: object, held: Delivery) -> None:
    try:
        transport.settle([(held, DeadLetter("conflict", "while away"))])  # type: ignore[attr-defined]
    except BrokerUnavailable:
        return
    assert transport.skipped == 1  # type: ignore[attr-defined]


@pytest.mark.parametrize("busy", ["ready", "held", "delayed"])
def test_a_transport_is_idle_only_when_nothing_is_left(broker: BrokerUnderTest, busy: str) -> None:
    transport = broker.open(sqs_visibility_s=30)
    assert eventually(transport.idle)
    broker.send(b"work")
    if busy == "ready":
        eventually(lambda: not transport.idle())
        [delivery] = collect(transport, 1)
    else:
        [delivery] = collect(transport, 1)
        if busy == "delayed":
            transport.settle([(delivery, Retry(2.0, failure()))])
            assert not transport.idle()
            [delivery] = collect(transport, 1)
        assert not transport.idle()
    transport.settle([(delivery, Ack())])
    eventually(transport.idle)
