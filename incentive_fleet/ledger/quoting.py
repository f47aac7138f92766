"""Quotes (rules 14): what placings would get if each took effect next, read in one snapshot. It writes nothing and locks nothing.

A quote and then the same placing, nothing between, give equal decisions, for both go through incentives/placing.py. A batch of
requests costs two round trips and a fixed number of statements, whatever its size; each request is decided for itself.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

import psycopg
from psycopg import Connection
from pydantic_core import to_json

from incentive_fleet.events.models import Line, OrderPlaced, QuoteRequested
from incentive_fleet.events.notices import notice_id
from incentive_fleet.events.outcomes import OUTCOME_BYTES_MAX, outgoing
from incentive_fleet.events.quotes import QUOTED
from incentive_fleet.events.times import format_time
from incentive_fleet.incentives import outcomes
from incentive_fleet.incentives.booking import Book, Cause
from incentive_fleet.incentives.campaigns import Usage
from incentive_fleet.incentives.placing import normal_codes, place
from incentive_fleet.incentives.wallet import Wallet
from incentive_fleet.ledger.columns import packed, packed_rows, unpacked
from incentive_fleet.ledger.conditions import READ_CODES, READ_POOLS, Conditions, received, send
from incentive_fleet.ledger.connection import mapped_errors
from incentive_fleet.ledger.locking import READ_LIVE_LOTS, READ_REVISION, add_lots, read_usage, send_usage
from incentive_fleet.ledger.needs import ask_for_placings
from incentive_fleet.ledger.pooler import take_settings
from incentive_fleet.ledger.session import Session
from incentive_fleet.ledger.terms import read_terms
from incentive_fleet.ledger.working_set import WalletKey

REQUESTS_MAX: Final = 1_000  # of one batch
# By hand rather than by snapshot(), so that it goes out with the first reads.
BEGIN: Final = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
END: Final = "COMMIT"
READ_MOMENT: Final = f"SELECT now(), ({READ_REVISION})"
TEXTS: Final = unpacked()
READ_WALLETS: Final = f"""
    SELECT w.* FROM unnest({TEXTS}, {TEXTS}) AS k (customer_id, currency), LATERAL (
        SELECT customer_id, currency, balance, debt, last_lot_no FROM wallets
        WHERE customer_id = k.customer_id AND currency = k.currency OFFSET 0
    ) AS w
