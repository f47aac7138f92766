"""The collector: whatever lies in a dead-letter queue is in the database once, with who put it there and why."""

from __future__ import annotations

import json
import random
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pika
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as h_settings
from hypothesis import strategies as st
from kombu import Connection

from incentive_fleet.brokers import message_headers
from incentive_fleet.brokers.aws import AWS
from incentive_fleet.brokers.aws.attributes import fit
from incentive_fleet.brokers.aws.dead_letters import moved_by_sqs
from incentive_fleet.brokers.aws.plan import SQS_MESSAGE_BYTES
from incentive_fleet.brokers.messages import DeadLetter, Delivery, Failure, Outgoing
from incentive_fleet.brokers.rabbitmq import dead_letters as rabbitmq_letters
from incentive_fleet.brokers.rabbitmq.dead_letters import RabbitMQDeadLetters
from incentive_fleet.brokers.rabbitmq.properties import shown
from incentive_fleet.dead_letters import collector, documents, keeping, store
from incentive_fleet.dead_letters.letter import storable_values
from incentive_fleet.ledger.session import Session
from incentive_fleet.settings import Settings
from tests import amqp
from tests.brokers_and_workers import SOURCES, Brokers, Source, settings_of, start
from tests.dead_letter_world import NOON, LetterDatabase, LetterWorld, arrival, open_letter_world, order

BROKER_SETTINGS = {"sqs_visibility_s": 1}

BAD = order(1, currency="XXX")


@pytest.fixture
def world(brokers: Brokers, database_url: str) -> Iterator[LetterWorld]:
    with open_letter_world(brokers, database_url) as world:
        yield world


@pytest.fixture
def database(database_url: str) -> LetterDatabase:
    return LetterDatabase(database_url)


@pytest.mark.parametrize("source", SOURCES)
def test_what_the_consumer_gave_up_is_kept_with_its_reason(world: LetterWorld, source: Source) -> None:
    world.publish(source, BAD, order(2))
    world.consume(source)
    assert world.collect(source) == {"new": 1}
    (letter,) = world.letters()
    assert letter.body == BAD
    assert (letter.reason, letter.status, letter.transport) == ("unknown-currency", "open", source)
    assert "data.currency is 'XXX'" in letter.detail
    assert letter.source_queue == world.brokers.queue_of(source, "order-placed.v1")
    assert (letter.order_id, letter.customer_id, letter.event_id) == ("o-1", "c-1", "e-1")
    assert [act.act for act in world.acts(letter.id)] == ["collected"]
    assert world.brokers.letters(source) == []
    assert world.collect(source) == {}


def test_a_header_that_pika_cannot_write_goes_as_it_came(world: LetterWorld) -> None:
    """pika reads a double as a whole number of any size, and writes 64 bits; dead letter and replay must go all the same."""
    names = world.brokers.queues["rabbitmq"][0]
    with Connection(
        world.brokers.settings.need_rabbitmq_url(), transport_options={"confirm_publish": True}
    ) as connection:
        headers = {"weight": 1e30, "deep": {"x": [1e30]}}
        connection.Producer().publish("nonsense", exchange="", routing_key=names.source, headers=headers, declare=[])
    assert world.consume("rabbitmq") == {"dead-letter:not-json": 1}
    assert world.collect("rabbitmq") == {"new": 1}
    (letter,) = world.letters()
    assert letter.headers["weight"] == "1e+30"
    (done,) = world.replay(letter.id)
    assert done.refused == ""
    assert world.consume("rabbitmq") == {"dead-letter:not-json": 1}
    assert world.collect("rabbitmq") == {"returned": 1}


def test_bytes_are_kept_as_they_are(world: LetterWorld) -> None:
    body = b"\x00\xff\xfe half \xc3"
    (letter,) = world.give_up("rabbitmq", body)
    assert letter.body == body
    assert letter.reason == "not-utf8"
    assert letter.order_id is None


