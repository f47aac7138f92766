"""A dead letter as the database keeps it, and what can be read out of a body that may be anything. No I/O here."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from incentive_fleet.errors import Malformed
from incentive_fleet.events.data_base64 import with_data
from incentive_fleet.events.document import BODY_BYTES_MAX, refuse_many

FIELD_CHARACTERS: Final = 200  # rules 2.1: the bound on every text of an event; longer ones are no ids of ours

STATUSES: Final = ("open", "replaying", "replayed", "discarded")
OPEN, REPLAYING, REPLAYED, DISCARDED = STATUSES

# What a list needs, and what it may show to everybody; then what a replay needs beside it.
_SUMMARY: Final = """
    id, transport, source_queue, dead_letter_queue, reason, detail, group_text, group_no,
    event_type, event_source, event_id, order_id, customer_id, status, first_seen, last_seen, times_seen, arrival, life,
    replays, returned, earlier_id, sent_sha256, same_body_replays, claim_run, claimed_by, claimed_at,
    edited, current_sha256, size
"""
_LAST_RUN: Final = """
    (SELECT max(l.run_id) FROM dead_letter_run_letters l WHERE l.dead_letter_id = id AND l.state <> 'refused') AS last_run
"""
COLUMNS: Final = f"body, edited_body, headers, envelope, failure, {_SUMMARY}, NULL::bigint AS last_run"
# A body may have 100 MiB, and headers 128 KiB: whoever reads many letters, or has the body in hand, leaves them where they are.
WITHOUT_BODIES: Final = f"""
    NULL::bytea AS body, NULL::bytea AS edited_body, headers, envelope, failure, {_SUMMARY}, NULL::bigint AS last_run
"""
SUMMARY: Final = f"""
    NULL::bytea AS body, NULL::bytea AS edited_body, '{{}}'::jsonb AS headers, '{{}}'::jsonb AS envelope, NULL::jsonb AS failure,
    {_SUMMARY}, {_LAST_RUN}
"""
# What no consumer decodes is not shown whole, either: of a larger body its beginning, one byte more than is too large.
CUT: Final = f"""
    substring(body FROM 1 FOR {BODY_BYTES_MAX + 1}) AS body,
    substring(edited_body FROM 1 FOR {BODY_BYTES_MAX + 1}) AS edited_body, headers, envelope, failure, {_SUMMARY},
    {_LAST_RUN}
"""
# Whoever shows many wants the beginnings alone.
BEGINNINGS: Final = """
    id, substring(body FROM 1 FOR %(bytes)s) AS body, octet_length(body) AS size,
    substring(edited_body FROM 1 FOR %(bytes)s) AS edited_body, octet_length(edited_body) AS edited_size, headers, failure
"""


@dataclass(frozen=True, slots=True)
class Letter:
    """A row of dead_letters; docs/dead-letters.md says what each field means."""

    id: int
    transport: str
    source_queue: str
    dead_letter_queue: str
    body: bytes  # None where it was read WITHOUT_BODIES or as a SUMMARY, for those who never look at it
    edited_body: bytes | None  # likewise; `edited` says whether there is one
    headers: dict[str, str]
    envelope: dict[str, Any]
    reason: str
    detail: str
    group_text: str
    group_no: int
    failure: dict[str, Any] | None
    event_type: str | None
    event_source: str | None
    event_id: str | None
    order_id: str | None
    customer_id: str | None
    status: str
    first_seen: datetime
    last_seen: datetime
    times_seen: int
    arrival: str
    life: int
    replays: int
    returned: int
    earlier_id: int | None
    sent_sha256: bytes | None
    same_body_replays: int
    claim_run: int | None
    claimed_by: str | None
    claimed_at: datetime | None
    edited: bool
    current_sha256: bytes  # of what a replay sends
    size: int  # ... and how many bytes that has
    last_run: int | None  # that had to do with it, where it was asked for

    @property
    def current_body(self) -> bytes:
        """What a replay sends: the edited body, or the original."""
        return self.body if self.edited_body is None else self.edited_body


@dataclass(frozen=True, slots=True)
class SearchFields:
    """What a body says of itself, read leniently: for filters, never for decisions."""

    event_type: str | None = None
    event_source: str | None = None
    event_id: str | None = None
    order_id: str | None = None
    customer_id: str | None = None


def search_fields_of(body: bytes) -> SearchFields:
    """Whatever can be read, None for what cannot, nothing of what no consumer would decode; never raises."""
    if len(body) > BODY_BYTES_MAX:
        return SearchFields()
    document = _object(body.decode("utf-8", "replace"))
    if "specversion" not in document and document.get("Type") == "Notification":
        document = _object(str(document.get("Message", "")))
    data = with_data(document).get("data")
    data = data if isinstance(data, dict) else {}
    return SearchFields(
        event_type=_text(document.get("type")),
        event_source=_text(document.get("source")),
        event_id=_text(document.get("id")),
        order_id=_text(data.get("order_id")) or _text(document.get("subject")),
        customer_id=_text(data.get("customer_id")),
    )


def _object(text: str) -> dict[str, Any]:
    try:
        refuse_many(text)
        document = json.loads(text)
    except (Malformed, ValueError, RecursionError):  # not JSON, a number of thousands of digits, or nested without end
        return {}
    return document if isinstance(document, dict) else {}


def _text(value: object) -> str | None:
    if not isinstance(value, str) or not 1 <= len(value) <= FIELD_CHARACTERS:
        return None
    return storable(value)


def storable(text: str) -> str:
    """The text as Postgres can keep it: NUL and lone surrogates become U+FFFD."""
    return re.sub("[\x00\ud800-\udfff]", "\N{REPLACEMENT CHARACTER}", text)


def storable_values(value: object) -> object:
    """A JSON value whose every text and number Postgres can keep; names included."""
    match value:
        case str():
            return storable(value)
        case dict():
            return {storable(str(name)): storable_values(item) for name, item in value.items()}
        case list():
            return [storable_values(item) for item in value]
        case float() if not math.isfinite(value):
            return str(value)
        case _:
            return value
