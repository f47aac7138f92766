"""A customer's statement: what is there, in which lots, and how it came to that."""

from __future__ import annotations

import dataclasses
import json

import psycopg
import pytest

from incentive_fleet.ledger.session import Session
from incentive_fleet.ledger.statement_pages import READ_TRANSFERS, statement_pages, why
from incentive_fleet.ledger.wallet_statement import READ_LOTS, wallet_statement
from tests.domain import day, delivered, line, placed, refunded, text
from tests.small_world import ODD, TERMS, apply, give, load, play, rows


@pytest.fixture
def session(session: Session) -> Session:
    load(session, *TERMS)
    return session


def test_a_statement_explains_the_balance_newest_first(session: Session) -> None:
    give(session, "g", 500, expires_at=day(40))
    apply(session, placed("o", line(quantity=2), credit=300, at=day(1)), delivered("o", at=day(2)))
    apply(session, refunded(order="o", at=day(3)))
    [wallet] = wallet_statement(session.connection, "ann").wallets
    assert (wallet.currency, wallet.balance, wallet.pending, wallet.debt) == ("EUR", 500, 0, 0)
    told = [(t.kind, t.wallet_change, t.pending_change, t.balance_after, t.meaning) for t in wallet.transfers]
    assert told == [
        ("clawback", -170, 0, 500, "earned on order o, which was refunded: taken back from lot 2"),
        ("credit_return", 300, 0, 670, "credit of order o given back, to lot 1"),
        ("vest", 170, -170, 370, "earned on order o, delivered now, as lot 2"),
        ("earn", 0, 170, 200, "earned on order o, to be had once it is delivered"),
        ("credit", -300, 0, 200, "spent on order o, from lot 1"),
        ("grant", 500, 0, 500, "credit granted, as lot 1"),
    ]
    assert [t.happened_at for t in wallet.transfers] == [text(day(n)) for n in (3, 3, 2, 1, 1, -1)]
    [lot] = wallet.lots
    assert (lot.lot_no, lot.campaign_id, lot.remaining, lot.expires_at) == (1, "gift", 500, text(day(40)))
    [_, all_lots] = [
        wallet_statement(session.connection, "ann", all_lots=every).wallets[0].lots for every in (False, True)
    ]
    assert [(lot.lot_no, lot.remaining, lot.order_id) for lot in all_lots] == [(1, 500, None), (2, 0, "o")]


def test_debt_and_its_settlement_are_told(session: Session) -> None:
    apply(session, placed("o", line(unit_price=3_000)), delivered("o"), placed("p", credit=200), refunded(order="o"))
    give(session, "g", 120)
    [wallet] = wallet_statement(session.connection, "ann").wallets
    assert (wallet.balance, wallet.debt, wallet.pending) == (0, 80, 80)
    settled, granted, owed = wallet.transfers[:3]
    assert (settled.kind, settled.wallet_change, settled.debt_change, settled.balance_after) == (
        "debt_settlement",
        -120,
        -120,
        0,
    )
    assert (granted.kind, granted.wallet_change, granted.balance_after) == ("grant", 120, 120)
    assert (owed.kind, owed.wallet_change, owed.debt_change) == ("clawback_debt", 0, 200)


def test_lots_come_in_the_order_in_which_they_burn(session: Session) -> None:
    for number, until in enumerate((None, day(9), day(5), day(5))):
        give(session, f"g{number}", 10, expires_at=until)
    [wallet] = wallet_statement(session.connection, "ann").wallets
    assert [lot.lot_no for lot in wallet.lots] == [3, 4, 2, 1]


def test_the_limit_cuts_the_past_and_not_the_balance(session: Session) -> None:
    for number in range(7):
        give(session, f"g{number}", 10)
    [wallet] = wallet_statement(session.connection, "ann", limit=3).wallets
    assert [(line.amount, line.balance_after) for line in wallet.transfers] == [(10, 70), (10, 60), (10, 50)]
    assert wallet_statement(session.connection, "ann", limit=0).wallets[0].transfers == []
    for limit in (-1, 10_001):
        with pytest.raises(ValueError, match=str(limit)):
            wallet_statement(session.connection, "ann", limit=limit)


