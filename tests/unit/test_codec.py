"""What the codec reads: raw and wrapped events, defaults, times, and the digest that tells equal content from other."""

from __future__ import annotations

import json
from base64 import b64encode
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from incentive_fleet.errors import Malformed
from incentive_fleet.events.codec import Event, decode, digest_of, encode_event, from_canonical
from incentive_fleet.events.models import DeliveryCompleted, Line, OrderPlaced, OrderRefunded, RefundLine
from tests.event_bodies import ALL, DELIVERY, ORDER, REFUND, REMOVED, changed, encoded, wrapped

# Facts are stored with their digests for ever. When one of these changes, every stored fact would turn into a conflict
# with its own repeat: a change here is a migration, not a new expectation.
GOLDEN = {
    "order": "d56945143a5e1b7d06ca63153e6578f05fceb266b31b67e145d281105bf61d7d",
    "refund": "10839b7f4148dcdee859ec9d2aa3405d047ddce9c4203b8d15b9a6933d0c41ad",
    "delivery": "1d5387d5b1c7f09428baf8ddbf8f274564a4d9dc2e0c656a6290993f1d3e41eb",
    "text": "1a36ad35e30eb58b2e953464e2588e7aa1c1683e6fea49db9e707a7bd6191263",
}


def read(document: object) -> Event:
    return decode(encoded(document))


def text_event() -> dict[str, Any]:
    odd = 'Ä"\\/\u2028\u202e😀é e\u0301'
    return changed(changed(ORDER, "data.lines.0.sku", odd), "data.coupons", ["İstanbul", "ﬀ"])


