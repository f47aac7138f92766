"""What the codec refuses: each malformed case with its reason code and the field in the detail (rules 2.2)."""

from __future__ import annotations

import base64
import json
import sys
import time
from typing import Any

import pytest

from incentive_fleet.errors import Malformed
from incentive_fleet.events.codec import decode
from incentive_fleet.events.document import BODY_BYTES_MAX
from incentive_fleet.events.reasons import MEANINGS, Reason
from tests.event_bodies import CANCELLING, DELIVERY, FINAL, GRANT, ORDER, REFUND, REMOVED, changed, encoded, wrapped

DETAIL_MAX = 400  # characters: every detail is a line that fits a table and a log


def refusal(body: bytes) -> Malformed:
    """The error that the body meets; its detail must be short and printable whatever the body holds."""
    with pytest.raises(Malformed) as caught:
        decode(body)
    assert caught.value.reason in set(Reason)
    assert caught.value.detail.isprintable()
    assert 0 < len(caught.value.detail) <= DETAIL_MAX
    return caught.value


def with_raw(document: dict[str, Any], path: str, raw: str) -> bytes:
    """The document with a field written exactly so, for what json.dumps would not write."""
    return encoded(changed(document, path, "@RAW@")).replace(b'"@RAW@"', raw.encode("utf-8", "surrogatepass"))


def as_base64(data: bytes) -> str:
    """As `data_base64` writes it."""
    return base64.b64encode(data).decode()


BARE = changed(ORDER, "data", REMOVED)
with_null = encoded(changed(ORDER, "data.lines.0.category", None)["data"])
L = {"line_id": "1", "sku": "X", "quantity": 1, "unit_price": 1}

