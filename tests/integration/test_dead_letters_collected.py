"""The collector: whatever lies in a dead-letter queue is in the database once, with who put it there and why."""

from __future__ import annotations

import json
import signal
import sys
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pika
import pytest

from incentive_fleet.consumers import history
from incentive_fleet.consumers.transport import DeadLetter, Delivery, Failure
from incentive_fleet.settings import Settings
from tests.chaos.ground import SOURCES, Brokers, Source, settings_of, start
from tests.dead_letter_desk import NOON, Desk, Floor, arrival, order

BAD = order(1, currency="XXX")


@pytest.fixture(scope="module")
def brokers(rabbitmq: Any, localstack: Any) -> Iterator[Brokers]:
    prefix = f"t{uuid.uuid4().hex[:8]}"
    settings = settings_of(
        prefix, rabbitmq_url=rabbitmq.url, aws_endpoint_url=localstack.endpoint_url, sqs_visibility_s=1
    )
    brokers = Brokers(settings)
    brokers.apply()
    yield brokers
    brokers.close()


@pytest.fixture
def floor(brokers: Brokers, database_url: str) -> Iterator[Floor]:
    floor = Floor(database_url, brokers.settings.model_copy(update={"database_url": database_url}), brokers)
    floor.load()
    yield floor
    for source in SOURCES:
        brokers.letters(source)  # a test that failed must not fail the ones after it


@pytest.fixture
def desk(database_url: str) -> Desk:
    return Desk(database_url)


@pytest.mark.parametrize("source", SOURCES)
def test_what_the_consumer_gave_up_is_kept_with_its_reason(floor: Floor, source: Source) -> None:
    floor.publish(source, BAD, order(2))
    floor.consume(source)
    assert floor.collect(source) == {"new": 1}
    (letter,) = floor.letters()
    assert letter.body == BAD
    assert (letter.reason, letter.status, letter.transport) == ("unknown-currency", "open", source)
    assert "data.currency is 'XXX'" in letter.detail
    assert letter.source_queue == floor.brokers.queue_of(source, "order-placed.v1")
    assert (letter.order_id, letter.customer_id, letter.event_id) == ("o-1", "c-1", "e-1")
    assert [act.act for act in floor.acts(letter.id)] == ["collected"]
    assert floor.brokers.letters(source) == []
    assert floor.collect(source) == {}


def test_bytes_are_kept_as_they_are(floor: Floor) -> None:
    body = b"\x00\xff\xfe half \xc3"
    (letter,) = floor.give_up("rabbitmq", body)
    assert letter.body == body
    assert letter.reason == "not-utf8"
    assert letter.order_id is None


def test_headers_that_postgres_cannot_hold_do_not_stop_the_collector(floor: Floor) -> None:
    names = floor.brokers.queues["rabbitmq"][0]
    headers = {
        "nul": "a\x00b",
        "table": {"x": [1, b"\xff", datetime(2026, 1, 1, tzinfo=UTC)]},
        "fleet-reason": "c\x00",
        "fleet-replay": "99999999999999999999.1",
        "fleet-failure": json.dumps({"attempts": "many"}),
    }
    with floor.brokers.channel() as channel:
        channel.basic_publish(
            "", names.dead_letters, b'{"data": {"order_id": "\\u0000"}}', pika.BasicProperties(headers=headers)
        )
    assert floor.collect("rabbitmq") == {"new": 1}
    (letter,) = floor.letters()
    assert letter.headers["nul"] == "a\N{REPLACEMENT CHARACTER}b"
    assert letter.reason == "c\N{REPLACEMENT CHARACTER}"
    assert letter.failure is None


def test_sqs_redrive_is_told_as_the_broker_s(floor: Floor) -> None:
    names, sqs = floor.brokers.queues["sqs"][0], floor.brokers.sqs
    url = floor.brokers.url(names.source)
    attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["RedrivePolicy"])["Attributes"]
    policy = {**json.loads(attributes["RedrivePolicy"]), "maxReceiveCount": 1}
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"RedrivePolicy": json.dumps(policy)})
    try:
        sqs.send_message(QueueUrl=url, MessageBody=order(3).decode())
        received = [sqs.receive_message(QueueUrl=url, VisibilityTimeout=0, WaitTimeSeconds=1) for _ in range(2)]
        assert "Messages" in received[0]
        assert "Messages" not in received[1]
    finally:
        floor.brokers.apply()
    assert floor.collect("sqs") == {"new": 1}
    (letter,) = floor.letters()
    assert letter.reason == "broker-redrive"
    assert names.source in letter.detail


def test_rabbitmq_s_delivery_limit_is_told_as_the_broker_s(floor: Floor) -> None:
    names = floor.brokers.queues["rabbitmq"][0]
    with floor.brokers.channel() as channel:
        channel.basic_publish("", names.source, order(4), pika.BasicProperties(delivery_mode=2))
        channel.basic_qos(prefetch_count=1)
        deliveries = 0
        for method, _, _ in channel.consume(names.source, inactivity_timeout=2):
            if method is None:
                break
            deliveries += 1
            channel.basic_nack(method.delivery_tag, requeue=True)
    assert deliveries == 1_001
    assert floor.collect("rabbitmq") == {"new": 1}
    (letter,) = floor.letters()
    assert letter.reason == "delivery-limit"
    assert letter.body == order(4)