def test_an_order_is_read_with_everything_in_it() -> None:
    event = read(ORDER | {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"})

    assert (event.source, event.id, event.type, event.order_id) == ("/shop/test", "p-1", "order-placed.v1", "o-1")
    assert event.time == "2026-03-01T10:00:00Z"
    assert event.traceparent == "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    assert event.data == OrderPlaced(
        order_id="o-1",
        customer_id="c-1",
        currency="EUR",
        placed_at=datetime(2026, 3, 1, 9, 59, 58, 250_000, tzinfo=UTC),
        lines=(
            Line(line_id="1", sku="TEA", category="grocery", quantity=2, unit_price=450),
            Line(line_id="2", sku="CUP", quantity=1, unit_price=1200),
        ),
        coupons=("SPRING",),
        credit_requested=300,
    )


def test_a_refund_takes_its_defaults_and_its_time_in_utc() -> None:
    data = read(REFUND).data

    assert isinstance(data, OrderRefunded)
    assert data.refunded_at == datetime(2026, 3, 5, 8, tzinfo=UTC)
    assert data.refunded_at.tzinfo is UTC
    assert data.lines == (
        RefundLine(line_id="1", quantity=1, reason="returned"),
        RefundLine(line_id="2", amount=600, reason="goodwill"),
    )


def test_a_refund_without_lines_is_of_everything() -> None:
    data = read(changed(REFUND, "data.lines", REMOVED)).data
    assert isinstance(data, OrderRefunded)
    assert data.lines is None


def test_a_delivery_without_promise_or_list_is_whole() -> None:
    whole = changed(changed(DELIVERY, "data.undelivered", REMOVED), "data.promised_by", REMOVED)
    data = read(whole).data
    assert isinstance(data, DeliveryCompleted)
    assert data.promised_by is None
    assert data.undelivered == ()


@pytest.mark.parametrize("document", ALL.values(), ids=ALL)
def test_raw_and_sns_wrapped_bodies_are_the_same_event(document: dict[str, Any]) -> None:
    raw = encoded(document)
    assert decode(wrapped(raw)) == decode(raw)


def test_an_unknown_attribute_called_type_does_not_make_a_cloud_event_a_notification() -> None:
    assert read(ORDER | {"Type": "Notification", "Message": "{}"}) == read(ORDER)


@pytest.mark.parametrize(
    "value",
    [
        "application/json",
        "Application/JSON",
        "application/json; charset=utf-8",
        'application/json;charset="UTF-8"',
        "application/json\t; \tCharSet=Utf-8 ",
        "application/json;",
        "application/cloudevents+json",
        "Application/Vnd.Shop.Order-1+JSON; charset=UTF-8",
        "application/a+b+json",
    ],
)
def test_content_types_that_are_json(value: str) -> None:
    assert read(ORDER | {"datacontenttype": value}) == read(ORDER)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("1970-01-01T00:00:00Z", datetime(1970, 1, 1, tzinfo=UTC)),
        ("1969-12-31T22:00:00-02:00", datetime(1970, 1, 1, tzinfo=UTC)),
        ("2199-12-31T23:59:59.999999Z", datetime(2199, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)),
        ("2200-01-01T05:00:00+14:00", datetime(2199, 12, 31, 15, tzinfo=UTC)),
        ("2026-03-01t10:00:00z", datetime(2026, 3, 1, 10, tzinfo=UTC)),
        ("2026-03-01T10:00:00-00:00", datetime(2026, 3, 1, 10, tzinfo=UTC)),
        ("2026-03-01T10:00:00.5+05:45", datetime(2026, 3, 1, 4, 15, 0, 500_000, tzinfo=UTC)),
        ("2026-03-01T10:00:00.1234560Z", datetime(2026, 3, 1, 10, 0, 0, 123_456, tzinfo=UTC)),
        ("2026-03-01T10:00:00.1234569Z", datetime(2026, 3, 1, 10, 0, 0, 123_456, tzinfo=UTC)),
        ("2026-03-01T10:00:00.999999999+00:00", datetime(2026, 3, 1, 10, 0, 0, 999_999, tzinfo=UTC)),
        ("2199-12-31T23:59:59.9999999Z", datetime(2199, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)),
        (f"2026-03-01T10:00:00.{'9' * 5_000}Z", datetime(2026, 3, 1, 10, 0, 0, 999_999, tzinfo=UTC)),
        ("2024-02-29T23:59:59+23:59", datetime(2024, 2, 29, 0, 0, 59, tzinfo=UTC)),
    ],
)
def test_times_that_are_accepted(text: str, moment: datetime) -> None:
    data = read(changed(DELIVERY, "data.delivered_at", text)).data
    assert isinstance(data, DeliveryCompleted)
    assert data.delivered_at == moment
    assert data.delivered_at.tzinfo is UTC


@pytest.mark.parametrize("path", ["data.delivered_at", "data.promised_by"])
def test_digits_finer_than_a_microsecond_do_not_reach_the_digest(path: str) -> None:
    """.NET writes seven, Go nine; the same instant from a third is the same fact."""
    texts = [f"2026-03-01T10:00:00.{digits}Z" for digits in ("123456", "1234567", "123456789", "1234560", "123456000")]
    assert len({read(changed(DELIVERY, path, text)).digest for text in texts}) == 1


@pytest.mark.parametrize(
    "text",
    [
        "2026-03-01T10:00:00.1234567Z",
        "2026-03-01T10:00:00.123456789123456789+02:00",
        "0001-01-01T00:00:00+14:00",
        "0000-02-29T00:00:00Z",
        "9999-12-31T23:59:59.9999999-14:00",
        "1969-07-20T20:17:40Z",
        "2016-12-31T23:59:60Z",
        "2017-01-01t00:59:60.5+01:00",
        "1990-12-31T15:59:60-08:00",
        "2016-12-31T18:59:60-05:00",
    ],
)
def test_the_time_of_the_envelope_may_be_any(text: str) -> None:
    event = read(ORDER | {"time": text})
    assert event.time == text
    assert event.digest == read(ORDER).digest


def in_base64(document: dict[str, Any]) -> dict[str, Any]:
    """The event as libraries write it that take data for bytes."""
    kept = {name: value for name, value in document.items() if name != "data"}
    return kept | {"data_base64": b64encode(encoded(document["data"])).decode()}