FIELDS: list[tuple[dict[str, Any], str, object, Reason, str]] = [
    # The envelope
    (ORDER, "specversion", "0.3", Reason.UNKNOWN_SPECVERSION, "specversion is '0.3'"),
    (ORDER, "specversion", 1.0, Reason.UNKNOWN_SPECVERSION, "specversion is 1.0"),
    (ORDER, "specversion", None, Reason.UNKNOWN_SPECVERSION, "specversion is null"),
    (ORDER, "specversion", REMOVED, Reason.NOT_A_CLOUD_EVENT, "specversion is missing"),
    (ORDER, "type", "order-archived.v1", Reason.UNKNOWN_TYPE, "type is 'order-archived.v1'"),
    (ORDER, "type", "order-placed", Reason.UNKNOWN_TYPE, "type is 'order-placed'"),
    (ORDER, "type", "ORDER-PLACED.v1", Reason.UNKNOWN_TYPE, "type is"),
    (ORDER, "type", "order-placed.v2", Reason.UNKNOWN_TYPE_VERSION, "type is 'order-placed.v2'"),
    (ORDER, "type", "incentives-applied.v1", Reason.UNKNOWN_TYPE, "type is"),
    (ORDER, "type", REMOVED, Reason.MISSING_FIELD, "type is missing"),
    (ORDER, "type", None, Reason.NULL_FIELD, "type is null"),
    (ORDER, "type", ["order-placed.v1"], Reason.WRONG_TYPE, "type is a list of 1"),
    (ORDER, "id", REMOVED, Reason.MISSING_FIELD, "id is missing"),
    (ORDER, "id", "", Reason.OUT_OF_BOUNDS, "id is ''"),
    (ORDER, "id", 7, Reason.WRONG_TYPE, "id is 7"),
    (ORDER, "id", "i" * 201, Reason.OUT_OF_BOUNDS, "id is 'iii"),
    (ORDER, "source", "/a\tb", Reason.CONTROL_CHARACTER, r"source is '/a\tb'"),
    (ORDER, "source", REMOVED, Reason.MISSING_FIELD, "source is missing"),
    (ORDER, "time", REMOVED, Reason.MISSING_FIELD, "time is missing"),
    (ORDER, "time", 1_772_000_000, Reason.WRONG_TYPE, "time is 1772000000"),
    (ORDER, "subject", REMOVED, Reason.MISSING_FIELD, "subject is missing"),
    (ORDER, "subject", "o-2", Reason.SUBJECT_MISMATCH, "subject is 'o-2', data.order_id is 'o-1'"),
    (ORDER, "subject", "O-1", Reason.SUBJECT_MISMATCH, "subject is 'O-1'"),
    (ORDER, "datacontenttype", "text/plain", Reason.WRONG_CONTENT_TYPE, "datacontenttype is 'text/plain'"),
    (ORDER, "datacontenttype", "application/json; charset=latin-1", Reason.WRONG_CONTENT_TYPE, "datacontenttype"),
    (ORDER, "datacontenttype", "application/jsonp", Reason.WRONG_CONTENT_TYPE, "datacontenttype"),
    (ORDER, "datacontenttype", "application/json\n", Reason.WRONG_CONTENT_TYPE, "datacontenttype"),
    (ORDER, "datacontenttype", "application/json; charset=", Reason.WRONG_CONTENT_TYPE, "datacontenttype"),
    (ORDER, "datacontenttype", "application/json; charset=utf-16", Reason.WRONG_CONTENT_TYPE, "datacontenttype"),
    (ORDER, "datacontenttype", 'application/json; charset="latin-1"', Reason.WRONG_CONTENT_TYPE, "datacontenttype"),
    (ORDER, "datacontenttype", "application/json; profile=x", Reason.WRONG_CONTENT_TYPE, "datacontenttype"),
    (ORDER, "datacontenttype", "application/+json", Reason.WRONG_CONTENT_TYPE, "datacontenttype"),
    (ORDER, "datacontenttype", "application/x+jsonl", Reason.WRONG_CONTENT_TYPE, "datacontenttype"),
    (ORDER, "datacontenttype", "application/x y+json", Reason.WRONG_CONTENT_TYPE, "datacontenttype"),
    (ORDER, "datacontenttype", "text/x+json", Reason.WRONG_CONTENT_TYPE, "datacontenttype"),
    (ORDER, "datacontenttype", "", Reason.WRONG_CONTENT_TYPE, "datacontenttype is ''"),
    (ORDER, "datacontenttype", None, Reason.NULL_FIELD, "datacontenttype is null"),
    (ORDER, "traceparent", None, Reason.NULL_FIELD, "traceparent is null"),
    (ORDER, "traceparent", 1, Reason.WRONG_TYPE, "traceparent is 1"),
    (ORDER, "data", REMOVED, Reason.MISSING_FIELD, "data is missing"),
    (ORDER, "data", None, Reason.NULL_FIELD, "data is null"),
    (ORDER, "data", "{}", Reason.WRONG_TYPE, "data is '{}'"),
    (ORDER, "data", [], Reason.WRONG_TYPE, "data is a list of 0"),
    # Texts
    (ORDER, "data.order_id", REMOVED, Reason.MISSING_FIELD, "data.order_id is missing"),
    (ORDER, "data.customer_id", "", Reason.OUT_OF_BOUNDS, "data.customer_id is ''"),
    (ORDER, "data.customer_id", "😀" * 201, Reason.OUT_OF_BOUNDS, "data.customer_id is '😀"),
    (ORDER, "data.customer_id", "a\x00b", Reason.CONTROL_CHARACTER, r"data.customer_id is 'a\x00b'"),
    (ORDER, "data.customer_id", "\x7f", Reason.CONTROL_CHARACTER, r"data.customer_id is '\x7f'"),
    (ORDER, "data.customer_id", "a\x85", Reason.CONTROL_CHARACTER, r"data.customer_id is 'a\x85'"),
    (ORDER, "data.customer_id", "a\n", Reason.CONTROL_CHARACTER, r"data.customer_id is 'a\n'"),
    (ORDER, "data.customer_id", 5, Reason.WRONG_TYPE, "data.customer_id is 5"),
    (ORDER, "data.customer_id", {"a": 1}, Reason.WRONG_TYPE, "data.customer_id is an object of 1 fields"),
    (ORDER, "data.lines.1.sku", "", Reason.OUT_OF_BOUNDS, "data.lines[1].sku is ''"),
    (ORDER, "data.lines.0.category", None, Reason.NULL_FIELD, "data.lines[0].category is null"),
    (ORDER, "data.lines.0.category", "", Reason.OUT_OF_BOUNDS, "data.lines[0].category is ''"),
    (ORDER, "data.lines.0.category", "c\x1f", Reason.CONTROL_CHARACTER, "data.lines[0].category is"),
    (ORDER, "data.coupons.0", "", Reason.OUT_OF_BOUNDS, "data.coupons[0] is ''"),
    (ORDER, "data.coupons.0", 5, Reason.WRONG_TYPE, "data.coupons[0] is 5"),
    (ORDER, "data.coupons.0", None, Reason.NULL_FIELD, "data.coupons[0] is null"),
    # Numbers
    (ORDER, "data.lines.0.quantity", 5.0, Reason.WRONG_TYPE, "data.lines[0].quantity is 5.0"),
    (ORDER, "data.lines.0.quantity", "5", Reason.WRONG_TYPE, "data.lines[0].quantity is '5'"),
    (ORDER, "data.lines.0.quantity", True, Reason.WRONG_TYPE, "data.lines[0].quantity is true"),
    (ORDER, "data.lines.0.quantity", None, Reason.NULL_FIELD, "data.lines[0].quantity is null"),
    (ORDER, "data.lines.0.quantity", 0, Reason.OUT_OF_BOUNDS, "data.lines[0].quantity is 0"),
    (ORDER, "data.lines.0.quantity", -1, Reason.OUT_OF_BOUNDS, "data.lines[0].quantity is -1"),
    (ORDER, "data.lines.0.quantity", 1_000_001, Reason.OUT_OF_BOUNDS, "data.lines[0].quantity is 1000001"),
    (ORDER, "data.lines.0.quantity", 2**64 + 1, Reason.OUT_OF_BOUNDS, "data.lines[0].quantity is 1844"),
    (ORDER, "data.lines.0.quantity", 10**4000, Reason.OUT_OF_BOUNDS, "data.lines[0].quantity is a number of"),
    (ORDER, "data.lines.0.unit_price", -1, Reason.OUT_OF_BOUNDS, "data.lines[0].unit_price is -1"),
    (ORDER, "data.lines.0.unit_price", 10**9 + 1, Reason.OUT_OF_BOUNDS, "data.lines[0].unit_price is 1000000001"),
    (ORDER, "data.lines.0.unit_price", REMOVED, Reason.MISSING_FIELD, "data.lines[0].unit_price is missing"),
    (ORDER, "data.credit_requested", -1, Reason.OUT_OF_BOUNDS, "data.credit_requested is -1"),
    (ORDER, "data.credit_requested", 10**12 + 1, Reason.OUT_OF_BOUNDS, "data.credit_requested is 1000000000001"),
    (ORDER, "data.credit_requested", None, Reason.NULL_FIELD, "data.credit_requested is null"),
    (ORDER, "data.credit_requested", False, Reason.WRONG_TYPE, "data.credit_requested is false"),
    # Lists
    (ORDER, "data.lines", REMOVED, Reason.MISSING_FIELD, "data.lines is missing"),
    (ORDER, "data.lines", None, Reason.NULL_FIELD, "data.lines is null"),
    (ORDER, "data.lines", [], Reason.OUT_OF_BOUNDS, "data.lines is a list of 0"),
    (ORDER, "data.lines", {"0": L}, Reason.WRONG_TYPE, "data.lines is an object"),
    (ORDER, "data.lines", "lines", Reason.WRONG_TYPE, "data.lines is 'lines'"),
    (ORDER, "data.lines", [L | {"line_id": str(n)} for n in range(2_001)], Reason.OUT_OF_BOUNDS, "data.lines is"),
    (ORDER, "data.lines.1", None, Reason.NULL_FIELD, "data.lines[1] is null"),
    (ORDER, "data.lines.1", "x", Reason.WRONG_TYPE, "data.lines[1] is 'x'"),
    (ORDER, "data.lines.1.line_id", "1", Reason.REPEATED_LINE, "data.lines: line_id '1'"),
    (ORDER, "data.coupons", ["c"] * 21, Reason.OUT_OF_BOUNDS, "data.coupons is a list of 21"),
    (ORDER, "data.coupons", None, Reason.NULL_FIELD, "data.coupons is null"),
    (ORDER, "data.coupons", "SPRING", Reason.WRONG_TYPE, "data.coupons is 'SPRING'"),
    (
        ORDER,
        "data.lines",
        [L | {"quantity": 10**6, "unit_price": 10**9}, L | {"line_id": "2"}],
        Reason.GROSS_TOO_LARGE,
        "data.lines: the gross is 1000000000000001",
    ),
    # Currencies
    (ORDER, "data.currency", "eur", Reason.UNKNOWN_CURRENCY, "data.currency is 'eur'"),
    (ORDER, "data.currency", "EURO", Reason.UNKNOWN_CURRENCY, "data.currency is 'EURO'"),
    (ORDER, "data.currency", "", Reason.UNKNOWN_CURRENCY, "data.currency is ''"),
    (ORDER, "data.currency", "XEU", Reason.UNKNOWN_CURRENCY, "data.currency is 'XEU'"),
    (ORDER, "data.currency", "hrk", Reason.UNKNOWN_CURRENCY, "data.currency is 'hrk'"),
    (ORDER, "data_base64", "e30=", Reason.DATA_TWICE, "data and data_base64 are both there"),
    (ORDER, "data_base64", None, Reason.DATA_TWICE, "data and data_base64 are both there"),
    (BARE, "data_base64", None, Reason.NULL_FIELD, "data_base64 is null"),
    (BARE, "data_base64", 7, Reason.WRONG_TYPE, "data_base64 is 7"),
    (BARE, "data_base64", {"order_id": "o-1"}, Reason.WRONG_TYPE, "data_base64 is an object"),
    (BARE, "data_base64", "e30", Reason.BAD_BASE64, "data_base64 is 'e30'"),
    (BARE, "data_base64", "e3\n0=", Reason.BAD_BASE64, "data_base64 is"),
    (BARE, "data_base64", "e30=e30=", Reason.BAD_BASE64, "data_base64 is"),
    (BARE, "data_base64", "é30=", Reason.BAD_BASE64, "data_base64 is"),
    (BARE, "data_base64", "_-8=", Reason.BAD_BASE64, "data_base64 is"),
    (BARE, "data_base64", "", Reason.NOT_JSON, "what data_base64 holds: "),
    (BARE, "data_base64", as_base64(b"\xff"), Reason.NOT_UTF8, "what data_base64 holds: "),
    (BARE, "data_base64", as_base64(b'{"order_id":'), Reason.NOT_JSON, "what data_base64 holds: "),
    (BARE, "data_base64", as_base64(b"\xef\xbb\xbf{}"), Reason.NOT_JSON, "what data_base64 holds: a byte order mark"),
    (BARE, "data_base64", as_base64(b'{"a":1,"a":1}'), Reason.REPEATED_NAME, "what data_base64 holds: "),
    (BARE, "data_base64", as_base64(b'{"a":NaN}'), Reason.NOT_FINITE, "what data_base64 holds: "),
    (BARE, "data_base64", as_base64(b'"\\ud800"'), Reason.LONE_SURROGATE, "what data_base64 holds: "),
    (BARE, "data_base64", as_base64(b"[]"), Reason.WRONG_TYPE, "data is a list of 0"),
    (BARE, "data_base64", as_base64(b"null"), Reason.NULL_FIELD, "data is null"),
    (BARE, "data_base64", as_base64(b"{}"), Reason.MISSING_FIELD, "data.order_id is missing"),
    (BARE, "data_base64", as_base64(with_null), Reason.NULL_FIELD, "data.lines[0].category is null"),
    (ORDER, "data", REMOVED, Reason.MISSING_FIELD, "data is missing"),
    (ORDER, "data.currency", "XAU", Reason.UNKNOWN_CURRENCY, "data.currency is 'XAU'"),
    (REFUND, "data.currency", "XXX", Reason.UNKNOWN_CURRENCY, "data.currency is 'XXX'"),
    (REFUND, "data.currency", 978, Reason.WRONG_TYPE, "data.currency is 978"),
    # Refunds and deliveries
    (REFUND, "data.refund_id", REMOVED, Reason.MISSING_FIELD, "data.refund_id is missing"),
    (REFUND, "data.lines", None, Reason.NULL_FIELD, "data.lines is null"),
    (REFUND, "data.lines", [], Reason.OUT_OF_BOUNDS, "data.lines is a list of 0"),
    (REFUND, "data.lines", [{"line_id": "1", "amount": 1}] * 10_001, Reason.OUT_OF_BOUNDS, "data.lines is"),
    (REFUND, "data.lines.0.quantity", REMOVED, Reason.QUANTITY_OR_AMOUNT, "data.lines[0]: exactly one"),
    (REFUND, "data.lines.0.amount", 5, Reason.QUANTITY_OR_AMOUNT, "data.lines[0]: exactly one"),
    (REFUND, "data.lines.0.amount", None, Reason.NULL_FIELD, "data.lines[0].amount is null"),
    (REFUND, "data.lines.0.quantity", 0, Reason.OUT_OF_BOUNDS, "data.lines[0].quantity is 0"),
    (REFUND, "data.lines.0.quantity", 10**9 + 1, Reason.OUT_OF_BOUNDS, "data.lines[0].quantity is"),
    (REFUND, "data.lines.1.amount", 10**15 + 1, Reason.OUT_OF_BOUNDS, "data.lines[1].amount is"),
    (REFUND, "data.lines.1.amount", 0, Reason.OUT_OF_BOUNDS, "data.lines[1].amount is 0"),
    (ORDER, "data.lines.1.kind", "food", Reason.UNKNOWN_LINE_KIND, "data.lines[1].kind is 'food'"),
    (ORDER, "data.lines.1.kind", None, Reason.NULL_FIELD, "data.lines[1].kind is null"),
    (ORDER, "data.lines.1.kind", 1, Reason.WRONG_TYPE, "data.lines[1].kind is 1"),
    (ORDER, "data.estimated", 1, Reason.WRONG_TYPE, "data.estimated is 1"),
    (ORDER, "data.estimated", "true", Reason.WRONG_TYPE, "data.estimated is 'true'"),
    (ORDER, "data.estimated", None, Reason.NULL_FIELD, "data.estimated is null"),
    (FINAL, "data.lines", REMOVED, Reason.MISSING_FIELD, "data.lines is missing"),
    (FINAL, "data.lines.1.line_id", "1", Reason.REPEATED_LINE, "data.lines: line_id '1' comes twice"),
    (FINAL, "data.lines.0.quantity", 0, Reason.OUT_OF_BOUNDS, "data.lines[0].quantity is 0"),
    (FINAL, "data.lines.1.kind", "Deposit", Reason.UNKNOWN_LINE_KIND, "data.lines[1].kind is 'Deposit'"),
    (FINAL, "data.finalized_at", "2026-03-02T10:00:00", Reason.INVALID_TIME, "data.finalized_at is"),
    (FINAL, "subject", "o-2", Reason.SUBJECT_MISMATCH, "subject is 'o-2'"),
    (CANCELLING, "data.cancelled_at", REMOVED, Reason.MISSING_FIELD, "data.cancelled_at is missing"),
    (CANCELLING, "data.reason", "", Reason.OUT_OF_BOUNDS, "data.reason is ''"),
    (CANCELLING, "data.reason", "a\nb", Reason.CONTROL_CHARACTER, "data.reason is"),
    (GRANT, "data.amount", 0, Reason.OUT_OF_BOUNDS, "data.amount is 0"),
    (GRANT, "data.amount", 10**12 + 1, Reason.OUT_OF_BOUNDS, "data.amount is 1000000000001"),
    (GRANT, "data.expires_at", None, Reason.NULL_FIELD, "data.expires_at is null"),
    (GRANT, "data.campaign_id", REMOVED, Reason.MISSING_FIELD, "data.campaign_id is missing"),
    (GRANT, "subject", "o-1", Reason.SUBJECT_MISMATCH, "subject is 'o-1', data.grant_key is 'sorry-1'"),
    (ORDER, "type", "incentives-quote-requested.v1", Reason.WRONG_QUEUE, "type is 'incentives-quote-requested.v1'"),
    (REFUND, "data.lines.1.reason", "lost", Reason.UNKNOWN_REFUND_REASON, "data.lines[1].reason is 'lost'"),
    (REFUND, "data.lines.1.reason", "Goodwill", Reason.UNKNOWN_REFUND_REASON, "data.lines[1].reason is"),
    (REFUND, "data.lines.1.reason", None, Reason.NULL_FIELD, "data.lines[1].reason is null"),
    (REFUND, "data.lines.1.reason", 3, Reason.WRONG_TYPE, "data.lines[1].reason is 3"),
    (DELIVERY, "data.delivery_id", REMOVED, Reason.MISSING_FIELD, "data.delivery_id is missing"),
    (DELIVERY, "data.promised_by", None, Reason.NULL_FIELD, "data.promised_by is null"),
    (DELIVERY, "data.undelivered", None, Reason.NULL_FIELD, "data.undelivered is null"),
    (DELIVERY, "data.undelivered.0.quantity", 0, Reason.OUT_OF_BOUNDS, "data.undelivered[0].quantity is 0"),
    (DELIVERY, "data.undelivered.0.line_id", REMOVED, Reason.MISSING_FIELD, "data.undelivered[0].line_id is missing"),
]