def test_headers_that_postgres_cannot_hold_do_not_stop_the_collector(world: LetterWorld) -> None:
    names = world.brokers.queues["rabbitmq"][0]
    headers: dict[str, Any] = {
        "nul": "a\x00b",
        "table": {"x": [1, b"\xff", datetime(2026, 1, 1, tzinfo=UTC)]},
        "fleet-reason": "c\x00",
        "fleet-replay": "99999999999999999999.1",
        "fleet-failure": json.dumps({"attempts": "many"}),
    }
    with world.brokers.channel() as channel:
        channel.basic_publish(
            "", names.dead_letters, b'{"data": {"order_id": "\\u0000"}}', pika.BasicProperties(headers=headers)
        )
    assert world.collect("rabbitmq") == {"new": 1}
    (letter,) = world.letters()
    assert letter.headers["nul"] == "a\N{REPLACEMENT CHARACTER}b"
    assert letter.reason == "c\N{REPLACEMENT CHARACTER}"
    assert letter.failure is None


def test_sqs_redrive_is_told_as_the_broker_s(world: LetterWorld) -> None:
    names, sqs = world.brokers.queues["sqs"][0], world.brokers.sqs
    url = world.brokers.url(names.source)
    attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["RedrivePolicy"])["Attributes"]
    policy = {**json.loads(attributes["RedrivePolicy"]), "maxReceiveCount": 1}
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"RedrivePolicy": json.dumps(policy)})
    try:
        sqs.send_message(QueueUrl=url, MessageBody=order(3).decode())
        received = [sqs.receive_message(QueueUrl=url, VisibilityTimeout=0, WaitTimeSeconds=1) for _ in range(2)]
        assert "Messages" in received[0]
        assert "Messages" not in received[1]
    finally:
        world.brokers.apply()
    assert world.collect("sqs") == {"new": 1}
    (letter,) = world.letters()
    assert letter.reason == "broker-redrive"
    assert names.source in letter.detail


def test_rabbitmq_s_delivery_limit_is_told_as_the_broker_s(world: LetterWorld) -> None:
    names = world.brokers.queues["rabbitmq"][0]
    deliveries = 0
    with world.brokers.channel() as channel:
        channel.basic_publish("", names.source, order(4), pika.BasicProperties(delivery_mode=2))
        deadline = time.monotonic() + 60
        while not channel.queue_declare(names.dead_letters, passive=True).method.message_count:
            assert time.monotonic() < deadline, f"no dead letter after {deliveries} deliveries"
            # A channel that ends with it counts everywhere; a nack that requeues counts no longer since 4.3.
            ending = channel.connection.channel()
            deliveries += ending.basic_get(names.source)[0] is not None
            ending.close()
    assert deliveries == 1_001
    assert world.collect("rabbitmq") == {"new": 1}
    (letter,) = world.letters()
    assert letter.reason == "delivery-limit"
    assert letter.body == order(4)


def test_what_somebody_put_there_by_hand_is_kept_too(world: LetterWorld) -> None:
    names = world.brokers.queues["rabbitmq"][1]
    with world.brokers.channel() as channel:
        channel.basic_publish("", names.dead_letters, b"hello", pika.BasicProperties(message_id="m"))
    assert world.collect("rabbitmq") == {"new": 1}
    (letter,) = world.letters()
    assert letter.reason == "unexplained"
    assert letter.source_queue == names.source
    assert letter.envelope["properties"] == {"message_id": "m"}


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("step", ["collector-after-receive", "collector-after-commit"])
def test_a_collector_that_dies_loses_nothing_and_lists_nothing_twice(
    world: LetterWorld, source: Source, step: str
) -> None:
    world.publish(source, BAD, order(5, currency="XXX"), b"nonsense")
    world.consume(source)
    command = [sys.executable, "-m", "incentive_fleet.cli.main", "dlq", "collect", "--from", source]
    dying = start([*command, "--until-idle", "1"], world.settings, INCENTIVES_TEST_FAULT=step)
    assert dying.wait(60) == -signal.SIGKILL
    world.collect(source)
    letters = world.letters()
    assert sorted(letter.reason for letter in letters) == ["not-json", "unknown-currency", "unknown-currency"]
    assert [letter.times_seen for letter in letters] == [1, 1, 1]
    assert world.brokers.letters(source) == []