@pytest.mark.parametrize("document", [*ALL.values(), text_event()], ids=[*ALL, "odd texts"])
def test_data_in_base64_is_the_same_event(document: dict[str, Any]) -> None:
    assert read(in_base64(document)) == read(document)
    assert decode(wrapped(encoded(in_base64(document)))) == read(document)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("data.lines.0.quantity", 1_000_000),
        ("data.lines.0.unit_price", 0),
        ("data.lines.0.unit_price", 10**9),
        ("data.credit_requested", 10**12),
        ("data.lines.0.sku", "😀" * 200),
        ("data.coupons", ["C"] * 20),
        ("data.lines.0.category", " "),
        ("data.customer_id", "\u200b\u00ad"),  # category Cf is allowed; only Cc is not
    ],
)
def test_values_at_their_bounds_are_accepted(path: str, value: object) -> None:
    read(changed(ORDER, path, value))


def test_the_largest_order_is_accepted_with_every_character_escaped() -> None:
    text = "😀" * 197
    lines = [
        {"line_id": f"{n:03d}{text}"[:200], "sku": text, "category": text, "quantity": 1, "unit_price": 1}
        for n in range(2_000)
    ]
    for number, line in enumerate(lines):
        line["line_id"] = f"{number:04d}{text}"[:200]
    body = json.dumps(changed(ORDER, "data.lines", lines)).encode()
    assert len(body) > 14_000_000
    data = decode(body).data
    assert isinstance(data, OrderPlaced)
    assert len(data.lines) == 2_000


def test_a_gross_of_exactly_the_limit_is_accepted() -> None:
    full = {"line_id": "1", "sku": "X", "quantity": 10**6, "unit_price": 10**9}
    read(changed(ORDER, "data.lines", [full]))


def test_null_inside_unknown_fields_and_in_texts_is_nothing_to_mind() -> None:
    data = ORDER["data"] | {"note": None, "more": [None, {"line_id": None}]}
    assert read(ORDER | {"data": data, "extension": None}).digest == read(ORDER).digest
    read(changed(ORDER, "data.customer_id", "null"))


def test_an_unknown_field_may_hold_an_integer_that_python_refuses_to_read() -> None:
    body = encoded(ORDER)[:-1] + b',"huge":-' + b"9" * 10_000 + b"}"
    assert decode(body) == read(ORDER)


def test_nesting_of_64_is_accepted_in_unknown_fields() -> None:
    assert decode(encoded(ORDER)[:-1] + b',"deep":' + b"[" * 63 + b"]" * 63 + b"}") == read(ORDER)


def test_depth_is_counted_in_structure_and_not_in_texts() -> None:
    read(changed(ORDER, "data.customer_id", "[{" * 100))


# The digest


def variants() -> dict[str, bytes]:
    """The same refund in other words."""
    data = REFUND["data"]
    explicit = [data["lines"][0] | {"reason": "returned"}, data["lines"][1]]
    return {
        "order of fields": encoded(dict(reversed(REFUND.items())) | {"data": dict(reversed(data.items()))}),
        "white space": json.dumps(REFUND, indent=3).encode() + b"\r\n\t ",
        "escapes": encoded(REFUND).replace(b'"EUR"', b'"\\u0045UR"'),
        "unknown fields": encoded(REFUND | {"x": 1, "data": data | {"note": "n", "lines_": []}}),
        "explicit default": encoded(changed(REFUND, "data.lines", explicit)),
        "other offset": encoded(changed(REFUND, "data.refunded_at", "2026-03-05T08:00:00.000Z")),
        "other envelope": encoded(REFUND | {"id": "else", "source": "/other", "time": "2026-04-01T00:00:00Z"}),
    }


@pytest.mark.parametrize("name", variants())
def test_equal_content_has_one_digest(name: str) -> None:
    assert decode(variants()[name]).digest == read(REFUND).digest


