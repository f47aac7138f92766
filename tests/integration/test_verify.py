"""Verification: sound ledgers pass every check, and every check fails for what it is there for."""

from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Iterator
from contextlib import closing
from urllib.parse import urlsplit

import pytest

from incentive_fleet.embedded.postgres import Postgres
from incentive_fleet.ledger.blocks import NOTHING
from incentive_fleet.ledger.connection import connect
from incentive_fleet.ledger.nightly import _verify_in_part
from incentive_fleet.ledger.session import Session
from incentive_fleet.ledger.verify import VerifyReport, all_checks, verify
from tests.domain import delivered, placed, refunded
from tests.parts import fresh_database
from tests.small_world import TERMS, apply, corrupt, give, load, play, rows


@pytest.fixture(scope="module")
def played_template(postgres: Postgres, database_template: str) -> Iterator[str]:
    """The name of a database in which the small world was played."""
    with fresh_database(postgres, database_template) as url:
        play(url)
        yield urlsplit(url).path.lstrip("/")


@pytest.fixture
def played_url(postgres: Postgres, played_template: str) -> Iterator[str]:
    with fresh_database(postgres, played_template) as url:
        yield url


def _verify(url: str, sample: int = 10) -> VerifyReport:
    connection = connect(url)
    try:
        return verify(connection, sample)
    finally:
        connection.close()


def _failing(report: VerifyReport) -> set[str]:
    return {check.name for check in report.checks if check.faults}


def test_an_empty_ledger_is_sound(database_url: str) -> None:
    assert _verify(database_url).sound


def test_the_small_world_is_sound_and_holds_every_kind_of_transfer(played_url: str) -> None:
    report = _verify(played_url)
    assert [check for check in report.checks if check.faults] == []
    assert len(rows(played_url, "SELECT DISTINCT kind FROM transfers")) == 14
    assert report.transfers > 40
    json.dumps(dataclasses.asdict(report))