def test_an_unexpected_error_keeps_its_history(database: LetterDatabase) -> None:
    first = NOON - timedelta(minutes=13)
    failure = Failure(5, "builtins.KeyError", "'sku'", "Traceback ...", first, NOON, "worker-1")
    delivery = Delivery(order(6), "q", "sqs", "m-1", 5, None)
    headers = message_headers.of_dead_letter(
        delivery, DeadLetter("unexpected-error", "KeyError: 'sku' (after 5 attempts)", failure)
    )
    assert database.keep(arrival(order(6), headers=headers)) == ["new"]
    (letter,) = database.letters()
    assert letter.failure is not None
    assert letter.failure["attempts"] == 5
    assert letter.failure["first_at"] == first.isoformat()
    assert letter.failure["host"] == "worker-1"
    assert letter.group_text == "builtins.KeyError: '…'"


def test_the_same_copy_again_changes_nothing_and_another_copy_is_counted(database: LetterDatabase) -> None:
    later = NOON + timedelta(hours=1)
    assert database.keep(arrival(BAD, name="m-1")) == ["new"]
    assert database.keep(arrival(BAD, name="m-1"), at=later) == ["same"]
    assert database.keep(arrival(BAD, name="m-2"), at=later) == ["again"]
    (letter,) = database.letters()
    assert (letter.times_seen, letter.life, letter.first_seen, letter.last_seen) == (2, 1, NOON, later)


def test_equal_copies_on_rabbitmq_are_told_apart_by_being_delivered_again(database: LetterDatabase) -> None:
    known: dict[str, Any] = {"transport": "rabbitmq", "certain": False, "name": "equal"}
    assert database.keep(arrival(BAD, **known)) == ["new"]
    assert database.keep(arrival(BAD, **known, receive_count=2)) == ["same"]
    assert database.keep(arrival(BAD, **known)) == ["again"]


def test_the_same_body_in_two_queues_is_two_letters(database: LetterDatabase) -> None:
    assert database.keep(arrival(BAD, queue="a"), arrival(BAD, queue="b", name="copy-2")) == ["new", "new"]


def test_a_discarded_letter_opens_again_when_another_copy_arrives(database: LetterDatabase) -> None:
    database.keep(arrival(BAD, name="m-1"))
    (letter,) = database.letters()
    database.discard(letter.id)
    assert database.keep(arrival(BAD, name="m-1")) == ["same"]
    assert database.letter(letter.id).status == "discarded"
    assert database.keep(arrival(BAD, name="m-2")) == ["again"]
    assert database.letter(letter.id).status == "open"
    assert [act.act for act in database.acts(letter.id)] == ["collected", "discarded", "reopened"]


def test_the_collector_waits_for_a_database_that_is_away(world: LetterWorld, postgres: Any) -> None:
    world.publish("rabbitmq", BAD)
    world.consume("rabbitmq")
    postgres.stop()
    command = [sys.executable, "-m", "incentive_fleet.cli.main", "dlq", "collect", "--from", "rabbitmq"]
    collector = start([*command, "--until-idle", "1"], _patient(world.settings))
    postgres.start()
    assert collector.wait(60) == 0
    assert [letter.body for letter in world.letters()] == [BAD]


def _patient(settings: Settings) -> Settings:
    return settings.model_copy(update={"pause_max_s": 0.5})


FORGED = [
    b"x-death",
    b"x-delivery-count",
    b"fleet-reason",
    b"fleet-detail",
    b"fleet-replay",
    b"fleet-left-out",
    b"type",
]
FAILURES = st.dictionaries(
    st.sampled_from(["attempts", "error_class", "message", "traceback", "first_at", "last_at", "host"]),
    st.integers() | st.floats() | st.text() | st.just("2026-01-01T00:00:00+00:00"),
).map(json.dumps) | st.sampled_from(["[" * 100_000, '{"attempts": 1e999}', "9" * 5_000])


