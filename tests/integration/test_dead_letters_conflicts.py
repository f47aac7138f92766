"""When the second event was right: what the ledger holds, the difference in money, and each correction rehearsed, then booked."""

from __future__ import annotations

import json
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner, Result

from incentive_fleet.cli.commands.dlq import ACTS
from incentive_fleet.cli.commands.dlq_conflict import CORRECTIONS
from incentive_fleet.cli.root import cli
from incentive_fleet.dead_letters import audit, corrections
from incentive_fleet.events.codec import decode
from incentive_fleet.incentives.campaign_file import parse_campaigns
from incentive_fleet.ledger.batch import apply_events
from incentive_fleet.ledger.session import Session
from incentive_fleet.ledger.terms import load_campaigns
from tests.dead_letter_world import TERMS, LetterDatabase, arrival, cloud_event, order, refund
from tests.domain import terms
from tests.shop import balances, faults

TWO = [
    {"line_id": "1", "sku": "a", "quantity": 1, "unit_price": 1000},
    {"line_id": "2", "sku": "b", "quantity": 2, "unit_price": 500},
]


@pytest.fixture
def database(database_url: str) -> LetterDatabase:
    database = LetterDatabase(database_url)
    with database.connect() as connection:
        load_campaigns(connection, parse_campaigns(TERMS + terms("grant", "sorry")))
    return database


def conflict(database: LetterDatabase, first: list[bytes], second: bytes) -> int:
    """The second event's letter, once the first ones are applied."""
    with closing(Session(database.url)) as session:
        apply_events(session, [decode(body) for body in first])
    database.keep(arrival(second, name="second"), at=datetime.now(UTC))
    (letter,) = database.summaries()
    return letter.id


def dlq(database: LetterDatabase, *arguments: str) -> Result:
    environment = {"INCENTIVES_DATABASE_URL": database.url, "INCENTIVES_ACTOR": "ann"}
    return CliRunner().invoke(cli, ["dlq", *arguments], env=environment)


def report(database: LetterDatabase, number: int, *arguments: str, code: int = 0) -> Any:
    ran = dlq(database, "conflict", str(number), *arguments, "--format", "json")
    assert ran.exit_code == code, (ran.output, ran.exception)
    return json.loads(ran.stdout) if code == 0 else str(ran.exception)


def names(document: Any) -> dict[str, bool]:
    """Each correction, and whether it can be booked."""
    return {one["name"]: one["good"] for one in document["corrections"]}


def test_the_command_line_knows_all_corrections_and_acts() -> None:
    assert corrections.NAMES == CORRECTIONS
    assert audit.ACTS == ACTS


def test_a_smaller_basket_shows_what_it_is_about_and_every_way_out(database: LetterDatabase) -> None:
    number = conflict(database, [order(1, lines=TWO)], order(1, lines=TWO[:1]))
    before = balances(database.url)
    document = report(database, number)
    assert document["applied"]["fact"] == "placing"
    money = document["money"]
    assert money["holds"] == {"coupons": 100, "credit": 0, "earned": 190, "payable": 1900}
    assert money["would"] == {"coupons": 100, "credit": 0, "earned": 90, "payable": 900}
    assert money["difference"] == {"coupons": 0, "credit": 0, "earned": -100, "payable": -1000}
    assert names(document) == {"cancel-and-place": True, "refund-difference": True}
    (refunded,) = document["corrections"][1]["events"]
    assert refunded["data"]["lines"] == [{"line_id": "2", "amount": 1000}]
    assert {one["name"] for one in document["impossible"]} == {"grant-difference"}
    assert balances(database.url) == before
    text = dlq(database, "conflict", str(number)).stdout
    assert "payable: 1900 EUR stand, 900 if this event were right (-1000)" in text
    assert "clawback" not in text


def test_what_stands_is_told_of_the_basket_that_counts(database: LetterDatabase) -> None:
    final = {"order_id": "o-1", "finalized_at": "2026-01-11T12:00:00Z", "lines": TWO[:1]}
    first = [order(1, lines=TWO, estimated=True), cloud_event("f-1", "order-finalized.v1", final)]
    number = conflict(database, first, order(1, customer_id="somebody-else", estimated=True))
    assert report(database, number)["money"]["holds"] == {"coupons": 100, "credit": 0, "earned": 90, "payable": 900}