# (what was done to the ledger, the checks that must fail and no others). Three tables often tell one thing twice, so one
# lie must show in two places unless the liar was careful: the careful ones stand here where they are possible.
CORRUPTIONS: dict[str, tuple[tuple[str, ...], set[str]]] = {
    "two balances raised by one, so that debits still equal credits": (
        (
            "UPDATE balances SET balance = balance + 1 WHERE account = 'campaign:e'",
            "UPDATE balances SET balance = balance + 1 WHERE account = 'breakage'",
        ),
        {"balances"},
    ),
    "one balance raised": (
        ("UPDATE balances SET balance = balance + 1 WHERE account = 'breakage'",),
        {"balances", "debits-and-credits"},
    ),
    "a balance of zero removed": (
        ("DELETE FROM balances WHERE account = 'order:odd' AND balance = 0",),
        set(),  # no row is as good as a row of zero
    ),
    "a transfer removed": (
        ("DELETE FROM transfers WHERE kind = 'expiry'",),
        {"balances", "lots", "lot-expiries"},
    ),
    "a transfer's amount changed": (
        ("UPDATE transfers SET amount = amount + 1 WHERE kind = 'coupon' AND order_id = 'full'",),
        {"balances", "decisions-booked", "redemptions"},
    ),
    "a cancellation of what was not pending, balances in step": (
        (
            "ALTER TABLE wallets DROP CONSTRAINT never_negative",
            "INSERT INTO transfers (kind, debit_account, credit_account, currency, amount, customer_id, order_id, cause,"
            " happened_at) SELECT 'earn_cancel', 'pending:ann', 'campaign:e', 'EUR', 5, 'ann', 'full', fact, happened_at"
            " FROM facts WHERE order_id = 'full' AND fact = 'delivery'",
            "UPDATE wallets SET pending = pending - 5 WHERE customer_id = 'ann' AND currency = 'EUR'",
            "UPDATE balances SET balance = balance - 5 WHERE account = 'campaign:e'",
        ),
        {"never-negative", "reversals"},
    ),
    "a debt of a customer who holds credit, balances in step": (
        (
            "ALTER TABLE wallets DROP CONSTRAINT no_credit_beside_a_debt",
            "INSERT INTO transfers (kind, debit_account, credit_account, currency, amount, customer_id, order_id, cause,"
            " happened_at) SELECT 'clawback_debt', 'debt:ann', 'campaign:e', 'EUR', 5, 'ann', 'full', fact, happened_at"
            " FROM facts WHERE order_id = 'full' AND fact = 'delivery'",
            "UPDATE balances SET balance = balance - 5 WHERE account = 'campaign:e'",
            "UPDATE wallets SET debt = 5 WHERE customer_id = 'ann' AND currency = 'EUR'",
        ),
        {"no-wallet-beside-a-debt", "reversals"},
    ),
    "a wallet and a campaign raised": (
        (
            "UPDATE wallets SET balance = balance + 1 WHERE customer_id = 'ann' AND currency = 'BHD'",
            "UPDATE balances SET balance = balance + 1 WHERE account = 'campaign:dinar'",
        ),
        {"balances", "wallets-and-lots"},
    ),
    "a wallet that forgot its newest lot": (
        ("UPDATE wallets SET last_lot_no = last_lot_no - 1 WHERE customer_id = 'ann' AND currency = 'EUR'",),
        {"wallets-and-lots"},
    ),
    "credit moved from one lot to another": (
        (
            "UPDATE lots SET remaining = remaining - 1 WHERE customer_id = 'ann' AND currency = 'EUR' AND lot_no ="
            " (SELECT max(lot_no) FROM lots WHERE customer_id = 'ann' AND currency = 'EUR' AND live)",
            "UPDATE lots SET remaining = remaining + 1 WHERE customer_id = 'ann' AND currency = 'EUR' AND lot_no = 1",
        ),
        {"lots"},
    ),
    "a lot removed": (
        ("DELETE FROM lots WHERE customer_id = 'ann' AND currency = 'BHD'",),
        {"wallets-and-lots", "lots"},
    ),
    "a lot that began larger": (
        ("UPDATE lots SET amount = amount + 1 WHERE currency = 'BHD'",),
        {"lot-openings"},
    ),
    "an expiry that did not happen": (
        ("UPDATE lots SET expired = 1 WHERE currency = 'BHD'",),
        {"lot-expiries"},
    ),
    "a reissue that forgot its first lot": (
        ("UPDATE lots SET reissued_from = NULL WHERE reissued_from IS NOT NULL AND expired = 0",),
        {"lot-reissues"},
    ),
    "a transfer in another customer's name": (
        (
            "ALTER TABLE transfers DROP CONSTRAINT kind_fixes_direction",
            "UPDATE transfers SET customer_id = 'dan' WHERE kind = 'earn' AND order_id = 'full'",
        ),
        {"account-owners"},
    ),
    "a campaign in another currency": (
        ("UPDATE campaigns SET currency = 'USD' WHERE campaign_id = 'e'",),
        {"campaign-currencies"},
    ),
    "a transfer for a refund that never was": (
        ("UPDATE transfers SET cause = 'refund:none' WHERE kind = 'earn_cancel' AND cause <> 'final-basket'",),
        {"causes"},
    ),
    "a transfer that happened at another time than its fact": (
        ("UPDATE transfers SET happened_at = happened_at + interval '1 day' WHERE kind = 'earn'",),
        {"causes"},
    ),
    "a larger grant": (
        ("UPDATE grants SET amount = amount + 1 WHERE key = 'g-ann'",),
        {"grants"},
    ),
    "a grant taken back by less": (
        ("UPDATE grants SET reversed_minor = reversed_minor - 1 WHERE key = 'g-mistake'",),
        {"grants"},
    ),
    "a decision that applied more than it burned": (
        (
            """UPDATE decisions SET decision = replace(replace(decision::text,
            '"applied":900', '"applied":901'), '"shares":[600,300]', '"shares":[601,300]')::json
            WHERE order_id = 'spent' AND decision::text LIKE '%"applied":900,"shortfall":0,"shares":[600,300]%'""",
        ),
        {"order-accounts"},
    ),
    "a decision that burned another amount": (
        (
            """UPDATE decisions SET decision = replace(decision::text,
            '{"lot_no":1,"amount":900}', '{"lot_no":1,"amount":899}')::json
            WHERE order_id = 'spent' AND decision::text LIKE '%{"lot_no":1,"amount":900}%'""",
        ),
        {"decisions-booked"},
    ),
    "shares that do not sum up": (
        (
            "UPDATE decisions SET decision = replace(decision::text, '[600,300]', '[600,299]')::json"
            " WHERE order_id = 'spent' AND decision::text LIKE '%[600,300]%'",
        ),
        {"decisions-add-up"},
    ),
    "running totals that ask for more": (
        (
            "UPDATE orders SET totals = replace(totals::text, '[1000,0]', '[1400,0]')::json"
            " WHERE order_id = 'full' AND totals::text LIKE '%[1000,0]%'",
        ),
        {"reversals"},
    ),
    "running totals that were never kept": (
        ("UPDATE orders SET totals = NULL WHERE order_id = 'again'",),
        {"reversals", "outcomes"},
    ),
    "a use of a coupon counted twice": (
        ("UPDATE redemption_counts SET live = live + 1 WHERE campaign_id = 'k'",),
        {"redemption-counts"},
    ),
    "a redemption of another amount": (
        ("UPDATE redemptions SET discount = discount + 1 WHERE order_id = 'full'",),
        {"redemptions"},
    ),
    "a redemption released too early, count in step": (
        (
            "UPDATE redemptions SET released_at = now() WHERE order_id = 'full'",
            "UPDATE redemption_counts SET live = live - 1 WHERE campaign_id = 'k'",
        ),
        {"redemptions"},
    ),
    "a fact that nobody waits for": (
        ("DELETE FROM waiting WHERE order_id = 'never' AND fact = 'delivery'",),
        {"facts"},
    ),
    "a fact of a placed order that still waits": (
        ("INSERT INTO waiting (order_id, fact) VALUES ('full', 'delivery')",),
        {"facts"},
    ),
    "a fact without an outcome": (
        ("DELETE FROM outbox_unpublished", "DELETE FROM outbox WHERE order_id = 'full' AND sequence = 3"),
        {"facts", "outcomes", "publications"},
    ),
    "a mark that the application's role took away": (
        (
            "SET ROLE incentives_app",
            "DELETE FROM outbox_unpublished WHERE destination = 'sns' AND outbox_id ="
            " (SELECT min(outbox_id) FROM outbox)",
        ),
        {"publications"},
    ),
    "a publication thrown away": (
        (
            "INSERT INTO publications (destination, outcomes, outbox_ids) SELECT destination, count(*),"
            " range_agg(int8range(outbox_id, outbox_id, '[]')) FROM outbox_unpublished GROUP BY destination",
            "DELETE FROM outbox_unpublished",
            "DELETE FROM publications WHERE destination = 'sns'",
        ),
        {"publications"},
    ),
    "a publication that says more than it holds": (
        (
            "INSERT INTO publications (destination, outcomes, outbox_ids) VALUES ('sns', 3, '{[1,2]}')",
            "DELETE FROM outbox_unpublished WHERE destination = 'sns' AND outbox_id <= 2",
        ),
        {"publication-sizes"},
    ),
    "an excess that nobody noticed": (
        ("DELETE FROM anomalies WHERE reason = 'exceeds-gross'",),
        {"anomalies"},
    ),
    "an excess that never was": (
        ("INSERT INTO anomalies (order_id, reason, subject, claimed) VALUES ('full', 'exceeds-gross', 'b', 5000)",),
        {"anomalies"},
    ),
    "a resolution forgotten": (
        ("UPDATE anomalies SET resolved_at = now(), resolved_by = 'eve', resolution = 'known'",),  # no trigger keeps it
        {"anomaly-resolutions"},
    ),
    "an outcome of another fact": (
        ("UPDATE outbox SET fact = 'refund:none' WHERE order_id = 'full' AND sequence = 3",),
        {"facts"},
    ),
    "a fact removed": (
        ("DELETE FROM facts WHERE order_id = 'bare'",),
        {"facts", "causes"},
    ),
    "a fact whose content was edited": (
        (
            "UPDATE facts SET data = replace(data::text, 'EUR', 'USD')::json WHERE order_id = 'never' AND fact <> 'delivery'",
        ),
        {"digests"},
    ),
    "an outcome numbered twice": (
        ("UPDATE outbox SET sequence = 1 WHERE order_id = 'full' AND sequence = 2",),
        {"outcomes"},
    ),
    "a mark without an outcome": (
        ("INSERT INTO outbox_unpublished VALUES ('sns', 999999)",),
        {"unpublished-marks"},
    ),
    "a code that forgot its order": (
        ("UPDATE codes SET order_id = NULL WHERE code = 'POOL-1'",),
        {"codes"},
    ),
    "a final basket with more credit in it": (
        (
            "UPDATE final_baskets SET decision = replace(decision::text, '\"applied\":400', '\"applied\":401')::json"
            " WHERE order_id = 'picked'",
        ),
        {"final-baskets-booked", "order-accounts", "decisions-add-up"},
    ),
    "terms thrown away": (
        ("DELETE FROM campaign_versions WHERE campaign_id = 'k'",),
        {"terms"},
    ),
}