def test_pages_meet_whatever_is_booked_between_them(session: Session) -> None:
    for number in range(7):
        give(session, f"g{number}", 10)
    wallet, below, seen = ("ann", "EUR"), 2**63 - 1, []
    while lines := statement_pages(session.connection, [wallet, ("nobody", "EUR")], below=below, limit=3)[wallet]:
        seen += [line.balance_after for line in lines]
        below = lines[-1].transfer_id
        give(session, f"later-{below}", 1)
    assert seen == [70, 60, 50, 40, 30, 20, 10]


def test_each_transfer_says_why_and_names_its_event(session: Session) -> None:
    give(session, "g", 500)
    apply(session, placed("o", credit=300, at=day(1)))
    lines = statement_pages(session.connection, [("ann", "EUR")])[("ann", "EUR")]
    assert [why(line, "EUR") for line in lines] == [
        f"{text(day(1))}: +70 EUR pending: earned on order o, to be had once it is delivered. "
        "Because of event o/OrderPlaced from /shop.",
        f"{text(day(1))}: -300 EUR to spend: spent on order o, from lot 1. Because of event o/OrderPlaced from /shop.",
        f"{text(day(-1))}: +500 EUR to spend: credit granted, as lot 1. Because of the grant g.",
    ]


def test_an_unknown_customer_has_no_wallets(session: Session) -> None:
    assert wallet_statement(session.connection, "nobody").wallets == []


def test_every_statement_of_the_small_world_adds_up(database_url: str) -> None:
    play(database_url)
    session = Session(database_url)
    customers = [row[0] for row in rows(database_url, "SELECT DISTINCT customer_id FROM wallets")]
    assert ODD in customers
    for customer in customers:
        statement = wallet_statement(session.connection, customer, limit=1_000, all_lots=True)
        assert json.loads(json.dumps(dataclasses.asdict(statement))) == dataclasses.asdict(statement)
        for wallet in statement.wallets:
            assert wallet.balance == sum(lot.remaining for lot in wallet.lots)
            assert wallet.balance == sum(line.wallet_change for line in wallet.transfers)
            assert wallet.pending == sum(line.pending_change for line in wallet.transfers)
            assert wallet.debt == sum(line.debt_change for line in wallet.transfers)
    session.close()


MANY = """
    INSERT INTO transfers (kind, debit_account, credit_account, currency, amount, customer_id, order_id, lot_no, cause,
                           happened_at)
    SELECT 'credit', 'wallet:c' || n % 5000, 'order:o' || n, 'EUR', 1, 'c' || n % 5000, 'o' || n, 1, 'placing', now()
    FROM generate_series(1, 200000) AS n
"""


@pytest.mark.parametrize("planner", ["the fleet's session", "defaults"])
def test_a_statement_is_looked_up_by_index_however_large_the_ledger(database_url: str, planner: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as owner:
        owner.execute("SET session_replication_role = replica")
        owner.execute(MANY)
        owner.execute("ANALYZE transfers")
        session = Session(database_url)
        connection = session.connection if planner != "defaults" else owner
        asked = (["c42"], ["EUR"], 1, 2**63 - 1, 50)
        plan = "\n".join(row[0] for row in connection.execute(f"EXPLAIN {READ_TRANSFERS}".encode(), asked))
        assert "transfers_customer_order" in plan
        assert "Seq Scan" not in plan
        assert "transfers_pkey" not in plan
        lots = "\n".join(row[0] for row in connection.execute(f"EXPLAIN {READ_LOTS}".encode(), (["c42"], False)))
        assert "Index" in lots or planner == "defaults", "an empty table may be read as a whole"
        session.close()


def test_a_statement_is_planned_a_few_times_and_then_no_more(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as owner:
        owner.execute("SET session_replication_role = replica")
        owner.execute(MANY)
        owner.execute("ANALYZE transfers")
        owner.prepare_threshold = 0
        for number in range(20):
            statement_pages(owner, [(f"c{number}", "EUR")], limit=10)
        plans = "SELECT custom_plans, generic_plans FROM pg_prepared_statements WHERE strpos(statement, %s) > 0"
        assert owner.execute(plans, ("balance_after",)).fetchall() == [(5, 15)]
