"""Reads codes and audiences from CSV (rules 13). Each bad row is named by its line, and refuses the file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from incentive_fleet.errors import Refused
from incentive_fleet.ledger.codes import LOADED_MAX, PoolRow
from incentive_fleet.ledger.csv_rows import Cells, optional_time, read_rows, require_text

COLUMNS: Final = ("campaign_id", "code")
OPTIONAL: Final = ("customer_id", "expires_at")
MEMBER_COLUMNS: Final = ("audience", "customer_id")


def read_codes(path: Path) -> Iterator[PoolRow]:
    """Codes for pools: campaign_id, code, and where they are there customer_id and expires_at.

    Raises Refused (bad-file, bad-row) naming line, field and value.
    """
    for line, cells in _rows(path, COLUMNS, OPTIONAL):
        try:
            expires_at = optional_time("expires_at", cells["expires_at"])
        except Refused as refused:
            raise _at(path, line, refused) from None
        customer_id = cells["customer_id"] or None
        yield PoolRow(line, cells["campaign_id"], cells["code"].upper(), customer_id, expires_at)


def read_revoked(path: Path) -> Iterator[tuple[int, str]]:
    """Lines and codes, upper-cased, of a file with the column code. Raises as read_codes does."""
    for line, cells in _rows(path, ("code",), ()):
        yield line, cells["code"].upper()


def read_members(path: Path) -> Iterator[tuple[str, str]]:
    """(audience, customer) of a file with these two columns. Raises as read_codes does."""
    for _, cells in _rows(path, MEMBER_COLUMNS, ()):
        yield cells["audience"], cells["customer_id"]


def _rows(path: Path, columns: tuple[str, ...], optional: tuple[str, ...]) -> Iterator[tuple[int, Cells]]:
    for number, (line, cells) in enumerate(read_rows(path, columns, optional)):
        if isinstance(cells, Refused):
            raise _at(path, line, cells)
        if number >= LOADED_MAX:
            raise Refused("bad-file", f"{path}: more than {LOADED_MAX:,} rows")
        try:
            for name, text in cells.items():
                if name in columns or text:
                    require_text(name, text)
        except Refused as refused:
            raise _at(path, line, refused) from None
        yield line, cells


def _at(path: Path, line: int, refused: Refused) -> Refused:
    return Refused("bad-row", f"{path}: line {line}: {refused.detail}")
