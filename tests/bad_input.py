"""Every field that came with final baskets, grants by event and quotes, and each way in which it can be wrong (rules 2, 14).

A field is of a kind, and a kind says what it refuses, why, and what at its very bounds it still takes. So a field that is
added says its kind, and gets every row of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from incentive_fleet.errors import Malformed
from incentive_fleet.events.codec import decode, decode_quote
from incentive_fleet.events.document import shown
from incentive_fleet.events.reasons import Reason
from tests.event_bodies import CANCELLING, FINAL, GRANT, ORDER, REMOVED, Document, changed, encoded

LINE: Final = {"line_id": "1", "sku": "TEA", "category": "tea", "quantity": 1, "unit_price": 450, "kind": "fee"}
QUOTE: Final[Document] = {
    "specversion": "1.0",
    "id": "q-1",
    "source": "/checkout/test",
    "type": "incentives-quote-requested.v1",
    "subject": "q1",
    "time": "2026-03-01T09:00:00Z",
    "data": {
        "quote_id": "q1",
        "customer_id": "c-1",
        "currency": "EUR",
        "at": "2026-03-01T09:00:00Z",
        "lines": [LINE],
        "coupons": ["SPRING"],
        "credit_requested": 300,
    },
}
BASKET: Final = changed(FINAL, "data.lines", [LINE])
ESTIMATED: Final = changed(ORDER, "data", ORDER["data"] | {"estimated": True, "lines": [LINE]})
RAW: Final = "@RAW@"  # stands for what json.dumps would not write


@dataclass(frozen=True, slots=True)
class Raw:
    """A value as it is written on the wire."""

    text: str


class Refused(NamedTuple):
    """A value, the reason that the rules give, and how the detail goes on behind the field's name."""

    value: object
    reason: Reason
    detail: str | None = None  # None: ` is ` and the value


@dataclass(frozen=True, slots=True)
class Kind:
    """What a field refuses, and what it takes."""

    refused: Sequence[Refused]
    taken: Sequence[object]


@dataclass(frozen=True, slots=True)
class Field:
    """A field of an event, by the path to it."""

    document: Document
    path: str
    kind: Kind
    required: bool = True

    @property
    def name(self) -> str:
        """As details name it."""
        return "".join(f"[{step}]" if step.isdigit() else f".{step}" for step in self.path.split("."))[1:]


class Row(NamedTuple):
    """A body that is malformed, why, and how the detail begins."""

    document: Document
    body: bytes
    reason: Reason
    detail: str


def _of(reason: Reason, *values: object) -> list[Refused]:
    return [Refused(value, reason) for value in values]


# A repeated name is refused in whatever object it stands, a value that is no JSON wherever it stands.
_ANYWHERE: Final = [
    Refused(Raw("NaN"), Reason.NOT_FINITE, "NaN is not JSON"),
    Refused(Raw("-Infinity"), Reason.NOT_FINITE, "-Infinity is not JSON"),
    Refused(Raw('"\\ud83d"'), Reason.LONE_SURROGATE, "the escape \\ud83d"),
    Refused(Raw('{"a":1,"a":1}'), Reason.REPEATED_NAME, "an object holds the name 'a' twice"),
]
_NULL: Final = _of(Reason.NULL_FIELD, None)
_NO_CHOICE: Final = _of(Reason.WRONG_TYPE, 5, 5.0, True, [], {})
_NO_TEXT: Final = [*_NULL, *_NO_CHOICE, *_ANYWHERE]

