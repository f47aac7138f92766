"""Whatever the bytes, the codec returns an event or raises Malformed, and nothing else; what it returns is well formed."""

from __future__ import annotations

import json
import random
from base64 import b64encode
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from incentive_fleet.errors import Malformed
from incentive_fleet.events.codec import Event, decode, decode_strictly, encode_event, from_canonical
from incentive_fleet.events.reasons import Reason
from tests.event_bodies import ALL, encoded, wrapped

BODIES = [encoded(document) for document in ALL.values()]
BODIES += [
    encoded({**{name: value for name, value in document.items() if name != "data"}, "data_base64": data})
    for document in ALL.values()
    for data in [b64encode(encoded(document["data"])).decode()]
]
BODIES += [wrapped(body) for body in BODIES]
FUZZ = settings(suppress_health_check=[HealthCheck.too_slow])


def decoded(body: bytes) -> Event | Malformed:
    """The event or the refusal; any other exception fails the test."""
    try:
        return decode(body)
    except Malformed as refusal:
        return refusal


def tried(body: bytes) -> Event | None:
    """The event, after checking that it survives its own encoding; None when the body is refused in order."""
    event = decoded(body)
    if isinstance(event, Malformed):
        assert event.reason in set(Reason)
        assert event.detail.isprintable()
        assert len(event.detail) <= 400
        return None
    assert decode_strictly(body) == event  # whichever way it was read
    assert len(event.digest) == 32
    assert from_canonical(event.type, event.canonical) == event.data
    assert decode(encode_event(event.source, event.id, event.data, event.time, event.traceparent)) == event
    return event


@given(st.binary(max_size=200))
@FUZZ
def test_any_bytes(body: bytes) -> None:
    tried(body)


@given(st.sampled_from(BODIES), st.data())
@settings(FUZZ, max_examples=400)
def test_valid_bodies_with_bytes_changed(body: bytes, data: st.DataObject) -> None:
    position = st.integers(0, len(body))
    mutated = bytearray(body)
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(position)
        mutated[start : start + data.draw(st.integers(0, 8))] = data.draw(st.binary(max_size=8))
    tried(bytes(mutated))


odd_texts = st.one_of(
    st.text(max_size=8),
    st.text(st.characters(categories=["Cs", "Cc", "Cf", "Lo"]), max_size=4),
    st.sampled_from(["2026-03-01T10:00:00Z", "EUR", "XXX", "o-1", "order-placed.v1", "Notification", "1.0", "a" * 201]),
)
odd_values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.integers(10**15 - 2, 10**15 + 2),
        st.floats(),
        odd_texts,
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(odd_texts, inner, max_size=4)),
    max_leaves=8,
)


def places(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """The path of every value inside a document."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for step, part in inner for found in places(part, (*path, step)))]


PLACES = [(document, path) for document in ALL.values() for path in places(document)]


@given(st.sampled_from(PLACES), odd_values, st.booleans())
@settings(FUZZ, max_examples=600)
def test_valid_events_with_any_value_in_any_place(
    place: tuple[dict[str, Any], tuple[str | int, ...]], value: object, ascii_only: bool
) -> None:
    document, path = place
    changed: Any = json.loads(json.dumps(document))
    if not path:
        changed = value
    else:
        target = changed
        for step in path[:-1]:
            target = target[step]
        target[path[-1]] = value
    tried(json.dumps(changed, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass"))


@given(st.dictionaries(st.sampled_from(["Type", "Message", "specversion", "type", "data", "id"]), odd_values))
@FUZZ
@example({"Type": "Notification", "Message": json.dumps({"Type": "Notification", "Message": "{}"})})
def test_anything_that_looks_like_an_envelope(document: dict[str, object]) -> None:
    tried(json.dumps(document).encode("utf-8", "surrogatepass"))


@given(st.integers(1, 200_000), st.sampled_from(["[", '{"a":', '[{"a":', '{"a":[', '"\\', "-", "1", "1.", "1e"]))
@settings(FUZZ, max_examples=60)
def test_anything_repeated(times: int, part: str) -> None:
    tried((part * times).encode())
    tried(BODIES[0][:-1] + b',"x":' + (part * times).encode())


@given(st.integers(1, 9), st.integers(1, 20_000), st.sampled_from(["", "-"]))
@settings(FUZZ, max_examples=60)
def test_numbers_of_any_length_in_unknown_fields_change_nothing(digit: int, length: int, sign: str) -> None:
    body = BODIES[0][:-1] + f',"x":{sign}{str(digit) * length}}}'.encode()
    assert tried(body) == decode(BODIES[0])


def test_seeded_mutations_by_the_thousand() -> None:
    """Cheaper than drawn examples, so there can be many: splices, swaps and repeats of valid bodies, with a fixed seed."""
    chance = random.Random(2026)
    read = 0
    for _ in range(20_000):
        body = bytearray(chance.choice(BODIES))
        for _ in range(chance.randrange(1, 4)):
            start, end = sorted(chance.randrange(len(body) + 1) for _ in range(2))
            other = chance.choice(BODIES)
            cut = chance.randrange(len(other))
            match chance.randrange(4):
                case 0:
                    body[start:start] = chance.randbytes(chance.randrange(1, 4))
                case 1:
                    body[start : start + chance.randrange(4)] = b""
                case 2:
                    body[start : start + 1] = other[cut : cut + chance.randrange(30)]
                case _:
                    body[end:end] = body[start : min(end, start + 40)]
        read += tried(bytes(body)) is not None
    # Some must get through, or the mutations are too wild to test anything beyond the JSON parser.
    assert read > 100