"""


@dataclass(frozen=True, slots=True)
class _Moment:
    """What was read of one moment, for all requests of a batch. Nobody changes it."""

    as_of: datetime
    wallets: dict[WalletKey, Wallet]
    usage: Usage


def quote(session: Session, request: QuoteRequested) -> dict[str, Any]:
    """The data of one reply; see `quotes`."""
    return quotes(session, [request])[0]


def quotes(session: Session, requests: Sequence[QuoteRequested]) -> list[dict[str, Any]]:
    """The data of each reply, in the order given. Idempotent; belongs to the session's thread.

    Raises DatabaseUnavailable, DatabaseContention or DatabaseUnfit, after which a retry helps, StatementTimedOut, and
    ValueError for none or more than REQUESTS_MAX.
    """
    if not 1 <= len(requests) <= REQUESTS_MAX:
        raise ValueError(f"a batch has 1 to {REQUESTS_MAX} requests, not {len(requests)}")
    placings = [_placing(request) for request in requests]
    connection = session.connection
    with mapped_errors():
        try:
            moment = _read(session, connection, placings)
        except BaseException:
            _roll_back(session, connection)
            raise
    return [_decided(session, placing, moment) for placing in placings]


def probe(session: Session) -> None:
    """Return when a made-up request is answered now, to tell a fault of the system from one of a request. Idempotent.

    Raises what stands in the way, as `quotes` does.
    """
    line = Line(line_id="1", sku="probe", quantity=1, unit_price=100)
    about: dict[str, Any] = {"quote_id": "probe", "customer_id": f"probe-{uuid.uuid4().hex}", "currency": "EUR"}
    at = datetime(2026, 1, 1, tzinfo=UTC)
    quotes(session, [QuoteRequested(**about, at=at, lines=(line,), coupons=("PROBE",), credit_requested=1)])


def reply(data: dict[str, Any], traceparent: str | None = None) -> dict[str, Any]:
    """The reply as a CloudEvent. Its id says of which moment it is: the same request is answered anew each time.

    It goes without its lines (null) where it would exceed what an outcome may have (rules 10).
    """
    id = notice_id(QUOTED, (data["quote_id"], data["as_of"]))
    document = outgoing(QUOTED, id, data["as_of"], data["quote_id"], data, traceparent)
    too_large = len(to_json(document)) > OUTCOME_BYTES_MAX
    return document | {"data": data | {"lines": None}} if too_large else document


def _placing(request: QuoteRequested) -> OrderPlaced:
    return OrderPlaced.model_construct(
        order_id=request.quote_id,
        customer_id=request.customer_id,
        currency=request.currency,
        placed_at=request.at,
        lines=request.lines,
        coupons=request.coupons,
        credit_requested=request.credit_requested,
    )


def _decided(session: Session, placing: OrderPlaced, moment: _Moment) -> dict[str, Any]:
    """Decided on working copies of its own, for others of the batch are asked for as if they came next as well."""
    known = moment.wallets.get((placing.customer_id, placing.currency))
    wallet = _own_wallet(known) if known else Wallet(placing.customer_id, placing.currency)
    balance, debt = wallet.balance, wallet.debt
    usage = replace(moment.usage, spent=dict(moment.usage.spent))  # all that a placing changes of it
    book = Book(Cause("quote", placing.placed_at, None), wallet, usage, [])
    decision = place(placing, session.terms.campaigns, book)
    return {
        "quote_id": placing.order_id,
        "customer_id": placing.customer_id,
        "currency": placing.currency,
        "as_of": format_time(moment.as_of),
    } | (outcomes.applied(decision, wallet) | {"wallet_balance": balance, "debt": debt})


def _own_wallet(wallet: Wallet) -> Wallet:
    lots = {number: replace(lot) for number, lot in wallet.lots.items()}
    return Wallet(wallet.customer_id, wallet.currency, wallet.balance, wallet.debt, wallet.last_lot_no, lots)


def _read(session: Session, connection: Connection[Any], placings: Sequence[OrderPlaced]) -> _Moment:
    codes = sorted({code for placing in placings for code in normal_codes(placing.coupons)})
    keys = sorted({(placing.customer_id, placing.currency) for placing in placings})
    spending = sorted({(placing.customer_id, placing.currency) for placing in placings if placing.credit_requested})
    with connection.pipeline():
        connection.execute(BEGIN)
        take_settings(connection)
        moment = connection.execute(READ_MOMENT)
        wallet_rows = connection.execute(READ_WALLETS, packed_rows(keys))
        lots = connection.execute(READ_LIVE_LOTS, packed_rows(spending)) if spending else None
        pooled = connection.execute(READ_POOLS, (packed(codes),)) if codes else None
    row = moment.fetchone()
    assert row is not None
    if session.terms.revision != row[1]:
        session.terms = read_terms(connection, row[1])
    by_id = session.terms.campaigns.by_id
    pools = {code: by_id[campaign] for code, campaign in (pooled.fetchall() if pooled else ()) if campaign in by_id}
    usage = _read_usage(connection, ask_for_placings(placings, session.terms.campaigns, pools))
    wallets = {(found[0], found[1]): Wallet(*found) for found in wallet_rows.fetchall()}
    if lots is not None:
        add_lots(wallets, lots.fetchall())
    return _Moment(row[0], wallets, usage)


def _read_usage(connection: Connection[Any], asked: Conditions) -> Usage:
    """Ends the transaction with it."""
    with connection.pipeline():
        counts, conditions = send_usage(connection, asked), send(connection, asked, codes=READ_CODES)
        connection.execute(END)
    usage = read_usage(counts)
    received(conditions, usage)
    return usage


def _roll_back(session: Session, connection: Connection[Any]) -> None:
    """End the failed transaction; a connection that cannot even do that is closed, and the next use opens another."""
    try:
        connection.rollback()
    except psycopg.Error:
        session.close()
