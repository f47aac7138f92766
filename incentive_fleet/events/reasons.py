"""Why a body is not an event: the closed set of reason codes that dead letters, filters and counters use.

The codes are a contract: they are stored with dead letters for ever, so a code is never renamed and never given another
meaning. docs/events/reasons.md is written from this module (see schemas.py). It never decides anything.
"""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """A stable kebab-case code; `MEANINGS` says what each one stands for."""

    TOO_LARGE = "too-large"
    TOO_MANY_VALUES = "too-many-values"
    NOT_UTF8 = "not-utf8"
    NOT_JSON = "not-json"
    NOT_FINITE = "not-finite"
    REPEATED_NAME = "repeated-name"
    LONE_SURROGATE = "lone-surrogate"
    TOO_DEEP = "too-deep"
    BAD_SNS_ENVELOPE = "bad-sns-envelope"
    NOT_A_CLOUD_EVENT = "not-a-cloud-event"
    UNKNOWN_SPECVERSION = "unknown-specversion"
    UNKNOWN_TYPE = "unknown-type"
    UNKNOWN_TYPE_VERSION = "unknown-type-version"
    WRONG_CONTENT_TYPE = "wrong-content-type"
    DATA_TWICE = "data-twice"
    BAD_BASE64 = "bad-base64"
    MISSING_FIELD = "missing-field"
    NULL_FIELD = "null-field"
    WRONG_TYPE = "wrong-type"
    OUT_OF_BOUNDS = "out-of-bounds"
    CONTROL_CHARACTER = "control-character"
    INVALID_TIME = "invalid-time"
    UNKNOWN_CURRENCY = "unknown-currency"
    UNKNOWN_REFUND_REASON = "unknown-refund-reason"
    UNKNOWN_LINE_KIND = "unknown-line-kind"
    QUANTITY_OR_AMOUNT = "quantity-or-amount"
    REPEATED_LINE = "repeated-line"
    GROSS_TOO_LARGE = "gross-too-large"
    SUBJECT_MISMATCH = "subject-mismatch"
    WRONG_QUEUE = "wrong-queue"
    SOURCE_NOT_ALLOWED = "source-not-allowed"


MEANINGS: dict[Reason, str] = {
    Reason.TOO_LARGE: "The body has more bytes than `INCENTIVES_EVENT_BYTES_MAX`, 16 MiB at the most. It is not decoded.",
    Reason.TOO_MANY_VALUES: "The document has more than 200,000 members and elements; no event has more than 50,000.",
    Reason.NOT_UTF8: "The body is not UTF-8 (a surrogate encoded as three bytes is not UTF-8 either).",
    Reason.NOT_JSON: "The text is not one JSON document; a byte order mark in front is refused too.",
    Reason.NOT_FINITE: "NaN, Infinity or -Infinity, which are not JSON.",
    Reason.REPEATED_NAME: "An object, known or unknown, holds the same name twice.",
    Reason.LONE_SURROGATE: "A \\u escape names half of a surrogate pair, anywhere in the document.",
    Reason.TOO_DEEP: "Arrays and objects are nested more than 64 deep.",
    Reason.BAD_SNS_ENVELOPE: "An SNS notification whose Message is missing or not a string.",
    Reason.NOT_A_CLOUD_EVENT: "The document is not an object with `specversion`. Where it is known what it is, the detail says so.",
    Reason.UNKNOWN_SPECVERSION: 'A CloudEvent of a version other than "1.0".',
    Reason.UNKNOWN_TYPE: "The `type` is none of the events in.",
    Reason.UNKNOWN_TYPE_VERSION: "The `type` is one of ours in a version that this release does not know.",
    Reason.WRONG_CONTENT_TYPE: "`datacontenttype` is there and is not application/json or application/*+json in UTF-8.",
    Reason.DATA_TWICE: "Both of `data` and `data_base64` are there.",
    Reason.BAD_BASE64: "`data_base64` is not base64 of RFC 4648, with padding and without line breaks.",
    Reason.MISSING_FIELD: "A field that is not optional is absent.",
    Reason.NULL_FIELD: "A known field is null. Optional fields are left out, not set to null.",
    Reason.WRONG_TYPE: 'The JSON type is not the field\'s; 5.0, 5e0, "5" and true are not integers.',
    Reason.OUT_OF_BOUNDS: "A number, the length of a text or list, or a time is outside its bounds.",
    Reason.CONTROL_CHARACTER: "A text holds a character of Unicode category Cc.",
    Reason.INVALID_TIME: "Not an RFC 3339 date-time with an offset, or no such day; a leap second in a time that rules use.",
    Reason.UNKNOWN_CURRENCY: "Not the code of an ISO 4217 currency, active or retired, that has minor units.",
    Reason.UNKNOWN_REFUND_REASON: "A refund line's `reason` is not returned, undelivered or goodwill.",
    Reason.UNKNOWN_LINE_KIND: "A line's `kind` is not goods, fee, deposit or tip.",
    Reason.QUANTITY_OR_AMOUNT: "A refund line has both of `quantity` and `amount`, or neither.",
    Reason.REPEATED_LINE: "Two lines of a basket have the same `line_id`.",
    Reason.GROSS_TOO_LARGE: "The basket's gross exceeds 10^15 minor units.",
    Reason.SUBJECT_MISMATCH: "`subject` is not the order id of the data, or the grant key.",
    Reason.WRONG_QUEUE: "A quote request among facts, or a fact among quote requests.",
    Reason.SOURCE_NOT_ALLOWED: "`INCENTIVES_ALLOWED_SOURCES` does not allow the `source` on this queue, or on that of its type.",
}
