"""Messages as a sender may write them when nobody stops it: on RabbitMQ at the level of frames and field tables, on SQS with
attributes of every kind. Every body differs from every other, so that each is counted. Nothing here talks to a broker.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from struct import pack
from typing import Any

from tests import amqp
from tests.amqp import FRAME_MAX

ROOM = FRAME_MAX - 8 - 12  # for the properties of one message in one frame
BODY_SIZES = (*[0] * 36, FRAME_MAX - 8, FRAME_MAX - 7, 2 * (FRAME_MAX - 8), 300_000)  # 0: as it is
FORGED = (
    *(b"x-death", b"x-first-death-queue", b"x-delivery-count", b"x-acquired-count", b"x-opt-delivery-count"),
    *(b"fleet-reason", b"fleet-detail", b"fleet-failure", b"fleet-replay", b"fleet-source-queue", b"fleet-left-out"),
    *(b"type", b"traceparent", b"x-match"),
)
SQS_BYTES = 262_144  # what every SQS takes as one message, emulators included


@dataclass(frozen=True, slots=True)
class Hostile:
    """One message on RabbitMQ."""

    good: bool  # whether the body is an event, to be applied whatever stands beside it
    properties: bytes
    body: bytes


def messages(chance: random.Random, good: Sequence[bytes], bad: int) -> list[Hostile]:
    """Each good body once and so many bad ones, in any order, all with properties that nobody expects."""
    bodies = [(True, body) for body in good] + [(False, b"{ not json %d" % number) for number in range(bad)]
    chance.shuffle(bodies)
    return [Hostile(is_good, any_properties(chance), body.ljust(chance.choice(BODY_SIZES))) for is_good, body in bodies]


def any_properties(chance: random.Random) -> bytes:
    """Some of all properties, and a table of one kind of evil."""
    given = {
        name: amqp.any_property(chance, name, kind)
        for name, kind in amqp.PROPERTIES
        if name not in ("headers", "user_id") and chance.random() < 0.4  # RabbitMQ compares the user with the login
    }
    pairs = chance.choice(TABLES)(chance)
    if pairs is None:
        return amqp.properties(**given)
    left = ROOM - len(amqp.properties(**given, headers=amqp.table(pairs)))
    if left > 0 and chance.random() < 0.2:
        pairs.append(_filling(left - chance.choice([0, 0, 1, 50, 300, 1_500])))
    return amqp.properties(**given, headers=amqp.table(pair for pair in pairs if pair[1]))


Pairs = list[tuple[bytes, bytes]]


def _filling(size: int) -> tuple[bytes, bytes]:
    """A header of so many bytes in all; none for less than it takes."""
    return b"filling", amqp.long("S", b"b" * (size - 13)) if size >= 13 else b""


def _none(chance: random.Random) -> Pairs | None:
    return None


def _mixed(chance: random.Random) -> Pairs:
    return [
        (amqp.any_text(chance, chance.choice([0, 1, 9, 255])), amqp.any_value(chance))
        for _ in range(chance.randrange(9))
    ]


def _times(chance: random.Random) -> Pairs:
    return [(b"sent-at", b"T" + pack(">Q", chance.choice([1_790_000_000_000, 2**63, 2**64 - 1, 253_402_300_800])))]


def _deep(chance: random.Random) -> Pairs:
    return [(b"deep", amqp.nested(chance.choice([2, 33, 400, 3_000]), chance.choice("AF")))]


def _forged(chance: random.Random) -> Pairs:
    names = chance.sample(FORGED, chance.randrange(1, 6))
    return [
        (name, chance.choice([amqp.any_value(chance), amqp.long("S", b"7.1"), b"l" + b"\xff" * 8])) for name in names
    ]


def _deaths(chance: random.Random) -> Pairs:
    death = amqp.long("F", amqp.fields([(b"queue", amqp.any_value(chance)), (b"reason", amqp.any_value(chance, 1))]))
    return [(b"x-death", amqp.long("A", death * chance.randrange(3)))]


def _elsewhere(chance: random.Random) -> Pairs:
    """Orders to the broker to put it into further queues, none of which there is."""
    return [(chance.choice([b"CC", b"BCC"]), amqp.long("A", amqp.long("S", b"nowhere") * chance.randrange(3)))]


def _many(chance: random.Random) -> Pairs:
    return [(b"%d" % number, b"V") for number in range(chance.choice([100, 9_000]))]


def _baggage(chance: random.Random) -> Pairs:
    return [(b"baggage-%d" % number, amqp.long("S", b"b" * 13_000)) for number in range(9)]


TABLES = (_none, _mixed, _mixed, _times, _deep, _forged, _deaths, _elsewhere, _many, _baggage)


def attributes(chance: random.Random, body: str) -> dict[str, Any]:
    """Attributes of an SQS message: up to ten, of all types, and now and then as many bytes as there is room for."""
    names = [
        *(name.decode() for name in FORGED if b"fleet" in name or name == b"type"),
        "b",
        "Name_1.2-3",
        "n" * 256,
        "é",
    ]
    made = {name: _attribute(chance) for name in chance.sample(names[:-1], chance.choice([0, 1, 3, 10]))}
    if made and chance.random() < 0.3:
        used = len(body.encode()) + sum(len(name) + sum(map(len, value.values())) for name, value in made.items())
        room = SQS_BYTES - used - chance.choice([0, 1, 60, 900])
        name = next(iter(made))
        if room > 0:
            made[name] = {"DataType": "String", "StringValue": "b" * room}
    return made


def _attribute(chance: random.Random) -> dict[str, Any]:
    label = chance.choice(["", "", ".custom", ".int", ".x" * 20])
    match chance.choice(["String", "Number", "Binary"]):
        case "Number":
            number = chance.choice(["0", "-7", "1e125", "3.14159265358979323846", "1" * 38])
            return {"DataType": f"Number{label}", "StringValue": number}
        case "Binary":
            return {"DataType": f"Binary{label}", "BinaryValue": chance.randbytes(chance.choice([1, 100, 9_000]))}
        case _:
            text = chance.choice(["x", "\u202e\u2028\U0001f600" * 9, "{" * 5_000, "7.1", "\t\n\r", "9" * 500])
            return {"DataType": f"String{label}", "StringValue": text}