def test_absent_and_explicit_defaults_have_one_digest() -> None:
    bare = changed(changed(ORDER, "data.coupons", REMOVED), "data.credit_requested", REMOVED)
    assert read(bare).digest == read(changed(changed(ORDER, "data.coupons", []), "data.credit_requested", 0)).digest
    assert (
        read(changed(DELIVERY, "data.undelivered", REMOVED)).digest
        == read(changed(DELIVERY, "data.undelivered", [])).digest
    )


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("data.lines", list(reversed(ORDER["data"]["lines"]))),
        ("data.coupons", ["spring"]),
        ("data.coupons", ["SPRING", "SPRING"]),
        ("data.credit_requested", 301),
        ("data.placed_at", "2026-03-01T09:59:58.250001Z"),
        ("data.lines.0.category", REMOVED),
        ("data.lines.0.sku", "tea"),
        ("data.customer_id", "c-1 "),
    ],
)
def test_other_content_has_another_digest(path: str, value: object) -> None:
    assert read(changed(ORDER, path, value)).digest != read(ORDER).digest


def test_composed_and_decomposed_letters_are_different_texts() -> None:
    assert (
        read(changed(ORDER, "data.lines.0.sku", "é")).digest
        != read(changed(ORDER, "data.lines.0.sku", "e\u0301")).digest
    )


def test_the_type_is_part_of_the_digest() -> None:
    assert digest_of("order-placed.v1", b"{}") != digest_of("order-refunded.v1", b"{}")


@pytest.mark.parametrize("name", GOLDEN)
def test_digests_are_what_they_always_were(name: str) -> None:
    document = text_event() if name == "text" else ALL[name]
    assert read(document).digest.hex() == GOLDEN[name]


def test_the_canonical_form_is_what_it_always_was() -> None:
    assert read(REFUND).canonical == (
        b'{"refund_id":"r1","order_id":"o-1","currency":"EUR","refunded_at":"2026-03-05T08:00:00Z","lines":['
        b'{"line_id":"1","quantity":1,"reason":"returned"},{"line_id":"2","amount":600,"reason":"goodwill"}]}'
    )
    assert b'"placed_at":"2026-03-01T09:59:58.250000Z"' in read(ORDER).canonical
    assert "😀".encode() in read(text_event()).canonical


@pytest.mark.parametrize("document", [*ALL.values(), text_event()])
def test_the_canonical_form_reads_back_as_the_same_data(document: dict[str, Any]) -> None:
    event = read(document)
    assert from_canonical(event.type, event.canonical) == event.data


# Writing


@pytest.mark.parametrize("document", [*ALL.values(), text_event()])
def test_what_is_encoded_decodes_to_the_same_event(document: dict[str, Any]) -> None:
    event = read(document | {"traceparent": "00-" + "a" * 32 + "-" + "b" * 16 + "-01"})
    assert decode(encode_event(event.source, event.id, event.data, event.time, event.traceparent)) == event


def test_encoding_refuses_what_no_reader_would_take() -> None:
    event = read(ORDER)
    wrong: list[tuple[str, str, datetime | str]] = [
        ("", "1", event.time),
        ("/s", "a\nb", event.time),
        ("/s", "\ud800", event.time),
        ("/s", "1", datetime(2026, 1, 1)),  # noqa: DTZ001  a naive time is the point
        ("/s", "1", datetime(1960, 1, 1, tzinfo=UTC)),
    ]
    for source, id_, time in wrong:
        with pytest.raises(Malformed):
            encode_event(source, id_, event.data, time)


def test_times_in_other_zones_are_written_in_utc() -> None:
    event = read(ORDER)
    local = datetime(2026, 3, 1, 12, tzinfo=timezone(timedelta(hours=2)))
    assert b'"time":"2026-03-01T10:00:00Z"' in encode_event("/s", "1", event.data, local)
