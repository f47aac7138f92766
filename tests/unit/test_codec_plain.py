"""The quick way of reading a body takes what is usual, and never what the strict way would refuse or read otherwise."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from incentive_fleet.errors import Malformed
from incentive_fleet.events.codec import Event, decode, decode_strictly
from incentive_fleet.events.plain import read_plain
from tests.event_bodies import ALL, ORDER, encoded, wrapped


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("indent", [None, 2])
def test_valid_events_are_read_plainly_and_alike(name: str, indent: int | None) -> None:
    body = json.dumps(ALL[name], indent=indent).encode()
    plain = read_plain(body)
    strict = decode_strictly(body)
    assert plain is not None
    assert plain[1] == strict.data
    assert decode(body) == strict


@pytest.mark.parametrize("name", ALL)
def test_what_is_wrapped_by_sns_is_left_to_the_codec(name: str) -> None:
    body = wrapped(encoded(ALL[name]))
    assert read_plain(body) is None
    assert decode(body) == decode(encoded(ALL[name]))


@given(
    st.sampled_from(list(ALL)),
    st.text(" \t\r\n", max_size=3),
    st.text(" \t\r\n", max_size=3),
    st.sampled_from(["subject", "order_id", "time", "data", "unheard-of"]),
    st.booleans(),
)
def test_a_name_that_comes_twice_or_is_unknown_is_left_to_the_codec(
    name: str, before: str, after: str, field: str, inside: bool
) -> None:
    """However the second one is spaced, and though the same value is there."""
    document = ALL[name]
    owner = document["data"] if inside else document
    value = owner.get(field, 1)
    text = json.dumps(document, separators=(",", ":"))
    start = text.index('"data":{') + len('"data":{') if inside else 1
    body = f'{text[:start]}"{field}"{before}:{after}{json.dumps(value)},{text[start:]}'.encode()
    assert read_plain(body) is None
    if field in owner:
        with pytest.raises(Malformed, match="twice"):
            decode(body)
    else:
        assert decode(body) == decode(text.encode())  # unknown fields are ignored


@pytest.mark.parametrize(
    "text", ['a":b', '":', "a : b", 'say "so" : then', "Käse", "\\", '\\":', "null", "null:", "🥕"]
)
def test_texts_that_look_like_names_change_nothing(text: str) -> None:
    document = json.loads(json.dumps(ORDER))
    document["data"]["lines"][0]["sku"] = text
    for ensure_ascii in (True, False):
        body = json.dumps(document, ensure_ascii=ensure_ascii).encode()
        assert decode(body) == decode_strictly(body)
        assert decode(body).data.lines[0].sku == text  # type: ignore[union-attr, index]


FRACTIONS = st.text("0123456789", min_size=1, max_size=12)
MEDIA_TYPES = st.text('apliction/json+; =cht"utf-8AJ\t', max_size=12).map(lambda tail: "application/json" + tail)


@given(st.sampled_from(list(ALL)), FRACTIONS, st.sampled_from(["Z", "+02:00", "z", "-00:00"]), MEDIA_TYPES)
def test_fractions_and_content_types_are_judged_alike(name: str, fraction: str, offset: str, media: str) -> None:
    """Whichever way a body is read, it is the same event or the same refusal."""
    document = json.loads(json.dumps(ALL[name]))
    moment = f"2026-03-01T10:00:00.{fraction}{offset}"
    document |= {"time": moment, "datacontenttype": media}
    field = {
        "order": "placed_at",
        "refund": "refunded_at",
        "delivery": "delivered_at",
        "final": "finalized_at",
        "cancelling": "cancelled_at",
        "grant": "requested_at",
    }[name]
    document["data"][field] = moment
    body = encoded(document)
    found: list[Event | tuple[str, str]] = []
    for read in (decode, decode_strictly):
        try:
            found.append(read(body))
        except Malformed as refusal:
            found.append((refusal.reason, refusal.detail))
    assert found[0] == found[1]
    event = found[0]
    if isinstance(event, Event):
        assert read_plain(body) is not None
        assert getattr(event.data, field).microsecond == int(f"{fraction[:6]:0<6}")