def test_what_somebody_put_there_by_hand_is_kept_too(floor: Floor) -> None:
    names = floor.brokers.queues["rabbitmq"][1]
    with floor.brokers.channel() as channel:
        channel.basic_publish("", names.dead_letters, b"hello", pika.BasicProperties(message_id="m"))
    assert floor.collect("rabbitmq") == {"new": 1}
    (letter,) = floor.letters()
    assert letter.reason == "unexplained"
    assert letter.source_queue == names.source
    assert letter.envelope["properties"] == {"message_id": "m"}


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("step", ["collector-after-receive", "collector-after-commit"])
def test_a_collector_that_dies_loses_nothing_and_lists_nothing_twice(floor: Floor, source: Source, step: str) -> None:
    floor.publish(source, BAD, order(5, currency="XXX"), b"nonsense")
    floor.consume(source)
    command = [sys.executable, "-m", "incentive_fleet.operators.cli", "dlq", "collect", "--from", source]
    dying = start([*command, "--until-idle", "1"], floor.settings, INCENTIVES_TEST_FAULT=step)
    assert dying.wait(60) == -signal.SIGKILL
    floor.collect(source)
    letters = floor.letters()
    assert sorted(letter.reason for letter in letters) == ["not-json", "unknown-currency", "unknown-currency"]
    assert [letter.times_seen for letter in letters] == [1, 1, 1]
    assert floor.brokers.letters(source) == []


def test_an_unexpected_error_keeps_its_history(desk: Desk) -> None:
    first = NOON - timedelta(minutes=13)
    failure = Failure(5, "builtins.KeyError", "'sku'", "Traceback ...", first, NOON, "worker-1")
    delivery = Delivery(order(6), "q", "sqs", "m-1", 5, None)
    headers = history.of_dead_letter(
        delivery, DeadLetter("unexpected-error", "KeyError: 'sku' (after 5 attempts)", failure)
    )
    assert desk.keep(arrival(order(6), headers=headers)) == ["new"]
    (letter,) = desk.letters()
    assert letter.failure is not None
    assert letter.failure["attempts"] == 5
    assert letter.failure["first_at"] == first.isoformat()
    assert letter.failure["host"] == "worker-1"
    assert letter.cause == "builtins.KeyError"


def test_the_same_copy_again_changes_nothing_and_another_copy_is_counted(desk: Desk) -> None:
    later = NOON + timedelta(hours=1)
    assert desk.keep(arrival(BAD, name="m-1")) == ["new"]
    assert desk.keep(arrival(BAD, name="m-1"), at=later) == ["same"]
    assert desk.keep(arrival(BAD, name="m-2"), at=later) == ["again"]
    (letter,) = desk.letters()
    assert (letter.times_seen, letter.life, letter.first_seen, letter.last_seen) == (2, 1, NOON, later)


def test_equal_copies_on_rabbitmq_are_told_apart_by_being_delivered_again(desk: Desk) -> None:
    known: dict[str, Any] = {"transport": "rabbitmq", "certain": False, "name": "equal"}
    assert desk.keep(arrival(BAD, **known)) == ["new"]
    assert desk.keep(arrival(BAD, **known, receive_count=2)) == ["same"]
    assert desk.keep(arrival(BAD, **known)) == ["again"]


def test_the_same_body_in_two_queues_is_two_letters(desk: Desk) -> None:
    assert desk.keep(arrival(BAD, queue="a"), arrival(BAD, queue="b", name="copy-2")) == ["new", "new"]


def test_a_discarded_letter_opens_again_when_another_copy_arrives(desk: Desk) -> None:
    desk.keep(arrival(BAD, name="m-1"))
    (letter,) = desk.letters()
    desk.discard(letter.id)
    assert desk.keep(arrival(BAD, name="m-1")) == ["same"]
    assert desk.letter(letter.id).status == "discarded"
    assert desk.keep(arrival(BAD, name="m-2")) == ["again"]
    assert desk.letter(letter.id).status == "open"
    assert [act.act for act in desk.acts(letter.id)] == ["collected", "discarded", "reopened"]


def test_the_collector_waits_for_a_database_that_is_away(floor: Floor, postgres: Any) -> None:
    floor.publish("rabbitmq", BAD)
    floor.consume("rabbitmq")
    postgres.stop()
    command = [sys.executable, "-m", "incentive_fleet.operators.cli", "dlq", "collect", "--from", "rabbitmq"]
    collector = start([*command, "--until-idle", "1"], _patient(floor.settings))
    postgres.start()
    assert collector.wait(60) == 0
    assert [letter.body for letter in floor.letters()] == [BAD]


def _patient(settings: Settings) -> Settings:
    return settings.model_copy(update={"pause_max_s": 0.5})
