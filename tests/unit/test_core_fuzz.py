"""Whatever a broker hands over, the consumer gives it to the dead letters with a reason: no crash, no retry, no loop.

The core has no database here: a body that is refused never needs one, and a test that asks for one hangs and fails.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from incentive_fleet.brokers.memory import MemoryBroker, MemoryTransport
from incentive_fleet.brokers.message_headers import REASON, SOURCE_QUEUE
from incentive_fleet.consumers.consumer import Consumer
from incentive_fleet.consumers.core import Core
from incentive_fleet.embedded import sample_shop
from incentive_fleet.errors import Malformed
from incentive_fleet.events.codec import decode
from incentive_fleet.events.reasons import Reason
from incentive_fleet.ledger.session import Session
from incentive_fleet.stopping import Stop

BODIES = [body for _, body in sample_shop.events(sample_shop.Shop(8, seed=3, refunds=1.0))]
TYPES = ["order-placed.v1", "order-refunded.v1", "delivery-completed.v1", "something-else.v9", None]
NOWHERE = "postgresql://127.0.0.1:1/none"
BATCH = 100


def refused(body: bytes) -> bool:
    """Whether the codec refuses the body; what it reads is no matter for this test."""
    try:
        decode(body)
    except Malformed:
        return True
    return False


def reasons_of(bodies: Iterable[bytes]) -> Counter[str]:
    """Consume the bodies, each of which must be refused; how many went to the dead letters for which reason."""
    broker = MemoryBroker()
    sent: list[bytes] = []
    for number, body in enumerate(bodies):
        broker.publish(body, TYPES[number % len(TYPES)])
        sent.append(body)
    core = Core(Session(NOWHERE), (5.0,), lambda: datetime.now(UTC))
    transport = MemoryTransport(broker)
    Consumer("fuzz", transport, core, BATCH, 0.01, 1.0, Stop()).run(until_idle_s=0)
    letters = [(queue, letter) for queue, letters in broker.dead_letters.items() for letter in letters]
    assert Counter(letter.body for _, letter in letters) == Counter(sent)
    assert all(letter.headers[SOURCE_QUEUE] == queue for queue, letter in letters)
    reasons = Counter(letter.headers[REASON] for _, letter in letters)
    assert reasons.keys() <= set(Reason)
    assert core.counts == {f"dead-letter:{reason}": count for reason, count in reasons.items()}
    return reasons


def put(value: str) -> bytes:
    """A valid placing but for its `credit_requested`, which is this JSON text."""
    event: dict[str, Any] = json.loads(BODIES[0])
    event["data"]["credit_requested"] = "HERE"
    return json.dumps(event).replace('"HERE"', value).encode()


def changed(**fields: Any) -> bytes:
    return json.dumps(json.loads(BODIES[0]) | fields).encode()


NAMED: list[tuple[str, str, bytes]] = [
    ("nothing at all", "not-json", b""),
    ("white space", "not-json", b" \r\n\t"),
    ("random bytes", "not-utf8", bytes(range(255, 127, -1)) * 8),
    ("bad UTF-8 in a text", "not-utf8", BODIES[0].replace(b"customer", b"custom\xc3\x28r")),
    ("UTF-16", "not-utf8", BODIES[0].decode().encode("utf-16")),
    ("a byte order mark", "not-json", b"\xef\xbb\xbf" + BODIES[0]),
    ("arrays 100,000 deep", "too-deep", b"[" * 100_000 + b"]" * 100_000),
    ("objects 100,000 deep", "too-deep", b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
    ("65 deep in an unknown field", "too-deep", BODIES[0][:-1] + b',"x":' + b"[" * 65 + b"]" * 65 + b"}"),
    ("a number of a million digits", "out-of-bounds", put("9" * 1_000_000)),
    ("a number beyond every float", "wrong-type", put("1e999")),
    ("a negative number", "out-of-bounds", put("-1")),
    ("a fraction", "wrong-type", put("5.0")),
    ("a number as text", "wrong-type", put('"5"')),
    ("a truth", "wrong-type", put("true")),
    ("null", "null-field", put("null")),
    ("NaN", "not-finite", put("NaN")),
    ("minus infinity", "not-finite", put("-Infinity")),
    ("a name twice", "repeated-name", BODIES[0][:-1] + b',"id":"again"}'),
    ("a name twice, once escaped", "repeated-name", BODIES[0][:-1] + b',"i\\u0064":"again"}'),
    ("NUL in a text", "control-character", changed(source="a\x00b")),
    ("NUL between", "not-json", BODIES[0].replace(b",", b"\x00,", 1)),
    ("half of a surrogate pair", "lone-surrogate", BODIES[0][:-1] + b',"x":"\\ud800"}'),
    ("10 MB of one text", "out-of-bounds", changed(source="x" * 10_000_000)),
    ("10 MB of brackets", "too-deep", b"[" * 10_000_000),
    ("17 MB", "too-large", b" " * 17_000_000),
    ("an unknown version", "unknown-type-version", changed(type="order-placed.v2")),
    ("an unknown type", "unknown-type", changed(type="order-archived.v1")),
    ("CloudEvents 0.3", "unknown-specversion", changed(specversion="0.3")),
    ("a list", "not-a-cloud-event", b"[]"),
    ("an envelope around nothing", "bad-sns-envelope", b'{"Type": "Notification"}'),
    ("an envelope around an envelope", "not-a-cloud-event", b'{"Type":"Notification","Message":"{\\"Type\\":\\"Notification\\"}"}'),
]  # fmt: skip


@pytest.mark.parametrize(
    ("reason", "body"), [(reason, body) for _, reason, body in NAMED], ids=[n for n, _, _ in NAMED]
)
def test_a_bad_message_is_a_dead_letter_with_its_reason(reason: str, body: bytes) -> None:
    assert reasons_of([body]) == {reason: 1}


def test_bad_messages_in_one_batch_do_not_hold_each_other_up() -> None:
    assert reasons_of(body for _, _, body in NAMED if len(body) < 1_000_000).total() > 25


@settings(max_examples=150, database=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.binary(max_size=300).filter(refused), min_size=1, max_size=20))
def test_any_bytes_are_dead_letters(bodies: list[bytes]) -> None:
    reasons_of(bodies)


def mutations(chance: random.Random, count: int) -> Iterator[bytes]:
    """Valid events with pieces cut out, repeated, exchanged, overwritten; those that are still valid left out."""
    tokens = [
        b"null",
        b"NaN",
        b"1e400",
        b"-1",
        b'"\\u0000"',
        b'"\\udc00"',
        b"\xff",
        b"[]",
        b"{}",
        b"[" * 70,
        b'"id":1,',
    ]
    made = 0
    while made < count:
        body = bytearray(chance.choice(BODIES))
        for _ in range(chance.randint(1, 4)):
            at, length = chance.randrange(len(body)), chance.randint(1, 12)
            match chance.randrange(5):
                case 0:
                    body[at : at + length] = chance.randbytes(length)
                case 1:
                    body[at : at + length] = b""
                case 2:
                    body[at:at] = chance.choice(tokens)
                case 3:
                    colon = body.find(b":", at) + 1
                    body[colon : body.find(b",", colon)] = chance.choice(tokens)
                case _:
                    body[at:at] = body[at : at + 4 * length]
        mutated = bytes(body)
        if refused(mutated):
            made += 1
            yield mutated


def fuzz(count: int, seed: int, say: Callable[[str], None]) -> None:
    reasons = reasons_of(mutations(random.Random(seed), count))
    assert reasons.total() == count
    assert len(reasons) >= 12
    say(f"{count} bad messages consumed: " + ", ".join(f"{number} {why}" for why, number in reasons.most_common()))


def test_ten_thousand_damaged_events_are_dead_letters(say: Callable[[str], None]) -> None:
    fuzz(10_000, 1, say)


@pytest.mark.chaos
def test_half_a_million_damaged_events_are_dead_letters(say: Callable[[str], None]) -> None:
    for seed in range(10):
        fuzz(50_000, 100 + seed, say)
