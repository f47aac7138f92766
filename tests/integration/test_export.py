"""The journal for hledger: the real hledger must accept it, strictly, and add it up to our balances."""

from __future__ import annotations

import csv
import io
import os
import subprocess
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from incentive_fleet.events.currencies import MINOR_DIGITS
from incentive_fleet.ledger.balances import read_balances
from incentive_fleet.ledger.connection import connect
from incentive_fleet.ledger.export import account_of, export_hledger, hledger_name, major_units
from incentive_fleet.ledger.session import Session
from tests.domain import back, placed, refunded, terms
from tests.small_world import ODD, apply, give, load, play

DEBIT_NORMAL = ("campaign:", "debt:")


@pytest.fixture
def journal(database_url: str, tmp_path: Path) -> Path:
    play(database_url)
    return _write(database_url, tmp_path / "incentives.journal")


def _write(url: str, path: Path) -> Path:
    connection = connect(url)
    try:
        with path.open("w", encoding="ascii") as file:
            file.writelines(export_hledger(connection))
    finally:
        connection.close()
    return path


def _hledger(journal: Path, *arguments: str) -> str:
    """Under the C locale: a journal must not depend on how the finance team's machine is set up."""
    done = subprocess.run(
        ["hledger", "-f", str(journal), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={"PATH": os.environ["PATH"], "LC_ALL": "C"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def _balances(journal: Path) -> dict[str, int]:
    """What hledger adds the journal up to, in our signs and minor units."""
    table = csv.DictReader(io.StringIO(_hledger(journal, "balance", "--flat", "--no-total", "-O", "csv")))
    balances = {}
    for row in table:
        account = account_of(row["account"])
        for amount in row["balance"].split(", "):
            number, currency = amount.split(" ")
            minor = Decimal(number).scaleb(MINOR_DIGITS[currency])
            assert minor == int(minor)
            balances[f"{account}|{currency}"] = int(minor) if account.startswith(DEBIT_NORMAL) else -int(minor)
    return dict(sorted(balances.items()))


@pytest.mark.parametrize("check", [["--strict"], ["ordereddates"], ["payees"], ["commodities"], ["accounts"]])
def test_hledger_accepts_the_journal(journal: Path, check: list[str]) -> None:
    _hledger(journal, "check", *check)


def test_hledger_adds_it_up_to_our_balances(database_url: str, journal: Path) -> None:
    connection = connect(database_url)
    ours = read_balances(connection)
    connection.close()
    assert _balances(journal) == ours
    assert f"wallet:{ODD}|JPY" in ours


def test_a_finance_person_reads_money_not_minor_units(journal: Path) -> None:
    assert _hledger(journal, "balance", "wallet:ann", "cur:BHD", "--no-total").split() == [
        "-1.005",
        "BHD",
        "wallet:ann",
    ]
    assert "-987 JPY" in _hledger(journal, "balance", "wallet", "cur:JPY", "--no-total")


def test_a_transfer_is_found_by_its_tags(journal: Path) -> None:
    printed = _hledger(journal, "print", "tag:order=full", "tag:kind=make_good")
    assert "make_good | order full" in printed
    assert "campaign:m" in printed
    assert "2.50 EUR" in printed
    assert "happened:2026-01-13T12:00:00Z" in printed


def test_an_order_outlives_its_currency(database_url: str, tmp_path: Path) -> None:
    """Placed in kunas, refunded and exported when ISO 4217 lists them no more; lire have no minor unit to point off."""
    session = Session(database_url)
    load(session, terms("coupon", "k", code="K", amount=150, currency="HRK"), terms("grant", "lire", currency="ITL"))
    apply(
        session,
        placed("old", coupons=["K"], currency="HRK"),
        refunded("r1", back(amount=500), order="old", currency="HRK"),
    )
    give(session, "g", 1_000, currency="ITL", campaign_id="lire")
    session.close()
    journal = _write(database_url, tmp_path / "old.journal")
    _hledger(journal, "check", "--strict")
    assert "-0.75 HRK" in _hledger(journal, "balance", "order:old", "--no-total")
    assert "-1000 ITL" in _hledger(journal, "balance", "wallet:ann", "--no-total")


def test_an_empty_ledger_is_an_empty_journal(database_url: str, tmp_path: Path) -> None:
    journal = _write(database_url, tmp_path / "empty.journal")
    _hledger(journal, "check", "--strict")
    assert _balances(journal) == {}


def test_a_reader_that_stops_early_leaves_the_connection_usable(database_url: str) -> None:
    play(database_url)
    connection = connect(database_url)
    pieces = export_hledger(connection)
    for _ in range(40):
        next(pieces)
    pieces.close()
    assert connection.execute("SELECT 1").fetchone() == (1,)
    connection.close()


@given(st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=200))
def test_every_account_name_comes_back_and_holds_nothing_that_hledger_reads(owner: str) -> None:
    name = hledger_name(f"wallet:{owner}")
    assert account_of(name) == f"wallet:{owner}"
    kind, colon, encoded = name.partition(":")
    assert (kind, colon) == ("wallet", ":")
    assert encoded
    assert all(part.isascii() and (part.isalnum() or part in "-._~%") for part in encoded)


@pytest.mark.parametrize(
    ("amount", "currency", "text"),
    [
        (0, "EUR", "0.00"),
        (5, "EUR", "0.05"),
        (-5, "EUR", "-0.05"),
        (-1234, "EUR", "-12.34"),
        (12, "JPY", "12"),
        (1, "BHD", "0.001"),
        (10_005, "CLF", "1.0005"),
        (10**18, "EUR", "10000000000000000.00"),
    ],
)
def test_minor_units_as_major_ones(amount: int, currency: str, text: str) -> None:
    assert major_units(amount, currency) == text