@pytest.mark.parametrize("what", CORRUPTIONS)
def test_a_lie_is_found_by_exactly_the_checks_that_can_tell(played_url: str, what: str) -> None:
    statements, expected = CORRUPTIONS[what]
    corrupt(played_url, *statements)
    report = _verify(played_url, sample=3)
    assert _failing(report) == expected
    assert report.sound is not bool(expected)
    for check in report.checks:
        assert len(check.first) == min(check.faults, 3)
    json.dumps(dataclasses.asdict(report))
    in_part = _verify_all_as_new(played_url)
    assert _failing(in_part) == expected
    # The part's check of balances compares sums as well, and these are rows of their own.
    faults, of_part = (
        {check.name: check.faults for check in one.checks if check.name != "balances"} for one in (report, in_part)
    )
    assert of_part == faults


def _verify_all_as_new(url: str) -> VerifyReport:
    """By the parts that a nightly run reads, as if all of the ledger were new: the same checks must tell the same."""
    with closing(connect(url)) as connection:
        return _verify_in_part(connection, NOTHING, 3, lambda done, steps: None, lambda: closing(connect(url)))


def test_a_vanished_outcome_is_named_with_its_destination(played_url: str) -> None:
    corrupt(played_url, "DELETE FROM outbox_unpublished WHERE destination = 'rabbitmq'")
    [check] = [check for check in _verify(played_url, sample=2).checks if check.faults]
    assert check.faults == len(rows(played_url, "SELECT FROM outbox"))
    assert {row["destination"] for row in check.first} == {"rabbitmq"}
    assert all(row["fact"] and row["outbox_id"] for row in check.first)