@pytest.mark.parametrize(("document", "path", "value", "reason", "detail"), FIELDS)
def test_a_wrong_field_is_named_with_its_value(
    document: dict[str, Any], path: str, value: object, reason: Reason, detail: str
) -> None:
    body = encoded(changed(document, path, value))
    raw, in_sns = refusal(body), refusal(wrapped(body))
    assert (raw.reason, in_sns.reason) == (reason, reason)
    assert raw.detail.startswith(detail)
    assert in_sns.detail == raw.detail


TIMES = [
    ("2026-03-01", Reason.INVALID_TIME),
    ("2026-03-01T10:00:00", Reason.INVALID_TIME),
    ("2026-03-01 10:00:00Z", Reason.INVALID_TIME),
    ("2026-03-01T10:00Z", Reason.INVALID_TIME),
    ("2026-03-01T10:00:00+0200", Reason.INVALID_TIME),
    ("2026-03-01T10:00:00+24:00", Reason.INVALID_TIME),
    ("2026-03-01T10:00:00+02:60", Reason.INVALID_TIME),
    ("2026-03-01T24:00:00Z", Reason.INVALID_TIME),
    ("2016-12-31T23:59:61Z", Reason.INVALID_TIME),
    ("2026-03-01T10:00:60Z", Reason.INVALID_TIME),
    ("2026-02-29T10:00:00Z", Reason.INVALID_TIME),
    ("2026-13-01T10:00:00Z", Reason.INVALID_TIME),
    ("2026-03-01T10:00:00.Z", Reason.INVALID_TIME),
    ("2026-03-01T10:00:00,5Z", Reason.INVALID_TIME),
    ("2026-03-01T10:00:00Z\n", Reason.INVALID_TIME),
    (" 2026-03-01T10:00:00Z", Reason.INVALID_TIME),
    ("+2026-03-01T10:00:00Z", Reason.INVALID_TIME),
    ("٢٠٢٦-03-01T10:00:00Z", Reason.INVALID_TIME),
    ("2026-W09-7T10:00:00Z", Reason.INVALID_TIME),
    ("1772000000", Reason.INVALID_TIME),
    ("", Reason.INVALID_TIME),
]
# Of times that rules use; the envelope's may be any.
BOUNDS = [
    ("2016-12-31T23:59:60Z", Reason.INVALID_TIME),
    ("1969-12-31T23:59:59.9999999Z", Reason.OUT_OF_BOUNDS),
    ("1969-12-31T23:59:59.999999Z", Reason.OUT_OF_BOUNDS),
    ("1970-01-01T01:00:00+01:01", Reason.OUT_OF_BOUNDS),
    ("2200-01-01T00:00:00Z", Reason.OUT_OF_BOUNDS),
    ("2199-12-31T23:59:59-00:01", Reason.OUT_OF_BOUNDS),
    ("0001-01-01T00:00:00+14:00", Reason.OUT_OF_BOUNDS),
    ("9999-12-31T23:59:59-14:00", Reason.OUT_OF_BOUNDS),
    ("0000-01-01T00:00:00Z", Reason.INVALID_TIME),
]


