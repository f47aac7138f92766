"""A small ledger with everything in it: every kind of transfer, odd names, three currencies, facts that wait, an anomaly.

Played through the product's own functions on a real database.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import psycopg

from incentive_fleet.events.models import EventData
from incentive_fleet.incentives.campaign_file import parse_campaigns
from incentive_fleet.ledger.batch import Verdict, apply_events
from incentive_fleet.ledger.codes import PoolRow, load_codes
from incentive_fleet.ledger.expiry import expire_lots
from incentive_fleet.ledger.grants import Grant, Granted, grant, reverse_grant
from incentive_fleet.ledger.session import Session
from incentive_fleet.ledger.terms import load_campaigns
from tests.domain import (
    NOON,
    back,
    cancelled,
    day,
    delivered,
    estimated,
    event,
    finalized,
    line,
    placed,
    refunded,
    terms,
)

ODD = '  Zoë; (k:u)  [2026-01-01] {%41} "=" @ *!, über|\\ 顾客 '  # whatever a customer id may hold, blanks at both ends
TERMS = (
    terms("coupon", "k", code="K", amount=100, total=50, per_customer=9),
    terms("earn", "e", rate_bps=1_000, valid_days=60),
    terms("make_good", "m", amount=250, valid_days=30),
    terms("grant", "gift"),
    terms("grant", "yen", currency="JPY"),
    terms("grant", "dinar", currency="BHD"),
    terms("coupon", "pool", codes="pool", rate_bps=1_000, budget=100_000),
)


def load(session: Session, *tables: str) -> None:
    load_campaigns(session.connection, parse_campaigns("".join(tables)))


def give(session: Session, key: str, amount: int, *, now: datetime = NOON - timedelta(days=1), **changed: Any) -> None:
    """Grant `amount` to ann, in EUR, of the campaign gift and for ever, but for what is `changed`."""
    results = grant(session, [replace(Grant(key, "ann", "EUR", amount, "gift", None), **changed)], now)
    assert results == [Granted.NEW], results


def apply(session: Session, *facts: EventData) -> list[Verdict]:
    return apply_events(session, [event(data) for data in facts]).verdicts


def play(url: str) -> None:
    """The whole history; the connection is closed at the end, so that the database may serve as a template."""
    session = Session(url)
    try:
        load(session, *TERMS)
        load_codes(
            session.connection, [PoolRow(1, "pool", "POOL-1", None, None), PoolRow(2, "pool", "POOL-2", "fay", None)]
        )
        _grants(session)
        for batch in _batches():
            apply(session, *batch)
        give(session, "g-late", 130, customer_id="bob", now=day(12))  # settles bob's debt first
        reverse_grant(session, "g-mistake", "given twice", day(13))
        expire_lots(session, day(30), timedelta(hours=24))
        apply(session, refunded("r-after", back(), order="expired", at=day(31)))
    finally:
        session.close()


def _grants(session: Session) -> None:
    give(session, "g-ann", 1_000, expires_at=day(20))
    give(session, "g-odd", 12_345, customer_id=ODD)
    give(session, "g-yen", 987, customer_id=ODD, currency="JPY", campaign_id="yen")
    give(session, "g-dinar", 1_005, customer_id="ann", currency="BHD", campaign_id="dinar")
    give(session, "g-mistake", 77, customer_id="eve")
    give(session, "g-fay", 600, customer_id="fay")
    give(session, "g-soon", 400, customer_id="cat", expires_at=day(25))


def _batches() -> Iterable[Sequence[EventData]]:
    # Everything at once, then half of it back: coupon, credit, earning, vesting, a late delivery, reversals, a clawback.
    yield (
        placed("full", line("a", 4, 500), line("b", 1, 999), coupons=["K", "nope"], credit=301),
        delivered("full", at=day(3), promised=day(2), missing={"a": 1}),
    )
    yield (refunded("r1", back("a", quantity=2), order="full", at=day(4)),)
    # Credit that stays spent, and an order with nothing on it.
    yield (
        placed("spent", line("a", 1, 800), line("b", 1, 400), customer=ODD, credit=900),
        placed("bare", customer="dan"),
    )
    # Credit of a lot that ends too soon is reissued; the coupon is released.
    yield placed("again", coupons=["K"], credit=200, at=day(5)), refunded("r1", order="again", at=day(6))
    # Earned, spent, refunded: a debt.
    yield (
        placed("b1", line(unit_price=2_000), customer="bob"),
        delivered("b1"),
        placed("b2", customer="bob", credit=200),
    )
    yield (refunded("r1", order="b1", at=day(10)),)
    # A refund and a delivery before their order; a refund and a delivery whose order never comes.
    yield refunded("r1", back(), order="early"), delivered("early"), delivered("never"), refunded("r1", order="never")
    yield (placed("early", line("a", 3, 333), customer="bob", coupons=["K"]),)
    # More back than was ordered, and a line that it did not have.
    yield (
        placed("odd", line("a"), customer="dan", coupons=["K"]),
        refunded("r1", back("a", quantity=2), back("z"), order="odd"),
    )
    # An estimated order of which less was picked and one article more; another that was cancelled before its basket came.
    picked = estimated(
        placed("picked", line("a", 2, 500), line("b", 1, 300), customer="fay", coupons=["POOL-1"], credit=400)
    )
    yield picked, delivered("picked", at=day(2))
    yield (finalized("picked", line("a", 1, 480), line("c", 1, 90, kind="fee")),)
    yield estimated(placed("dropped", customer="fay", coupons=["POOL-2"], credit=100)), cancelled("dropped", at=day(3))
    yield (finalized("dropped", line(unit_price=900), at=day(4)),)
    # Credit that expires after some of it was spent and came back.
    yield placed("expired", customer="cat", credit=150), refunded("r1", back(amount=400), order="expired")


def corrupt(url: str, *statements: str) -> None:
    """As a superuser who has switched every trigger off."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET session_replication_role = replica")
        for statement in statements:
            assert connection.execute(statement.encode()).rowcount != 0, f"nothing was changed by {statement}"


def rows(url: str, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        return connection.execute(query.encode()).fetchall()
