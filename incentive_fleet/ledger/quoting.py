"""A quote (rules 14): what a placing would get if it took effect next, read in one snapshot. It writes nothing and locks nothing.

A quote and then the same placing, nothing between, give equal decisions, for both go through incentives/placing.py.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from psycopg import Connection

from incentive_fleet.events.models import OrderPlaced, QuoteRequested
from incentive_fleet.events.notices import notice_id
from incentive_fleet.events.outcomes import outgoing
from incentive_fleet.events.quotes import QUOTED
from incentive_fleet.events.times import format_time
from incentive_fleet.incentives import outcomes
from incentive_fleet.incentives.booking import Book, Cause
from incentive_fleet.incentives.campaigns import Usage
from incentive_fleet.incentives.placing import normal_codes, place
from incentive_fleet.incentives.wallet import Wallet
from incentive_fleet.ledger.conditions import READ_CODES, read_pools, received, send
from incentive_fleet.ledger.locking import READ_LIVE_LOTS, READ_REVISION, add_lots, read_usage, send_usage
from incentive_fleet.ledger.needs import ask_for_placing
from incentive_fleet.ledger.session import Session
from incentive_fleet.ledger.snapshot import snapshot
from incentive_fleet.ledger.terms import read_terms

READ_WALLET: Final = """
    SELECT customer_id, currency, balance, debt, last_lot_no FROM wallets WHERE customer_id = %s AND currency = %s
"""


def quote(session: Session, request: QuoteRequested) -> dict[str, Any]:
    """The data of the reply. Idempotent; raises DatabaseUnavailable or DatabaseContention, and a retry helps."""
    placing = OrderPlaced.model_construct(
        order_id=request.quote_id,
        customer_id=request.customer_id,
        currency=request.currency,
        placed_at=request.at,
        lines=request.lines,
        coupons=request.coupons,
        credit_requested=request.credit_requested,
    )
    with snapshot(session.connection):
        as_of, wallet, usage = _read(session, placing)
    balance, debt = wallet.balance, wallet.debt
    decision = place(placing, session.terms.campaigns, Book(Cause("quote", request.at, None), wallet, usage, []))
    return {
        "quote_id": request.quote_id,
        "customer_id": request.customer_id,
        "currency": request.currency,
        "as_of": format_time(as_of),
    } | (outcomes.applied(decision, wallet) | {"wallet_balance": balance, "debt": debt})


def reply(data: dict[str, Any], traceparent: str | None = None) -> dict[str, Any]:
    """The reply as a CloudEvent. Its id says of which moment it is: the same request is answered anew each time."""
    id = notice_id(QUOTED, (data["quote_id"], data["as_of"]))
    return outgoing(QUOTED, id, data["as_of"], data["quote_id"], data, traceparent)


def _read(session: Session, placing: OrderPlaced) -> tuple[datetime, Wallet, Usage]:
    connection: Connection[Any] = session.connection
    row = connection.execute(f"SELECT now(), ({READ_REVISION})").fetchone()
    assert row is not None
    if session.terms.revision != row[1]:
        session.terms = read_terms(connection, row[1])
    campaigns = session.terms.campaigns
    pools = read_pools(connection, set(normal_codes(placing.coupons)) - campaigns.by_code.keys(), campaigns)
    asked = ask_for_placing(placing, campaigns, pools)
    key = (placing.customer_id, placing.currency)
    with connection.pipeline():
        found = connection.execute(READ_WALLET, key)
        lots = connection.execute(READ_LIVE_LOTS, [key[0], key[1]]) if placing.credit_requested else None
        counts, conditions = send_usage(connection, asked), send(connection, asked, codes=READ_CODES)
    usage = read_usage(counts)
    received(conditions, usage)
    wallet = Wallet(*(found.fetchone() or key))
    if lots is not None:
        add_lots({key: wallet}, lots.fetchall())
    return row[0], wallet, usage
