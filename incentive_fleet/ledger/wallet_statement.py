"""A customer's wallets as a statement: what is there, in which lots, and how it came to that. Never writes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from psycopg import Connection

from incentive_fleet.events.times import format_time
from incentive_fleet.ledger.snapshot import snapshot
from incentive_fleet.ledger.statement_pages import StatementLine, statement_pages

READ_WALLETS = """
    SELECT customer_id, currency, balance, pending, debt FROM wallets WHERE customer_id = ANY(%s)
    ORDER BY customer_id, currency
"""
# In burn order: soonest expiry first, no expiry last, then oldest first.
READ_LOTS = """
    SELECT customer_id, currency, lot_no, campaign_id, amount, remaining, expires_at, order_id, cause, created_at, reissued_from
    FROM lots WHERE customer_id = ANY(%s) AND (live OR %s) ORDER BY customer_id, currency, expires_at NULLS LAST, lot_no
"""


@dataclass(frozen=True, slots=True)
class LotLine:
    """One lot. `expires_at` None never expires; a lot past it holds nothing spendable, swept or not."""

    lot_no: int
    campaign_id: str
    amount: int
    remaining: int
    expires_at: str | None
    order_id: str | None
    cause: str
    created_at: str
    reissued_from: int | None


@dataclass(frozen=True, slots=True)
class WalletHead:
    """What a wallet holds in one currency, in minor units."""

    customer_id: str
    currency: str
    balance: int
    pending: int
    debt: int


@dataclass(frozen=True, slots=True)
class WalletLines:
    """A wallet in one currency: balances in minor units, lots in burn order, the latest transfers newest first."""

    currency: str
    balance: int
    pending: int
    debt: int
    lots: list[LotLine]
    transfers: list[StatementLine]


@dataclass(frozen=True, slots=True)
class WalletStatement:
    """Everything of one customer by currency; no wallets when the customer is unknown. Times are RFC 3339 in UTC."""

    customer_id: str
    wallets: list[WalletLines]


def wallet_statement(
    connection: Connection[Any], customer_id: str, *, limit: int = 50, all_lots: bool = False
) -> WalletStatement:
    """The customer's wallets at one moment, with lots that hold something (or all) and `limit` transfers a currency.

    Raises ValueError for a limit outside 0 to 10,000, DatabaseUnavailable or DatabaseContention; a retry helps with
    the latter two.
    """
    with snapshot(connection):
        heads = wallet_heads(connection, [customer_id])[customer_id]
        lots = wallet_lots(connection, [customer_id], all_lots=all_lots)
        keys = [(customer_id, head.currency) for head in heads]
        pages = statement_pages(connection, keys, limit=limit)
    return WalletStatement(
        customer_id,
        [
            WalletLines(
                head.currency,
                head.balance,
                head.pending,
                head.debt,
                lots.get(key, []),
                pages[key],
            )
            for head, key in zip(heads, keys, strict=True)
        ],
    )


def wallet_heads(connection: Connection[Any], customer_ids: Iterable[str]) -> dict[str, list[WalletHead]]:
    """The wallets of each customer by currency, none of one who is unknown; in the caller's transaction, in one statement."""
    found: dict[str, list[WalletHead]] = {customer_id: [] for customer_id in customer_ids}
    for row in connection.execute(READ_WALLETS, (list(found),)).fetchall():
        found[row[0]].append(WalletHead(*row))
    return found


def wallet_lots(
    connection: Connection[Any], customer_ids: Iterable[str], *, all_lots: bool = False
) -> dict[tuple[str, str], list[LotLine]]:
    """The lots that hold something, or all, in burn order, by customer and currency; likewise."""
    found: dict[tuple[str, str], list[LotLine]] = {}
    for row in connection.execute(READ_LOTS, (list(customer_ids), all_lots)).fetchall():
        found.setdefault((row[0], row[1]), []).append(_lot_line(row))
    return found


def _lot_line(row: tuple[Any, ...]) -> LotLine:
    _, _, lot_no, campaign_id, amount, remaining, expires_at, order_id, cause, created_at, reissued_from = row
    return LotLine(
        lot_no,
        campaign_id,
        amount,
        remaining,
        format_time(expires_at) if expires_at else None,
        order_id,
        cause,
        format_time(created_at),
        reissued_from,
    )
