"""Properties are cut and joined whatever stands in them, and a copy's fit the frame with the reason in it."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime
from struct import pack
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pika.spec import BasicProperties

from incentive_fleet.brokers import message_headers
from incentive_fleet.brokers.message_headers import REPLAY
from incentive_fleet.brokers.messages import DeadLetter, Delivery, Failure
from incentive_fleet.brokers.rabbitmq.copies import (
    BESIDE_PROPERTIES,
    FRAME_MIN,
    copy_of,
    room_in,
    senders,
    with_type,
    without_ours,
)
from incentive_fleet.brokers.rabbitmq.properties import (
    NONE,
    Parts,
    cut,
    join,
    shown,
    shown_name,
    text_value,
    whole_number,
)
from tests import amqp

LEFT_OUT = message_headers.LEFT_OUT.encode()


def hostile(seed: int, count: int = 8) -> bytes:
    chance = random.Random(seed)
    given_ = {
        name: amqp.any_property(chance, name, kind)
        for name, kind in amqp.PROPERTIES
        if kind != "F" and chance.random() < 0.6
    }
    pairs = [(amqp.any_text(chance, chance.choice([0, 5, 255])), amqp.any_value(chance)) for _ in range(count)]
    return amqp.properties(**given_, headers=amqp.table(pairs))


@given(st.binary(max_size=300))
@example(b"\x20\x00\xff\xff\xff\xff")
@example(b"\x20\x00\x00\x00\x00\x02\x00?")
@example(b"\x00\x01\x00\x00")
def test_any_bytes_are_cut_or_left_out_and_never_an_error(encoded: bytes) -> None:
    parts = cut(encoded)
    assert all(isinstance(shown(value), str) and shown_name(name) for name, value in parts.headers.items() if name)
    joined = join(parts.properties, parts.headers)
    assert (cut(joined).properties, cut(joined).headers) == (parts.properties, parts.headers)
    assert len(joined) <= max(len(encoded), len(NONE))


@given(st.integers(0, 2**32))
def test_what_a_sender_wrote_is_cut_and_joined_to_the_same_bytes(seed: int) -> None:
    encoded = hostile(seed, count=1)
    parts = cut(encoded)
    assert not parts.unread
    assert join(parts.properties, parts.headers) == encoded
    assert all(shown(value) is not None for value in parts.headers.values())


def test_it_reads_what_pika_writes() -> None:
    headers: dict[str, Any] = {
        "text": "é",
        "number": -5,
        "long": 2**40,
        "yes": True,
        "none": None,
        "table": {"a": [1, "b"]},
    }
    parts = cut(b"".join(BasicProperties(message_id="m", timestamp=7, headers=headers).encode()))
    assert parts.properties == {"message_id": b"\x01m", "timestamp": pack(">Q", 7)}
    seen = {shown_name(name): shown(value) for name, value in parts.headers.items()}
    assert seen == {
        **{"text": "é", "number": "-5", "long": str(2**40), "yes": "True", "none": "None"},
        "table": "{a: [1, b]}",
    }
    assert whole_number(parts.headers[b"number"]) == -5
    assert whole_number(parts.headers[b"yes"]) is None


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (b"T" + pack(">Q", 1_790_000_000), "2026-09-21T14:13:20+00:00"),
        (b"T" + pack(">Q", 1_790_000_000_000), "1790000000000"),
        (b"d" + pack(">d", float("inf")), "inf"),
        (b"D\x02" + pack(">i", 150), "150E-2"),
        (amqp.long("S", b"\xff\x00"), "ff00"),
        (amqp.long("x", b"text"), "74657874"),
        (amqp.long("F", b"\x01n?"), "…"),
        (amqp.long("A", b"?"), "…"),
    ],
)
def test_a_header_is_shown_to_people(value: bytes, text: str) -> None:
    assert shown(value) == text


@pytest.mark.parametrize("kind", ["F", "A"])
def test_depth_costs_nothing(kind: str) -> None:
    value = amqp.nested(18_000, kind)
    encoded = amqp.properties(headers=amqp.table([(b"deep", value)]))
    assert cut(encoded).headers == {b"deep": value}
    assert shown(value).count("…") == 1


FAILURE = Failure(
    3, "a.Class" * 50, "\u20ac" * 9_000, "\x1b" * 90_000, datetime.now(UTC), datetime.now(UTC), "host-\U0001f600" * 50
)
DELIVERY = Delivery(b"", "incentives.order-placed" * 9, "rabbitmq", "\U0001f600" * 63, 1, None)
DEAD = DeadLetter("unexpected-error", "\U0001f600" * 5_000, FAILURE)


@given(
    seed=st.integers(0, 2**32),
    count=st.integers(0, 40),
    size=st.integers(0, 131_072),
    frame_max=st.sampled_from([FRAME_MIN, 8_192, 131_072, 0]),
)
def test_a_copy_always_fits_the_frame_and_says_why_and_what_is_missing(
    seed: int, count: int, size: int, frame_max: int
) -> None:
    parts = cut(hostile(seed, count))
    parts = Parts(parts.properties, {**parts.headers, b"large": amqp.long("S", b"b" * size)})
    parts = senders(join(parts.properties, parts.headers))
    room = room_in(frame_max)
    ours = message_headers.of_dead_letter(DELIVERY, DEAD, room // 2)
    encoded = copy_of(parts, ours, room).encoded
    assert len(encoded) + BESIDE_PROPERTIES <= (frame_max or 2**31)
    made = cut(encoded)
    assert made.properties["delivery_mode"] == b"\x02"
    assert shown(made.headers[message_headers.REASON.encode()]) == DEAD.reason
    assert shown(made.headers[message_headers.SOURCE_QUEUE.encode()]) == DELIVERY.queue
    missing = {name for name in parts.headers if name not in made.headers}
    missing |= {name.encode() for name in parts.properties if name not in made.properties}
    missing |= {name.encode() for name in ours if name.encode() not in made.headers}
    assert bool(missing) == (LEFT_OUT in made.headers)
    assert all(made.headers[name] == value for name, value in parts.headers.items() if name in made.headers)


@given(st.sampled_from([0, 1_000, 2_000, 100_000]))
def test_the_count_of_attempts_fits_every_frame(most_bytes: int) -> None:
    text = message_headers.of_failure(FAILURE, most_bytes)
    assert len(text) <= max(most_bytes, 1_500)
    found = message_headers.failure_in({message_headers.FAILURE: text})
    assert found is not None
    assert (found.attempts, found.first_at) == (3, FAILURE.first_at)
    room = room_in(FRAME_MIN)
    retry = {message_headers.FAILURE: message_headers.of_failure(FAILURE, room // 2)}
    full = Parts({"reply_to": b"\xff" + b"r" * 255}, {b"h": amqp.long("S", b"b" * room)})
    assert set(cut(copy_of(full, retry, room).encoded).headers) == {message_headers.FAILURE.encode(), LEFT_OUT}


def test_a_copy_carries_neither_the_brokers_word_nor_orders_to_it_nor_what_was_forged() -> None:
    kept = {b"baggage": text_value("b"), b"x-mine": b"V", REPLAY.encode(): text_value("7.1"), b"fleet\xff": b"V"}
    gone = {
        name: amqp.long("A", text_value("incentives.order-placed"))
        for name in (
            b"x-death",
            b"x-first-death-queue",
            b"x-delivery-count",
            b"x-opt-a",
            b"CC",
            b"BCC",
            b"fleet-reason",
        )
    }
    given_ = {"expiration": b"\x011", "user_id": b"\x05guest", "cluster_id": b"\x01c", "delivery_mode": b"\x01"}
    parts = senders(join({**given_, "reply_to": b"\x01r", "priority": b"\xff"}, {**kept, **gone}))
    assert (parts.headers, parts.properties) == (kept, {"reply_to": b"\x01r", "priority": b"\xff"})
    assert REPLAY.encode() not in without_ours(parts).headers


def test_what_an_earlier_copy_left_out_is_still_told() -> None:
    parts = Parts({}, {LEFT_OUT: text_value("one, two"), b"three": amqp.long("S", b"3" * 9_000)})
    made = cut(copy_of(parts, {message_headers.REASON: "r"}, 3_000).encoded)
    assert shown(made.headers[LEFT_OUT]) == "one, two, three"
    many = message_headers.of_left_out([f"baggage-{number}-é" for number in range(100)])
    assert len(many.encode()) <= message_headers.LEFT_OUT_BYTES
    assert many.endswith("… (100 in all)")


def test_what_cannot_be_read_is_left_out_and_told() -> None:
    unread = amqp.properties(headers=amqp.table([(b"a", b"V"), (b"b", b"?")]), message_id=b"\x01m")
    made = cut(copy_of(senders(unread), {message_headers.REASON: "r"}, 3_000).encoded)
    assert made.properties["message_id"] == b"\x01m"
    assert shown(made.headers[LEFT_OUT]) == "headers that could not be read"
    assert copy_of(senders(b"\xff"), {}, 3_000).encode() == [
        join({"delivery_mode": b"\x02"}, {LEFT_OUT: text_value("properties that could not be read")})
    ]


def test_an_edited_type_is_put_where_the_sender_gave_one() -> None:
    parts = Parts({"type": b"\x01o"}, {b"type": b"T" + b"\xff" * 8})
    assert with_type(parts, "order-placed.v1") == Parts(
        {"type": b"\x0forder-placed.v1"}, {b"type": text_value("order-placed.v1")}
    )
    assert with_type(Parts(), "order-placed.v1") == Parts()
    assert with_type(Parts({"type": b"\x01o"}), "\U0001f600" * 64).properties == {"type": b"\x01o"}


def test_a_failure_is_json_in_ascii() -> None:
    assert json.loads(message_headers.of_failure(FAILURE).encode("ascii"))["attempts"] == 3
