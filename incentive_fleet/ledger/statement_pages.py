"""How wallets came to their balances, page by page: each transfer with what it means and the event behind it. Never writes.

A page begins below a transfer, not after a number of them, so that what is booked meanwhile moves no page. It reads inside
the caller's transaction; the statement of one customer (wallet_statement.py) stands on it too.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from psycopg import Connection

from incentive_fleet.events.times import format_time
from incentive_fleet.events.traceparent import trace_id_of

TRANSFERS_MAX: Final = 10_000  # shown of one wallet
NEWEST: Final = 2**63 - 1  # no transfer's number is beyond
Wallets = Iterable[tuple[str, str]]  # customer, currency

# Materialized, so that the planner takes the customer's index: walking all transfers backwards until enough of them are
# this customer's would be quick for a busy one and endless for a quiet one. A wallet's numbers rise in the order of its
# bookings, for whoever books has locked it. The event is looked up row by row, never joined. The limit cuts nothing off: it says
# that wallets are few, else one plan for all of them looks dear, and planning anew each time costs twice what reading does.
READ_TRANSFERS: Final = """
    WITH own AS MATERIALIZED (
        SELECT transfer_id, kind, debit_account, credit_account, currency, amount, order_id, lot_no, cause,
               happened_at, booked_at, customer_id
        FROM (SELECT * FROM unnest(%s::text[], %s::text[]) AS w (customer_id, currency) LIMIT %s) AS wanted
        JOIN transfers USING (customer_id, currency)
        WHERE kind NOT IN ('coupon', 'coupon_reversal')
    ), told AS (
        SELECT own.*, sum(CASE WHEN starts_with(credit_account, 'wallet:') THEN amount
                               WHEN starts_with(debit_account, 'wallet:') THEN -amount ELSE 0 END)
               OVER (PARTITION BY customer_id, currency ORDER BY transfer_id)::bigint AS balance_after
        FROM own
    ), numbered AS (
        SELECT told.*, row_number() OVER (PARTITION BY customer_id, currency ORDER BY transfer_id DESC) AS place
        FROM told WHERE transfer_id < %s
    )
    SELECT numbered.*, (SELECT ARRAY[f.source, f.event_id, f.traceparent] FROM facts f
                        WHERE f.order_id = numbered.order_id AND f.fact = numbered.cause)
    FROM numbered WHERE place <= %s ORDER BY customer_id, currency, place
"""

# What each kind of transfer means to the customer; {order} and {lot} are the transfer's.
_MEANINGS: Final = {
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
_LESS_EARNED: Final = {
    "final-basket": "less of it was picked",
    "cancelling": "it was cancelled",
    "delivery": "not all of it was delivered",
}


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
    source: str | None  # of the event behind it; None where a command was
    event_id: str | None
    trace_id: str | None  # of that event, where its sender told one


def statement_pages(
    connection: Connection[Any], wallets: Wallets, *, below: int = NEWEST, limit: int = 50
) -> dict[tuple[str, str], list[StatementLine]]:
    """Of each wallet the `limit` transfers next below that number, newest first; one statement, however many wallets.

    Raises ValueError for a limit outside 0 to 10,000.
    """
    if not 0 <= limit <= TRANSFERS_MAX:
        raise ValueError(f"limit is {limit}: must be 0 to {TRANSFERS_MAX}")
    wanted = list(dict.fromkeys(wallets))
    pages: dict[tuple[str, str], list[StatementLine]] = {key: [] for key in wanted}
    named = [customer_id for customer_id, _ in wanted], [currency for _, currency in wanted]
    for row in connection.execute(READ_TRANSFERS, (*named, len(wanted), below, limit)).fetchall():
        pages[(row[11], row[4])].append(_line(row))
    return pages


def _line(row: tuple[Any, ...]) -> StatementLine:
    transfer_id, kind, debit, credit, _, amount, order_id, lot_no, cause, happened_at, booked_at, _, after, _, event = (
        row
    )
    source, event_id, traceparent = event or (None, None, None)
    return StatementLine(
        transfer_id=transfer_id,
        kind=kind,
        amount=amount,
        wallet_change=_change(debit, credit, "wallet:", amount),
        pending_change=_change(debit, credit, "pending:", amount),
        debt_change=-_change(debit, credit, "debt:", amount),
        balance_after=after,
        meaning=transfer_meaning(kind, order_id, lot_no, cause),
        order_id=order_id,
        lot_no=lot_no,
        cause=cause,
        happened_at=format_time(happened_at),
        booked_at=format_time(booked_at),
        source=source,
        event_id=event_id,
        trace_id=trace_id_of(traceparent),
    )


def _change(debit: str, credit: str, kind: str, amount: int) -> int:
    """How a transfer changes the credit side of the customer's account of this kind."""
    return amount * (credit.startswith(kind) - debit.startswith(kind))


def transfer_meaning(kind: str, order_id: str | None, lot_no: int | None, cause: str) -> str:
    """What a transfer of a wallet means to the customer, in a few words."""
    return _MEANINGS[kind].format(order=order_id, lot=lot_no, why=_LESS_EARNED.get(cause, "it was refunded"))


def why(line: StatementLine, currency: str) -> str:
    """The transfer as a sentence: when, how much, what for, and what caused it. Amounts in minor units."""
    changes = [
        f"{'+' if change > 0 else '-'}{abs(change)} {currency} {what}"
        for what, change in (
            ("to spend", line.wallet_change),
            ("pending", line.pending_change),
            ("owed", line.debt_change),
        )
        if change
    ]
    return f"{line.happened_at}: {', '.join(changes)}: {line.meaning}. {_because(line)}"


def _because(line: StatementLine) -> str:
    if line.event_id is not None:
        return f"Because of event {line.event_id} from {line.source}."
    what, _, key = line.cause.partition(":")
    match what:
        case "grant":
            return f"Because of the grant {key}."
        case "grant-reversal":
            return f"Because the grant {key} was taken back."
        case "expiry":
            return "Because a run of expiry found it past its end."
        case _:
            return f"Because of {line.cause}."
