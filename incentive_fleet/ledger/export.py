"""The whole ledger as an hledger journal, streamed. Never writes.

One transaction a transfer: its debit account positive, its credit account negative, as hledger signs them. So accounts
that are debit-normal here (campaign, debt) show our balance, the others (wallet, pending, order, breakage) show it with a
minus. Amounts are in major units with all the decimals of the currency (ISO 4217), so equality is exact.

Ids may hold anything that hledger would read as something else, so each is written percent-encoded (RFC 3986: letters,
digits and `-._~` of ASCII stay, every other byte of its UTF-8 becomes %XX); `account_of` turns a name back. A journal is
therefore plain ASCII, which hledger reads under any locale.

Dates are the days in UTC on which transfers were booked, in order, with the day on which it happened as the secondary
date (`hledger --date2`); both times stand in the tags, with kind, customer, order, lot and cause.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final
from urllib.parse import quote, unquote

from psycopg import Connection

from incentive_fleet.events.currencies import MINOR_DIGITS
from incentive_fleet.events.times import format_time
from incentive_fleet.incentives.accounts import ACCOUNTS, AccountClass
from incentive_fleet.incentives.booking import Posting
from incentive_fleet.ledger.snapshot import snapshot

ROWS_A_FETCH = 5_000
ENCODED_IDS_MAX = 100_000  # kept at hand, so that memory stays flat however long the journal is

# Types by which hledger arranges its reports: a promise to a customer is a liability, what is spent an expense.
ACCOUNT_TYPES: Final = {
    AccountClass.BREAKAGE: "R",
    AccountClass.CAMPAIGN: "X",
    AccountClass.DEBT: "A",
    AccountClass.ORDER: "R",
    AccountClass.PENDING: "L",
    AccountClass.WALLET: "L",
}

READ_CURRENCIES = "SELECT DISTINCT currency FROM transfers ORDER BY currency"
READ_KINDS = "SELECT DISTINCT kind FROM transfers ORDER BY kind"  # a transaction's payee
READ_ACCOUNTS = "SELECT debit_account FROM transfers UNION SELECT credit_account FROM transfers ORDER BY 1"


READ_TRANSFERS = f"""
    SELECT transfer_id, booked_at, {", ".join(Posting._fields)} FROM transfers
    ORDER BY (booked_at AT TIME ZONE 'UTC')::date, transfer_id
"""


def export_hledger(connection: Connection[Any]) -> Generator[str, None, None]:
    """The journal of everything booked, as pieces of text that each end a line; from one snapshot, in flat memory.

    The connection is busy until the generator is exhausted or closed. Raises DatabaseUnavailable or DatabaseContention
    on the way; a retry from the beginning helps.
    """
    with snapshot(connection, whole_tables=True):
        yield from _declarations(connection)
        for row in _rows(connection, "accounts_exported", READ_ACCOUNTS):
            if row[0] not in ACCOUNT_TYPES:
                yield f"account {hledger_name(row[0])}\n"
        yield "\n"
        for transfer_id, booked_at, *posting in _rows(connection, "transfers_exported", READ_TRANSFERS):
            yield _transaction(transfer_id, booked_at, Posting(*posting))


def hledger_name(account: str) -> str:
    """The account's name in the journal; `account_of` is its inverse."""
    kind, colon, owner = account.partition(":")
    return f"{kind}{colon}{_encoded(owner)}"


def account_of(name: str) -> str:
    """The account of a name in the journal."""
    kind, colon, owner = name.partition(":")
    return f"{kind}{colon}{unquote(owner)}"


def major_units(amount: int, currency: str) -> str:
    """Minor units as a decimal with all the digits of the currency's minor unit, like 1234.50 for 123450 EUR."""
    digits = MINOR_DIGITS[currency]
    if digits == 0:
        return str(amount)
    whole, part = divmod(abs(amount), 10**digits)
    return f"{'-' if amount < 0 else ''}{whole}.{part:0{digits}}"


def _declarations(connection: Connection[Any]) -> Iterator[str]:
    yield "; Incentives ledger. Debits are positive. Ids are percent-encoded.\ndecimal-mark .\n\n"
    for (currency,) in connection.execute(READ_CURRENCIES).fetchall():
        digits = MINOR_DIGITS[currency]
        yield f"commodity 1000.{'0' * digits} {currency}\n"
    yield "\n"
    for (kind,) in connection.execute(READ_KINDS).fetchall():
        yield f"payee {kind}\n"
    yield "\n"
    for account, account_type in ACCOUNT_TYPES.items():
        yield f"account {account}  ; {ACCOUNTS[account].meaning}, type:{account_type}\n"


def _rows(connection: Connection[Any], name: str, query: str) -> Iterator[tuple[Any, ...]]:
    with connection.cursor(name=name) as cursor:
        cursor.itersize = ROWS_A_FETCH
        cursor.execute(query.encode())
        yield from cursor


def _transaction(transfer_id: int, booked_at: datetime, row: Posting) -> str:
    value = major_units(row.amount, row.currency)
    about = f"order {_encoded(row.order_id)}" if row.order_id is not None else _encoded(row.cause)
    tags = f"kind:{row.kind}, customer:{_encoded(row.customer_id)}"
    if row.order_id is not None:
        tags += f", order:{_encoded(row.order_id)}"
    if row.lot_no is not None:
        tags += f", lot:{row.lot_no}"
    happened, booked = format_time(row.happened_at), format_time(booked_at)
    tags += f", cause:{_encoded(row.cause)}, happened:{happened}, booked:{booked}"
    return (
        f"{_day(booked_at)}={_day(row.happened_at)} * ({transfer_id}) {row.kind} | {about}\n"
        f"    ; {tags}\n"
        f"    {hledger_name(row.debit_account)}  {value} {row.currency}\n"
        f"    {hledger_name(row.credit_account)}  -{value} {row.currency}\n\n"
    )


def _day(moment: datetime) -> str:
    return moment.astimezone(UTC).date().isoformat()


@lru_cache(maxsize=ENCODED_IDS_MAX)
def _encoded(text: str) -> str:
    return quote(text, safe="")
