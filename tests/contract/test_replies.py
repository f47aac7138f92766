"""What contract.py promises of answers, checked alike against memory, SQS and RabbitMQ."""

from __future__ import annotations

import time

import pika
import pytest

from incentive_fleet.brokers.contract import Replies
from incentive_fleet.brokers.messages import Ack, Answered, Delivery, Message
from incentive_fleet.brokers.topology import QUOTES
from incentive_fleet.errors import BrokerUnavailable
from tests.contract.brokers_under_test import (
    QUOTE,
    BrokerUnderTest,
    RabbitMQUnderTest,
    Reply,
    Request,
    collect,
    eventually,
)

ANSWER = Message('{"é": 1}'.encode(), "incentives-quoted.v1", "id-1")
LONG = "ü" * 100  # 200 bytes; AMQP carries 255


def test_an_answer_reaches_its_queue_with_the_correlation_id_of_its_request(any_broker: BrokerUnderTest) -> None:
    address = any_broker.reply_queue()
    transport, replies = any_broker.open_quotes()
    for correlation in ("c-1", LONG, None):
        any_broker.ask(b"question", Request(address, correlation))
    deliveries = collect(transport, 3)
    assert {delivery.queue for delivery in deliveries} == {any_broker.queue(QUOTE)}
    asked = [replies.asked(delivery) for delivery in deliveries]
    assert {(one.reply_to, one.expires_at, one.fault) for one in asked} == {(address, None, None)}
    assert all(abs(one.arrived_at - time.time()) < 60 for one in asked)
    assert replies.send([(delivery, ANSWER) for delivery in deliveries]) == [Answered.SENT] * 3
    transport.settle([(delivery, Ack()) for delivery in deliveries])
    got: list[Reply] = []
    eventually(lambda: len(got.__iadd__(any_broker.replies(address))) >= 3)
    assert {(one.body, one.type) for one in got} == {(ANSWER.body, ANSWER.type)}
    assert sorted(one.correlation_id for one in got) == ["", "c-1", LONG]


def test_a_queue_that_is_gone_takes_nothing_and_holds_up_no_other(broker: BrokerUnderTest) -> None:
    address, gone = broker.reply_queue(), broker.gone_queue()
    transport, replies = broker.open_quotes()
    for reply_to in (gone, address, gone):
        broker.ask(b"question", Request(reply_to))
    deliveries = collect(transport, 3)
    fates = replies.send([(delivery, ANSWER) for delivery in deliveries])
    by_address = {(replies.asked(one).reply_to, fate) for one, fate in zip(deliveries, fates, strict=True)}
    assert by_address == {(gone, Answered.UNROUTABLE), (address, Answered.SENT)}
    assert len(eventually(lambda: broker.replies(address))) == 1


def test_a_request_says_until_when_it_waits(broker: BrokerUnderTest) -> None:
    transport, replies = broker.open_quotes()
    broker.ask(b"question", Request("anywhere", lives_ms=60_000))
    broker.ask(b"question", Request())
    first, second = (replies.asked(delivery) for delivery in collect(transport, 2))
    with_time, without = (first, second) if first.reply_to else (second, first)
    assert with_time.expires_at is not None
    assert 30 < with_time.expires_at - time.time() < 61
    assert (without.reply_to, without.expires_at) == ("", None)


def test_answers_wait_for_a_broker_that_is_away(broker: BrokerUnderTest) -> None:
    address = broker.reply_queue()
    transport, replies = broker.open_quotes()
    broker.ask(b"question", Request(address, "c"))
    [delivery] = collect(transport, 1)
    broker.cut()
    with pytest.raises(BrokerUnavailable):
        replies.send([(delivery, ANSWER)])
    broker.heal()
    assert eventually(lambda: _sent(replies, delivery))
    assert eventually(lambda: broker.replies(address))[0].correlation_id == "c"


def _sent(replies: Replies, delivery: Delivery) -> bool:
    try:
        return replies.send([(delivery, ANSWER)]) == [Answered.SENT]
    except BrokerUnavailable:
        return False


def test_facts_and_questions_do_not_meet(broker: BrokerUnderTest) -> None:
    if hasattr(broker, "broker"):
        return  # the broker in the process has one consumer for all its queues
    facts = broker.open()
    transport, _ = broker.open_quotes()
    broker.send(b"fact")
    broker.ask(b"question", Request())
    assert [(one.body, one.queue) for one in collect(transport, 1)] == [(b"question", broker.queue(QUOTES[0]))]
    assert [one.body for one in collect(facts, 1)] == [b"fact"]
    assert transport.receive(1, 0.3) == facts.receive(1, 0.3) == []


def test_rabbitmq_a_full_queue_refuses_and_a_direct_reply_needs_none(rabbitmq_under_test: RabbitMQUnderTest) -> None:
    full = rabbitmq_under_test.reply_queue(**{"x-max-length": 1, "x-overflow": "reject-publish"})
    transport, replies = rabbitmq_under_test.open_quotes()
    for _ in range(3):
        rabbitmq_under_test.ask(b"question", Request(full))
    fates = [replies.send([(delivery, ANSWER)]) for delivery in collect(transport, 3)]
    assert fates[-1] == [Answered.REFUSED]
    with rabbitmq_under_test.channel() as channel:
        got: list[bytes] = []
        direct = "amq.rabbitmq.reply-to"
        channel.basic_consume(direct, lambda _c, _m, _p, body: got.append(body), auto_ack=True)
        channel.basic_publish("", rabbitmq_under_test.queue(QUOTE), b"q", pika.BasicProperties(reply_to=direct))
        [delivery] = collect(transport, 1)
        assert replies.asked(delivery).reply_to.startswith(f"{direct}.")
        assert replies.send([(delivery, ANSWER)]) == [Answered.SENT]
        eventually(lambda: channel.connection.process_data_events(0.1) or got)
    assert got == [ANSWER.body]


def test_rabbitmq_drops_by_itself_what_waited_past_its_expiration(rabbitmq_under_test: RabbitMQUnderTest) -> None:
    rabbitmq_under_test.ask(b"late", Request("anywhere", lives_ms=1))
    rabbitmq_under_test.ask(b"in time", Request("anywhere"))
    transport, _ = rabbitmq_under_test.open_quotes()
    assert [delivery.body for delivery in collect(transport, 1)] == [b"in time"]
    assert rabbitmq_under_test.letters(QUOTE) == []