def test_a_final_basket_that_was_smaller_is_followed_by_a_refund(database: LetterDatabase) -> None:
    def finalized(lines: Any) -> bytes:
        data = {"order_id": "o-1", "finalized_at": "2026-01-11T12:00:00Z", "lines": lines}
        return cloud_event("f-1", "order-finalized.v1", data)

    number = conflict(database, [order(1, lines=TWO, estimated=True), finalized(TWO)], finalized(TWO[:1]))
    (correction,) = report(database, number)["corrections"]
    assert (correction["name"], correction["good"]) == ("refund-difference", True)
    assert correction["events"][0]["data"]["lines"] == [{"line_id": "2", "amount": 1000}]


def test_the_difference_is_refunded_as_rehearsed_and_the_letter_is_closed(database: LetterDatabase) -> None:
    number = conflict(database, [order(1, lines=TWO)], order(1, lines=TWO[:1]))
    rehearsed = report(database, number)["corrections"][1]["transfers"]
    done = report(database, number, "--book", "refund-difference", "--because", "INC-9", "--yes")
    assert (done["booked"], done["verdicts"]) == ("refund-difference", ["applied"])
    with psycopg.connect(database.url) as owner:
        booked = owner.execute(
            "SELECT kind, amount FROM transfers WHERE cause LIKE 'refund:%' ORDER BY transfer_id"
        ).fetchall()
    assert booked == [(one["kind"], one["amount"]) for one in rehearsed]
    assert database.letter(number).status == "discarded"
    act = database.acts(number)[-1]
    assert (act.act, act.actor, act.reason, act.after["correction"]) == (
        "corrected",
        "ann",
        "INC-9",
        "refund-difference",
    )
    again = dlq(database, "conflict", str(number), "--book", "cancel-and-place", "--because", "again", "--yes")
    assert (again.exit_code, str(again.exception).split(":")[0]) == (1, "not-open")
    assert faults(database.url) == {}


def test_another_customer_is_cancelled_and_placed_anew(database: LetterDatabase) -> None:
    number = conflict(database, [order(1)], order(1, customer_id="somebody-else"))
    document = report(database, number)
    assert {one["name"]: one["why"] for one in document["impossible"]}["refund-difference"] == (
        "customer_id differs: no refund says that"
    )
    done = report(
        *(
            database,
            number,
            "--order-id",
            "o-1-anew",
            "--book",
            "cancel-and-place",
            "--because",
            "changed by hand",
            "--yes",
        )
    )
    assert done["verdicts"] == ["applied", "applied"]
    after = balances(database.url)
    assert after.get("order:o-1|EUR", 0) == 0
    assert after["order:o-1-anew|EUR"] == 100
    assert after["pending:somebody-else|EUR"] == 90
    assert after.get("pending:c-1|EUR", 0) == 0
    assert faults(database.url) == {}


def test_a_correction_booked_twice_has_one_effect(database: LetterDatabase) -> None:
    """As after a crash between the ledger's commit and the letter's closing."""
    number = conflict(database, [order(1, lines=TWO)], order(1, lines=TWO[:1]))
    report(database, number, "--book", "refund-difference", "--because", "x", "--yes")
    transfers = database.count("transfers")
    database.restore(number)
    again = report(database, number, "--book", "refund-difference", "--because", "x", "--yes")
    assert again["verdicts"] == ["duplicate"]
    assert database.count("transfers") == transfers
    database.restore(number)
    told = report(database, number, "--book", "cancel-and-place", "--because", "x", "--yes", code=1)
    assert told.startswith("cannot-be-booked: cancel-and-place: conflict")


def test_a_larger_basket_can_be_made_good_by_a_grant(database: LetterDatabase) -> None:
    number = conflict(database, [order(1, lines=TWO[:1])], order(1, lines=TWO))
    assert names(report(database, number)) == {"cancel-and-place": True}
    document = report(database, number, "--campaign-id", "sorry")
    assert names(document) == {"cancel-and-place": True, "grant-difference": True}
    (transfer,) = document["corrections"][1]["transfers"]
    assert (transfer["kind"], transfer["amount"], transfer["credit_account"]) == ("grant", 100, "wallet:c-1")
    assert database.count("grants") == 0
    done = report(
        *(database, number, "--campaign-id", "sorry", "--book", "grant-difference", "--because", "fewer bags", "--yes")
    )
    assert done["verdicts"] == ["granted"]
    assert balances(database.url)["wallet:c-1|EUR"] == 100
    wrong = report(database, number, "--campaign-id", "nobody")
    assert names(wrong)["grant-difference"] is False