def test_a_shop_that_gives_up_a_broker_owes_it_nothing(played_url: str) -> None:
    corrupt(
        played_url,
        "DELETE FROM destinations WHERE destination = 'sns'",
        "DELETE FROM outbox_unpublished WHERE destination = 'sns'",
    )
    assert _verify(played_url).sound


def test_every_check_has_a_lie_that_it_finds() -> None:
    assert {name for _, expected in CORRUPTIONS.values() for name in expected} == {
        check.name for check in all_checks()
    }  # blocks: test_nightly.py


def test_the_first_faulty_rows_say_where(played_url: str) -> None:
    corrupt(played_url, "UPDATE balances SET balance = balance + 7 WHERE account = 'breakage'")
    by_name = {check.name: check for check in _verify(played_url).checks}
    [row] = by_name["balances"].first
    assert (row["account"], row["currency"], row["by_balances"] - row["by_transfers"]) == ("breakage", "EUR", 7)
    assert by_name["balances"].description.startswith("Every account's balance")


def test_a_live_fleet_raises_no_false_alarm(database_url: str) -> None:
    writer = Session(database_url)
    load(writer, *TERMS)
    give(writer, "g", 10**9)
    stop, applied = threading.Event(), threading.Semaphore(0)

    def write() -> None:
        number = 0
        while not stop.is_set() and number < 10_000:
            order = f"o{number}"
            apply(writer, placed(order, coupons=["K"], credit=7), delivered(order), refunded(order=order))
            applied.release()
            number += 1

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for _ in range(5):
            assert applied.acquire(timeout=30), "the writer is stuck"
            assert [check for check in _verify(database_url).checks if check.faults] == []
    finally:
        stop.set()
        thread.join()
        writer.close()