TEXT: Final = Kind(
    [
        *_NO_TEXT,
        *_of(Reason.OUT_OF_BOUNDS, "", "x" * 201, "\U0001f600" * 201),
        *_of(Reason.CONTROL_CHARACTER, "a\tb", "a\n", "\x00", "\x7f", "a\x85", "\x9f"),
    ],
    ["x", "x" * 200, "\U0001f600" * 200, " ", "\u2028", "\u202e", "null"],
)
TIME: Final = Kind(
    [
        *_NO_TEXT,
        *_of(
            Reason.INVALID_TIME, "", "2026-03-01", "2026-03-01T10:00:00", "2026-02-30T10:00:00Z", "2026-03-01T24:00:00Z"
        ),
        *_of(
            Reason.INVALID_TIME, "2016-12-31T23:59:60Z", "2026-03-01 10:00:00Z", "2026-03-01T10:00:00Z\n", "1772000000"
        ),
        *_of(Reason.OUT_OF_BOUNDS, "1969-12-31T23:59:59.999999Z", "1970-01-01T01:00:00+01:01", "2200-01-01T00:00:00Z"),
    ],
    ["1970-01-01T00:00:00Z", "2200-01-01T00:59:59.9999999+01:00", "2026-03-01t10:00:00.1234567z"],
)
FLAG: Final = Kind([*_NULL, *_of(Reason.WRONG_TYPE, 0, 1, 1.0, "true", "", [], {}), *_ANYWHERE], [True, False])
CURRENCY: Final = Kind(
    [*_NO_TEXT, *_of(Reason.UNKNOWN_CURRENCY, "", "eur", "EURO", "EUR ", "XAU", "XXX", "XTS", "XEU")],
    ["EUR", "JPY", "BHD", "HRK"],
)
LINE_KIND: Final = Kind(
    [*_NO_TEXT, *_of(Reason.UNKNOWN_LINE_KIND, "", "Goods", "goods ", "gift", "TIP")],
    ["goods", "fee", "deposit", "tip"],
)
CODES: Final = Kind(
    [
        *_NULL,
        *_of(Reason.WRONG_TYPE, "SPRING", 5, True, {}),
        *_of(Reason.OUT_OF_BOUNDS, ["C"] * 21),
        Refused([None], Reason.NULL_FIELD, "[0] is null"),
        Refused([5], Reason.WRONG_TYPE, "[0] is 5"),
        Refused(["A", ""], Reason.OUT_OF_BOUNDS, "[1] is ''"),
        Refused(["A", "x" * 201], Reason.OUT_OF_BOUNDS, "[1] is 'xxx"),
        Refused(["a\n"], Reason.CONTROL_CHARACTER, r"[0] is 'a\n'"),
        *_ANYWHERE,
    ],
    [[], ["A", "a", "A"], ["C"] * 20],
)


def whole(least: int, most: int) -> Kind:
    """A whole number."""
    wrong = _of(Reason.WRONG_TYPE, 5.0, "5", True, False, [], {}, Raw("1e2"), Raw("5.0"), Raw("-0.0"))
    out = _of(Reason.OUT_OF_BOUNDS, least - 1, most + 1, -(2**63), 2**63, 2**64 + 1, 10**400, Raw("9" * 5_000))
    return Kind([*_NULL, *wrong, *out, *_ANYWHERE], [least, most])


def basket(least: int) -> Kind:
    """Lines, of which there may be none where `least` is 0."""
    lines = [LINE | {"line_id": str(number)} for number in range(2_001)]
    heavy = LINE | {"line_id": "2", "quantity": 1_000_000, "unit_price": 10**9}
    return Kind(
        [
            *_NULL,
            *_of(Reason.WRONG_TYPE, {"0": LINE}, "lines", 5, True),
            *_of(Reason.OUT_OF_BOUNDS, lines, *([[]] * least)),
            Refused([None], Reason.NULL_FIELD, "[0] is null"),
            Refused([LINE, "x"], Reason.WRONG_TYPE, "[1] is 'x'"),
            Refused([[LINE]], Reason.WRONG_TYPE, "[0] is a list of 1"),
            Refused([LINE, LINE], Reason.REPEATED_LINE, ": line_id '1' comes twice"),
            Refused([heavy, LINE], Reason.GROSS_TOO_LARGE, ": the gross is 1000000000000450"),
            *_ANYWHERE,
        ],
        [lines[:2_000], [heavy], *([[]] * (1 - least))],
    )