@pytest.mark.parametrize(
    ("first", "second", "lines"),
    [
        ([{"line_id": "2", "quantity": 1}], [{"line_id": "2", "quantity": 2}], [("2", 1)]),
        (
            [{"line_id": "2", "quantity": 1}],
            [{"line_id": "2", "quantity": 1}, {"line_id": "1", "quantity": 1}],
            [("1", 1)],
        ),
    ],
)
def test_a_refund_that_claims_more_is_followed_by_the_rest(
    database: LetterDatabase, first: Any, second: Any, lines: Any
) -> None:
    number = conflict(database, [order(1, lines=TWO), refund_of(first)], refund_of(second))
    document = report(database, number)
    (correction,) = document["corrections"]
    told = correction["events"][0]["data"]["lines"]
    assert [(line["line_id"], line["quantity"]) for line in told] == lines
    report(database, number, "--book", "refund-difference", "--because", "x", "--yes")
    whole = LetterDatabase(database.url)
    assert whole.letter(number).status == "discarded"
    assert faults(database.url) == {}


def refund_of(lines: Any) -> bytes:
    data = {
        "refund_id": "r-1",
        "order_id": "o-1",
        "currency": "EUR",
        "refunded_at": "2026-01-12T12:00:00Z",
        "lines": lines,
    }
    return cloud_event("r-1-1", "order-refunded.v1", data)


def test_a_refund_that_claims_less_is_never_taken_back(database: LetterDatabase) -> None:
    number = conflict(database, [order(1, lines=TWO), refund(1)], refund_of([{"line_id": "2", "quantity": 1}]))
    document = report(database, number)
    assert document["corrections"] == []
    assert document["impossible"][0]["why"].startswith("the whole order was refunded")


def test_units_that_were_not_delivered_after_all_are_refunded_as_such(database: LetterDatabase) -> None:
    number = conflict(*(database, [order(1, lines=TWO), delivery([])], delivery([{"line_id": "2", "quantity": 2}])))
    (correction,) = report(database, number)["corrections"]
    assert correction["events"][0]["data"]["lines"] == [{"line_id": "2", "quantity": 2, "reason": "undelivered"}]
    assert correction["good"]


def delivery(undelivered: Any) -> bytes:
    data = {"delivery_id": "d", "order_id": "o-1", "delivered_at": "2026-01-11T12:00:00Z", "undelivered": undelivered}
    return cloud_event("d-1", "delivery-completed.v1", data)


def test_an_event_whose_id_alone_is_taken_is_booked_under_another(database: LetterDatabase) -> None:
    taken = order(2).replace(b'"id": "e-2"', b'"id": "e-1"')
    number = conflict(database, [order(1)], taken)
    document = report(database, number)
    assert names(document) == {"new-event-id": True}
    report(database, number, "--book", "new-event-id", "--because", "the shop counted twice", "--yes")
    assert balances(database.url)["order:o-2|EUR"] == 100


def test_what_is_no_conflict_or_has_no_reason_is_refused(database: LetterDatabase) -> None:
    number = conflict(database, [order(1)], order(2))
    assert "no-conflict" in report(database, number, code=1)
    ran = dlq(database, "conflict", "77")
    assert ran.exit_code == 1
    second = conflict_again(database)
    unasked = dlq(database, "conflict", str(second), "--book", "cancel-and-place", "--because", "x")
    assert (unasked.exit_code, unasked.stdout) == (2, "")
    assert "reason-missing" in report(database, second, "--book", "cancel-and-place", "--yes", code=1)
    assert database.letter(second).status == "open"


def conflict_again(database: LetterDatabase) -> int:
    database.keep(arrival(order(1, customer_id="x"), name="third"), at=datetime.now(UTC))
    return max(letter.id for letter in database.summaries())