@pytest.mark.parametrize(
    ("path", "text", "reason"),
    [("time", *case) for case in TIMES] + [("data.promised_by", *case) for case in (*TIMES, *BOUNDS)],
)
def test_a_wrong_time_is_refused(path: str, text: str, reason: Reason) -> None:
    found = refusal(encoded(changed(DELIVERY, path, text)))
    assert found.reason == reason
    assert found.detail.startswith(f"{path} is {text!r}: ")


VALID = encoded(ORDER)
DOCUMENTS: list[tuple[str, bytes, Reason]] = [
    ("nothing", b"", Reason.NOT_JSON),
    ("white space", b" \n", Reason.NOT_JSON),
    ("prose", b"hello", Reason.NOT_JSON),
    ("cut off", VALID[:-1], Reason.NOT_JSON),
    ("two documents", VALID + VALID, Reason.NOT_JSON),
    ("a trailing comma", VALID[:-1] + b",}", Reason.NOT_JSON),
    ("a comment", VALID + b"//", Reason.NOT_JSON),
    ("single quotes", VALID.replace(b'"', b"'"), Reason.NOT_JSON),
    ("a raw line feed in a text", VALID.replace(b"TEA", b"T\nEA"), Reason.NOT_JSON),
    ("a byte order mark", b"\xef\xbb\xbf" + VALID, Reason.NOT_JSON),
    ("UTF-16", VALID.decode().encode("utf-16"), Reason.NOT_UTF8),
    ("UTF-16 without a mark", VALID.decode().encode("utf-16-le"), Reason.NOT_JSON),
    ("Latin-1", VALID.replace(b"TEA", "TÉA".encode("latin-1")), Reason.NOT_UTF8),
    ("an overlong form", VALID.replace(b"TEA", b"\xc0\xaf"), Reason.NOT_UTF8),
    ("a surrogate in three bytes", VALID.replace(b"TEA", b"\xed\xa0\x80"), Reason.NOT_UTF8),
    ("NaN", with_raw(ORDER, "data.credit_requested", "NaN"), Reason.NOT_FINITE),
    ("Infinity in an unknown field", VALID[:-1] + b',"x":[Infinity]}', Reason.NOT_FINITE),
    ("-Infinity", with_raw(ORDER, "data.credit_requested", "-Infinity"), Reason.NOT_FINITE),
    ("1e2 for 100", with_raw(ORDER, "data.credit_requested", "1e2"), Reason.WRONG_TYPE),
    ("5.0 for 5", with_raw(ORDER, "data.credit_requested", "5.0"), Reason.WRONG_TYPE),
    ("1e999", with_raw(ORDER, "data.credit_requested", "1e999"), Reason.WRONG_TYPE),
    ("a leading zero", with_raw(ORDER, "data.credit_requested", "007"), Reason.NOT_JSON),
    ("10,000 digits", with_raw(ORDER, "data.credit_requested", "9" * 10_000), Reason.OUT_OF_BOUNDS),
    ("minus 10,000 digits", with_raw(ORDER, "data.credit_requested", "-" + "9" * 10_000), Reason.OUT_OF_BOUNDS),
    ("10,000 digits, then rubbish", VALID[:-1] + b',"x":' + b"9" * 10_000 + b",}", Reason.NOT_JSON),
    ("10,000 digits, then depth", VALID[:-1] + b',"x":[' + b"9" * 10_000 + b"," + b"[" * 99_999, Reason.TOO_DEEP),
    ("an envelope name twice", VALID[:-1] + b',"id":"p-1"}', Reason.REPEATED_NAME),
    ("a data name twice", VALID.replace(b'"currency":', b'"currency":"EUR","currency":'), Reason.REPEATED_NAME),
    ("a line's name twice", VALID.replace(b'"sku":', b'"sku":"A","sku":', 1), Reason.REPEATED_NAME),
    ("an escaped name twice", VALID[:-1] + b',"\\u0069d":"p-1"}', Reason.REPEATED_NAME),
    ("an unknown name twice", VALID[:-1] + b',"x":{"a":1,"a":1}}', Reason.REPEATED_NAME),
    ("an unprintable name twice", VALID[:-1] + b',"x":{"\\u202e\\n":1,"\\u202e\\n":1}}', Reason.REPEATED_NAME),
    ("a long name twice", VALID[:-1] + b',"%b":1,"%b":1}' % (b"n" * 9_999, b"n" * 9_999), Reason.REPEATED_NAME),
    ("half a pair", VALID.replace(b"TEA", b"\\ud83d"), Reason.LONE_SURROGATE),
    ("the other half", VALID.replace(b"TEA", b"\\uDE00x"), Reason.LONE_SURROGATE),
    ("halves the wrong way round", VALID.replace(b"TEA", b"\\ude00\\ud83d"), Reason.LONE_SURROGATE),
    ("half a pair after a backslash", VALID.replace(b"TEA", b"\\\\\\ud83d"), Reason.LONE_SURROGATE),
    ("half a pair in an unknown text", VALID[:-1] + b',"x":["\\ud800"]}', Reason.LONE_SURROGATE),
    ("half a pair in an unknown name", VALID[:-1] + b',"\\udfff":1}', Reason.LONE_SURROGATE),
    ("half a pair beside a whole one", VALID.replace(b"TEA", b"\\ud83d\\ud83d\\ude00"), Reason.LONE_SURROGATE),
    ("65 levels", VALID[:-1] + b',"x":' + b"[" * 64 + b"]" * 64 + b"}", Reason.TOO_DEEP),
    ("65 levels of objects", VALID[:-1] + b',"x":' + b'{"a":' * 63 + b"{}" + b"}" * 64, Reason.TOO_DEEP),
    ("500 levels", VALID[:-1] + b',"x":' + b"[" * 500 + b"]" * 500 + b"}", Reason.TOO_DEEP),
    ("100,000 levels", VALID[:-1] + b',"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", Reason.TOO_DEEP),
    ("100,000 open brackets", b"[" * 100_000, Reason.TOO_DEEP),
    ("100,000 open objects", b'{"a":' * 100_000, Reason.TOO_DEEP),
    ("a list", b"[]", Reason.NOT_A_CLOUD_EVENT),
    ("a text", b'"' + b"[" * 100 + b'"', Reason.NOT_A_CLOUD_EVENT),
    ("null", b"null", Reason.NOT_A_CLOUD_EVENT),
    ("an empty object", b"{}", Reason.NOT_A_CLOUD_EVENT),
    ("a list with an event", b"[" + VALID + b"]", Reason.NOT_A_CLOUD_EVENT),
    ("SNS without Message", b'{"Type":"Notification"}', Reason.BAD_SNS_ENVELOPE),
    ("SNS with an object", b'{"Type":"Notification","Message":' + VALID + b"}", Reason.BAD_SNS_ENVELOPE),
    ("SNS with null", b'{"Type":"Notification","Message":null}', Reason.BAD_SNS_ENVELOPE),
    ("SNS with an empty text", b'{"Type":"Notification","Message":""}', Reason.NOT_JSON),
    ("SNS with a list in it", wrapped(b"[]"), Reason.NOT_A_CLOUD_EVENT),
    ("SNS in SNS", wrapped(wrapped(VALID)), Reason.NOT_A_CLOUD_EVENT),
    ("SNS with a name twice", wrapped(VALID)[:-1] + b',"Type":"Notification"}', Reason.REPEATED_NAME),
    ("SNS with a name twice inside", wrapped(VALID[:-1] + b',"id":"p-1"}'), Reason.REPEATED_NAME),
    ("SNS with half a pair", wrapped(VALID)[:-1] + b',"Subject":"\\ud800"}', Reason.LONE_SURROGATE),
    ("SNS with half a pair inside", wrapped(VALID.replace(b"TEA", b"\\ud800")), Reason.LONE_SURROGATE),
    ("SNS with half a pair unescaped once", wrapped(VALID).replace(b"TEA", b"\\ud800"), Reason.LONE_SURROGATE),
    ("SNS of another kind", b'{"Type":"SubscriptionConfirmation","Message":"{}"}', Reason.NOT_A_CLOUD_EVENT),
    ("500,000 empty lists", VALID[:-1] + b',"x":[' + b"[]," * 500_000 + b"[]]}", Reason.TOO_MANY_VALUES),
    ("500,000 numbers in SNS", wrapped(VALID[:-1] + b',"x":[' + b"1," * 500_000 + b"1]}"), Reason.TOO_MANY_VALUES),
    ("one byte too many", VALID + b" " * (BODY_BYTES_MAX + 1 - len(VALID)), Reason.TOO_LARGE),
]


@pytest.mark.parametrize(("body", "reason"), [case[1:] for case in DOCUMENTS], ids=[case[0] for case in DOCUMENTS])
def test_a_body_that_is_no_event_is_refused(body: bytes, reason: Reason) -> None:
    assert refusal(body).reason == reason


def test_a_body_of_exactly_the_limit_is_read() -> None:
    assert decode(VALID + b" " * (BODY_BYTES_MAX - len(VALID))) == decode(VALID)


@pytest.mark.parametrize(
    "body",
    [
        bytes(10_000_000),
        b"\xff" * 10_000_000,
        b"[" * 10_000_000,
        b'"' + b"a" * 10_000_000,
        b"9" * 10_000_000,
        b'{"specversion":"' + b"\\" * 10_000_000,
        b"[" + b"{}," * 3_333_333,
        b'{"specversion":"1.0","type":"' + b"x" * 10_000_000 + b'"}',
        b'{"specversion":"1.0","x":"' + b"\\u0041" * 1_600_000 + b'\\ud800"}',
        json.dumps(changed(ORDER, "data.lines", [[]] * 3_000_000)).encode(),
        json.dumps(changed(ORDER, "data.lines", [L] * 100_000)).encode(),
        json.dumps(changed(REFUND, "data.lines", [{"line_id": ""}] * 300_000)).encode(),
    ],
    ids=lambda body: repr(body[:24]),
)
def test_ten_megabytes_are_refused_in_seconds(body: bytes) -> None:
    started = time.perf_counter()
    refusal(body)
    # Generous for a busy machine; what matters is that no case is quadratic, which would take minutes.
    assert time.perf_counter() - started < 15


@pytest.mark.parametrize("depth", [60, 64, 65, 70])
def test_how_deep_the_caller_is_does_not_change_the_answer(depth: int) -> None:
    body = VALID[:-1] + b',"x":' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"

    def answer() -> object:
        try:
            return decode(body)
        except Malformed as error:
            return error.reason

    def sunk(frames: int) -> object:
        return answer() if frames == 0 else sunk(frames - 1)

    assert sunk(sys.getrecursionlimit() // 2) == answer()


def test_the_first_fault_of_several_is_the_same_each_time() -> None:
    body = encoded(changed(changed(ORDER, "data.lines.0.quantity", 0), "data.customer_id", ""))
    assert {refusal(body).detail for _ in range(5)} == {refusal(body).detail}


def test_every_reason_has_a_meaning_and_is_met_by_a_case() -> None:
    assert list(MEANINGS) == list(Reason)
    met = {case[3] for case in FIELDS} | {case[1] for case in (*TIMES, *BOUNDS)} | {case[2] for case in DOCUMENTS}
    assert met == set(Reason) - {Reason.SOURCE_NOT_ALLOWED}  # no fault of a body: tests/unit/test_allowed_sources.py