FIELDS: Final = [
    Field(ESTIMATED, "data.estimated", FLAG, required=False),
    *(
        field
        for document in (ESTIMATED, BASKET, QUOTE)
        for field in (
            Field(document, "data.lines.0.line_id", TEXT),
            Field(document, "data.lines.0.sku", TEXT),
            Field(document, "data.lines.0.category", TEXT, required=False),
            Field(document, "data.lines.0.quantity", whole(1, 1_000_000)),
            Field(document, "data.lines.0.unit_price", whole(0, 10**9)),
            Field(document, "data.lines.0.kind", LINE_KIND, required=False),
        )
    ),
    Field(BASKET, "data.order_id", TEXT),
    Field(BASKET, "data.finalized_at", TIME),
    Field(BASKET, "data.lines", basket(0)),
    Field(CANCELLING, "data.order_id", TEXT),
    Field(CANCELLING, "data.cancelled_at", TIME),
    Field(CANCELLING, "data.reason", TEXT, required=False),
    Field(GRANT, "data.grant_key", TEXT),
    Field(GRANT, "data.customer_id", TEXT),
    Field(GRANT, "data.currency", CURRENCY),
    Field(GRANT, "data.amount", whole(1, 10**12)),
    Field(GRANT, "data.campaign_id", TEXT),
    Field(GRANT, "data.requested_at", TIME),
    Field(GRANT, "data.expires_at", TIME, required=False),
    Field(GRANT, "data.reason", TEXT, required=False),
    Field(QUOTE, "data.quote_id", TEXT),
    Field(QUOTE, "data.customer_id", TEXT),
    Field(QUOTE, "data.currency", CURRENCY),
    Field(QUOTE, "data.at", TIME),
    Field(QUOTE, "data.lines", basket(1)),
    Field(QUOTE, "data.coupons", CODES, required=False),
    Field(QUOTE, "data.credit_requested", whole(0, 10**12), required=False),
]
NAMED_BY: Final = {"data.order_id": "subject", "data.grant_key": "subject", "data.quote_id": "subject"}


def decoder(document: Document) -> Callable[[bytes], object]:
    """What reads the event at its door."""
    return decode_quote if document is QUOTE else decode


def refusal(document: Document, body: bytes) -> Malformed | None:
    """What its door says of the body; None: it is taken."""
    try:
        decoder(document)(body)
    except Malformed as error:
        return error
    return None


def written(field: Field, value: object) -> bytes:
    """The event with the value in this field, and the subject that goes with it where it is a text that names."""
    document = field.document
    if field.path in NAMED_BY and isinstance(value, str):
        document = changed(document, NAMED_BY[field.path], value)
    if isinstance(value, Raw):
        return encoded(changed(document, field.path, RAW)).replace(f'"{RAW}"'.encode(), value.text.encode())
    return encoded(changed(document, field.path, value))


def rows_of(field: Field) -> Iterator[Row]:
    """Each way in which the field can be wrong."""
    for value, reason, told in field.kind.refused:
        yield Row(field.document, written(field, value), reason, _detail(field, value, told))
    if field.required:
        yield Row(field.document, written(field, REMOVED), Reason.MISSING_FIELD, f"{field.name} is missing")
    name = field.path.rpartition(".")[2]
    twice = encoded(field.document["data"]).replace(f'"{name}":'.encode(), f'"{name}":null,"{name}":'.encode(), 1)
    body = encoded(changed(field.document, "data", RAW)).replace(f'"{RAW}"'.encode(), twice)
    yield Row(field.document, body, Reason.REPEATED_NAME, f"an object holds the name '{name}' twice")


def _detail(field: Field, value: object, told: str | None) -> str:
    if told is None and field.path in NAMED_BY and isinstance(value, str):
        return f"{NAMED_BY[field.path]} is {shown(value)}"  # which is read first
    if told is None:
        return f"{field.name} is {'' if isinstance(value, Raw) else shown(value)}"
    return told if told[0] not in "[:" else field.name + told


def rows() -> Iterator[Row]:
    """All of them, and what one event says against itself."""
    for field in FIELDS:
        yield from rows_of(field)
    for document in (BASKET, CANCELLING, GRANT, QUOTE):
        body = encoded(changed(document, "subject", "another"))
        yield Row(document, body, Reason.SUBJECT_MISMATCH, "subject is 'another', data.")
    for document in (ESTIMATED, BASKET, CANCELLING, GRANT):
        yield Row(QUOTE, encoded(document), Reason.WRONG_QUEUE, f"type is '{document['type']}'")
        later: Any = document["type"].replace(".v1", ".v2")
        yield Row(
            document, encoded(changed(document, "type", later)), Reason.UNKNOWN_TYPE_VERSION, f"type is '{later}'"
        )
    yield Row(BASKET, encoded(QUOTE), Reason.WRONG_QUEUE, f"type is '{QUOTE['type']}'")