@given(st.integers(0, 2**32), FAILURES, st.binary(max_size=200))
@h_settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_header_and_no_body_can_keep_a_letter_out(
    database: LetterDatabase, seed: int, failure: str, body: bytes
) -> None:
    """A letter that cannot be kept would be met again for ever."""
    queues: Any = RabbitMQDeadLetters(settings_of("p", rabbitmq_url="amqp://guest:guest@127.0.0.1/"))
    chance = random.Random(seed)
    given_ = {name: amqp.any_property(chance, name, kind) for name, kind in amqp.PROPERTIES if kind != "F"}
    names = [*FORGED, *(amqp.any_text(chance, size) for size in (0, 3, 255))]
    pairs = {chance.choice(names): amqp.any_value(chance, 9) for _ in range(6)} | {b"deep": amqp.nested(2_000)}
    pairs[message_headers.FAILURE.encode()] = amqp.long("S", failure.encode())
    encoded = amqp.properties(**given_, headers=amqp.table(pairs.items()))
    letter = queues._arrival(None, (1, "p.order-placed.dlq", encoded, body, 0.0))
    assert database.keep(letter) in (["new"], ["again"], ["same"])
    (kept,) = [one for one in database.letters() if one.body == body]
    parts = rabbitmq_letters._parts(Outgoing("q", kept.body, kept.envelope, f"{kept.id}.1", None))
    theirs = {name: value for name, value in pairs.items() if not name.startswith((b"fleet-", b"x-de"))}
    assert parts.headers == theirs  # what was kept is sent again as it came
    with database.connect() as connection:
        for one in store.list_letters(connection, store.Filters(), limit=1):
            json.dumps(documents.letter_summary(one, NOON), default=str)


def test_what_was_collected_before_properties_were_kept_as_they_came_is_sent_again() -> None:
    headers: dict[str, Any] = {
        "n": 7,
        "t": {"time": "2026-01-01T00:00:00+00:00"},
        "b": {"base64": "/w=="},
        "l": [{"table": {"x": 1e300}}],
    }
    envelope = {"headers": {**headers, "fleet-reason": "r"}, "properties": {"message_id": "m", "priority": 255}}
    parts = rabbitmq_letters._parts(Outgoing("q", b"", envelope, "7.1", None))
    assert {name: shown(value) for name, value in parts.headers.items()} == {
        **{b"n": "7", b"t": "2026-01-01T00:00:00+00:00", b"b": "ff"},
        b"l": "[{x: 1e+300}]",
    }
    assert parts.properties == {"message_id": b"\x01m", "priority": b"\xff"}


def test_a_body_that_leaves_no_room_for_a_reason_on_sqs_is_read_again(database: LetterDatabase) -> None:
    size = SQS_MESSAGE_BYTES
    for body in (b"{".ljust(size), order(1).ljust(size), order(2).ljust(size - 1_000)):
        entry, _, _ = fit(body.decode(), {}, {message_headers.REASON: "not-json", message_headers.SOURCE_QUEUE: "q"})
        theirs = {name: value["StringValue"] for name, value in entry["MessageAttributes"].items()}
        moved = moved_by_sqs("q", body, {})
        letter = arrival(body, name=str(body[:20]), headers=theirs, moved_by_broker=moved, crowded=moved is None)
        assert database.keep(letter) == ["new"]
    assert [letter.reason for letter in database.letters()] == ["not-json", "unexplained", "not-json"]


def test_a_copy_whose_headers_cannot_be_kept_is_kept_without_them(
    database: LetterDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug of ours with some header: the letter is there, with its reason, and leaves the broker."""
    real = storable_values

    def failing(value: object) -> object:
        if isinstance(value, dict) and "bad" in value:
            raise ValueError("a header that nobody thought of")
        return real(value)

    monkeypatch.setattr(keeping, "storable_values", failing)
    letters = [arrival(order(number), name=f"m-{number}") for number in (1, 2)]
    letters[0] = replace(letters[0], headers={**letters[0].headers, "bad": "b", message_headers.REASON: "not-json"})
    kept: list[Any] = []
    with closing(Session(database.url)) as session:
        collector._Keeper(session, AWS).keep(letters, kept)
    assert [seen.value for _, seen in kept] == ["new", "new"]
    assert {letter.body: letter.reason for letter in database.letters()}[order(1)] == "not-json"
