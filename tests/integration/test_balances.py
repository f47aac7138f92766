"""The balances of all accounts, now and as of a moment."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from incentive_fleet.ledger.balances import read_balances
from incentive_fleet.ledger.connection import connect
from incentive_fleet.ledger.session import Session
from tests.domain import NOON, day, delivered, placed, refunded
from tests.small_world import TERMS, apply, give, load, play, rows


def test_only_accounts_that_hold_something_sorted_and_positive_on_their_normal_side(database_url: str) -> None:
    session = Session(database_url)
    load(session, *TERMS)
    give(session, "g", 500)
    apply(session, placed("o", coupons=["K"], credit=200), refunded(order="o"), placed("p", credit=500))
    balances = read_balances(session.connection)
    assert balances == {
        "campaign:e|EUR": 50,
        "campaign:gift|EUR": 500,
        "order:p|EUR": 500,
        "pending:ann|EUR": 50,
    }
    assert list(balances) == sorted(balances)
    session.close()


def test_a_months_end_by_the_time_it_happened_leaves_that_very_moment_out(database_url: str) -> None:
    session = Session(database_url)
    load(session, *TERMS)
    give(session, "g", 500, now=NOON)
    apply(session, placed("o", at=day(1)), delivered("o", at=day(2)))
    connection = session.connection
    assert read_balances(connection, as_of=NOON, by="happened") == {}
    assert read_balances(connection, as_of=NOON + timedelta(microseconds=1), by="happened") == {
        "campaign:gift|EUR": 500,
        "wallet:ann|EUR": 500,
    }
    assert read_balances(connection, as_of=day(2), by="happened")["pending:ann|EUR"] == 100
    later = read_balances(connection, as_of=day(2.1), by="happened")
    assert later == read_balances(connection)
    session.close()


def test_all_that_was_booked_is_todays_balance_and_nothing_was_booked_before(database_url: str) -> None:
    play(database_url)
    connection = connect(database_url)
    now = read_balances(connection)
    assert read_balances(connection, as_of=datetime(2190, 1, 1, tzinfo=UTC)) == now
    [(first,)] = rows(database_url, "SELECT min(booked_at) FROM transfers")
    assert read_balances(connection, as_of=first) == {}
    with pytest.raises(ValueError, match="needs an offset"):
        read_balances(connection, as_of=datetime(2026, 1, 1))  # noqa: DTZ001
    connection.close()
