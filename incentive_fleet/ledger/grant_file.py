"""Reads grants from CSV: columns key, customer_id, currency, amount, campaign_id, expires_at. Each bad row is named."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from incentive_fleet.errors import Malformed, Refused
from incentive_fleet.events.currencies import MINOR_DIGITS
from incentive_fleet.events.models import NO_CONTROL_PATTERN, TEXT_LENGTH_MAX
from incentive_fleet.events.times import parse_time
from incentive_fleet.ledger.grants import Grant
from incentive_fleet.text_files import UNREADABLE, open_text

COLUMNS = ("key", "customer_id", "currency", "amount", "campaign_id", "expires_at")
_TEXT = re.compile(NO_CONTROL_PATTERN)
_WHOLE = re.compile(r"^[0-9]{1,13}$")


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the file: its line number, and the grant or why it is none."""

    line: int
    grant: Grant | Refused


def read_grants(path: Path) -> Iterator[Row]:
    """Rows of a .csv or .csv.gz file in its order. Raises Refused (bad-file) when it is not such a file."""
    line = 0
    try:
        with open_text(path) as raw:
            reader = csv.DictReader(io.TextIOWrapper(raw, encoding="utf-8", newline=""), strict=True)
            missing = [column for column in COLUMNS if column not in (reader.fieldnames or ())]
            if missing:
                raise Refused("bad-file", f"{path}: the first line lacks the columns {', '.join(missing)}")
            for values in reader:
                line = reader.line_num
                yield Row(line, _row(values))
    except UnicodeDecodeError as error:
        raise Refused("bad-file", f"{path}: behind line {line}: not UTF-8: {error.reason}") from None
    except (csv.Error, *UNREADABLE) as error:
        raise Refused("bad-file", f"{path}: behind line {line}: {error}") from None


def _row(values: dict[str | None, str | None]) -> Grant | Refused:
    if None in values or None in values.values():
        return Refused("bad-row", f"the row does not have {len(COLUMNS)} columns")
    texts = {str(name): str(value) for name, value in values.items()}
    try:
        return grant_of(**{name: texts[name] for name in COLUMNS})
    except Refused as refused:
        return refused


def grant_of(key: str, customer_id: str, currency: str, amount: str, campaign_id: str, expires_at: str) -> Grant:
    """A grant from texts as people write them; raises Refused naming field and value."""
    for field, text in (("key", key), ("customer_id", customer_id), ("campaign_id", campaign_id)):
        if not 1 <= len(text) <= TEXT_LENGTH_MAX or not _TEXT.match(text):
            raise Refused(
                "bad-text", f"{field} is {text!r}: must have 1 to {TEXT_LENGTH_MAX} characters, none a control"
            )
    if currency not in MINOR_DIGITS:
        raise Refused("unknown-currency", f"currency is {currency!r}: not an ISO 4217 code with minor units")
    if not _WHOLE.match(amount):
        raise Refused("bad-amount", f"amount is {amount!r}: must be a whole number of minor units")
    return Grant(key, customer_id, currency, int(amount), campaign_id, _expiry(expires_at))


def _expiry(text: str) -> datetime | None:
    if not text:
        return None
    try:
        return parse_time(text)
    except Malformed as error:
        raise Refused("bad-time", f"expires_at is {text!r}: {error.detail}") from None
