"""Reads grants from CSV: columns key, customer_id, currency, amount, campaign_id, expires_at. Each bad row is named."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from incentive_fleet.errors import Refused
from incentive_fleet.events.currencies import MINOR_DIGITS
from incentive_fleet.events.document import shown
from incentive_fleet.ledger.csv_rows import optional_time, read_rows, require_text
from incentive_fleet.ledger.grants import AMOUNT_MAX, Grant

COLUMNS = ("key", "customer_id", "currency", "amount", "campaign_id", "expires_at")
_WHOLE = re.compile(r"[0-9]{1,13}")


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the file: its line number, and the grant or why it is none."""

    line: int
    grant: Grant | Refused


def read_grants(path: Path) -> Iterator[Row]:
    """Rows of a .csv or .csv.gz file in its order. Raises Refused (bad-file) when it is not such a file."""
    for line, cells in read_rows(path, COLUMNS):
        try:
            yield Row(line, cells if isinstance(cells, Refused) else grant_of(**cells))
        except Refused as refused:
            yield Row(line, refused)


def grant_of(key: str, customer_id: str, currency: str, amount: str, campaign_id: str, expires_at: str) -> Grant:
    """A grant from texts as people write them; raises Refused naming field and value."""
    for field, text in (("key", key), ("customer_id", customer_id), ("campaign_id", campaign_id)):
        require_text(field, text)
    if currency not in MINOR_DIGITS:
        raise Refused("unknown-currency", f"currency is {shown(currency)}: not an ISO 4217 code with minor units")
    if not _WHOLE.fullmatch(amount):
        raise Refused(
            "bad-amount", f"amount is {shown(amount)}: must be a whole number of minor units, 1 to {AMOUNT_MAX}"
        )
    return Grant(key, customer_id, currency, int(amount), campaign_id, optional_time("expires_at", expires_at))
