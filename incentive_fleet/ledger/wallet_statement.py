"""A customer's wallets as a statement: what is there, in which lots, and how it came to that. Never writes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from psycopg import Connection

from incentive_fleet.events.times import format_time
from incentive_fleet.events.traceparent import trace_id_of
from incentive_fleet.ledger.snapshot import snapshot

TRANSFERS_MAX = 10_000  # shown of one wallet

READ_WALLETS = "SELECT currency, balance, pending, debt FROM wallets WHERE customer_id = %s ORDER BY currency"
# In burn order: soonest expiry first, no expiry last, then oldest first.
READ_LOTS = """
    SELECT currency, lot_no, campaign_id, amount, remaining, expires_at, order_id, cause, created_at, reissued_from
    FROM lots WHERE customer_id = %s AND (live OR %s) ORDER BY expires_at NULLS LAST, lot_no
"""
# Materialized, so that the planner takes the customer's index: walking all transfers backwards until enough of them are
# this customer's would be quick for a busy one and endless for a quiet one. The trace is looked up row by row, never joined.
READ_TRANSFERS = """
    WITH own AS MATERIALIZED (
        SELECT transfer_id, kind, debit_account, credit_account, currency, amount, order_id, lot_no, cause,
               happened_at, booked_at
        FROM transfers WHERE customer_id = %s AND kind NOT IN ('coupon', 'coupon_reversal')
    ), numbered AS (SELECT own.*, row_number() OVER (PARTITION BY currency ORDER BY transfer_id DESC) AS place FROM own)
    SELECT numbered.*, (SELECT traceparent FROM facts f WHERE f.order_id = numbered.order_id AND f.fact = numbered.cause)
    FROM numbered WHERE place <= %s ORDER BY currency, place
"""

# What each kind of transfer means to the customer; {order} and {lot} are the transfer's.
_MEANINGS = {
    "grant": "credit granted, as lot {lot}",
    "grant_reversal": "a grant taken back, from lot {lot}",
    "credit": "spent on order {order}, from lot {lot}",
    "earn": "earned on order {order}, to be had once it is delivered",
    "vest": "earned on order {order}, delivered now, as lot {lot}",
    "credit_return": "credit of order {order} given back, to lot {lot}",
    "earn_cancel": "not earned on order {order} after all: {why}",
    "clawback": "earned on order {order}, which was refunded: taken back from lot {lot}",
    "clawback_debt": "earned on order {order}, which was refunded: spent already, so it is owed",
    "debt_settlement": "owed credit settled from lot {lot}",
    "make_good": "for the late delivery of order {order}, as lot {lot}",
    "expiry": "lot {lot} expired",
}
_LESS_EARNED = {
    "final-basket": "less of it was picked",
    "cancelling": "it was cancelled",
    "delivery": "not all of it was delivered",
}


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
class StatementLine:
    """One transfer. The three changes are signed; `balance_after` is the wallet's balance once it was booked."""

    transfer_id: int
    kind: str
    amount: int
    wallet_change: int
    pending_change: int
    debt_change: int
    balance_after: int
    meaning: str
    order_id: str | None
    lot_no: int | None
    cause: str
    happened_at: str
    booked_at: str
    trace_id: str | None  # of the event behind it, where its sender told one


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
    if not 0 <= limit <= TRANSFERS_MAX:
        raise ValueError(f"limit is {limit}: must be 0 to {TRANSFERS_MAX}")
    with snapshot(connection):
        wallets = connection.execute(READ_WALLETS, (customer_id,)).fetchall()
        lots = connection.execute(READ_LOTS, (customer_id, all_lots)).fetchall()
        transfers = connection.execute(READ_TRANSFERS, (customer_id, limit)).fetchall()
    return WalletStatement(
        customer_id,
        [
            WalletLines(
                currency,
                balance,
                pending,
                debt,
                [_lot_line(row) for row in lots if row[0] == currency],
                _statement_lines([row for row in transfers if row[4] == currency], balance),
            )
            for currency, balance, pending, debt in wallets
        ],
    )


def _lot_line(row: tuple[Any, ...]) -> LotLine:
    _, lot_no, campaign_id, amount, remaining, expires_at, order_id, cause, created_at, reissued_from = row
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


def _statement_lines(rows: list[tuple[Any, ...]], balance: int) -> list[StatementLine]:
    """Newest first, so the balance after each is told backwards from today's."""
    lines = []
    for row in rows:
        transfer_id, kind, debit, credit, _, amount, order_id, lot_no, cause, happened_at, booked_at, _, traced = row
        change = _change(debit, credit, "wallet:", amount)
        lines.append(
            StatementLine(
                transfer_id=transfer_id,
                kind=kind,
                amount=amount,
                wallet_change=change,
                pending_change=_change(debit, credit, "pending:", amount),
                debt_change=-_change(debit, credit, "debt:", amount),
                balance_after=balance,
                meaning=transfer_meaning(kind, order_id, lot_no, cause),
                order_id=order_id,
                lot_no=lot_no,
                cause=cause,
                happened_at=format_time(happened_at),
                booked_at=format_time(booked_at),
                trace_id=trace_id_of(traced),
            )
        )
        balance -= change
    return lines


def _change(debit: str, credit: str, kind: str, amount: int) -> int:
    """How a transfer changes the credit side of the customer's account of this kind."""
    return amount * (credit.startswith(kind) - debit.startswith(kind))


def transfer_meaning(kind: str, order_id: str | None, lot_no: int | None, cause: str) -> str:
    """What a transfer of a wallet means to the customer, in a few words."""
    return _MEANINGS[kind].format(order=order_id, lot=lot_no, why=_LESS_EARNED.get(cause, "it was refunded"))
