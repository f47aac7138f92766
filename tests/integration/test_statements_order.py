"""An order's history: every fact, decision, refusal and transfer, the answer to "why is this balance what it is"."""

from __future__ import annotations

import dataclasses
import json
import re

import pytest

from incentive_fleet.ledger.order_history import OrderHistory, order_history
from incentive_fleet.ledger.session import Session
from tests.command import incentives
from tests.domain import (
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
    text,
)
from tests.small_world import TERMS, apply, give, load, play, rows


@pytest.fixture
def session(session: Session) -> Session:
    load(session, *TERMS)
    return session


def _history(session: Session, order: str) -> OrderHistory:
    history = order_history(session.connection, order)
    assert history is not None
    return history


def test_an_order_that_never_was_has_none(session: Session) -> None:
    assert order_history(session.connection, "o") is None


def test_what_waits_is_shown_as_waiting(session: Session) -> None:
    refund = refunded("r1", back(), order="o")
    apply(session, refund)
    history = _history(session, "o")
    [fact] = history.facts
    assert (fact["fact"], fact["source"], fact["event_id"]) == ("refund:r1", "/shop", "o/r1")
    assert fact["digest"] == event(refund).digest.hex()
    assert fact["happened_at"] == text(day(2))
    assert fact["waiting_since"] == fact["recorded_at"]
    assert (history.decision, history.progress, history.customer_id, history.transfers) == (None, None, None, [])


def test_a_whole_history_by_hand(session: Session) -> None:
    give(session, "g", 301)
    placing = placed("o", line("a", 4, 500), line("b", 1, 999), coupons=["K", "nope"], credit=400)
    apply(session, placing)
    load(session, terms("coupon", "k", code="K", amount=1))  # later terms change nothing of it
    apply(session, refunded("r1", back("a", quantity=2), back("z"), order="o"))
    history = _history(session, "o")
    assert (history.customer_id, history.currency) == ("ann", "EUR")
    assert [fact["fact"] for fact in history.facts] == ["placing", "refund:r1"]
    assert all(fact["waiting_since"] is None for fact in history.facts)
    assert history.facts[0]["data"]["coupons"] == ["K", "nope"]
    decision = history.decision
    assert decision is not None
    assert decision["coupons"] == [{"code": "K", "campaign_id": "k", "version": 1, "discount": 100, "shares": [67, 33]}]
    assert decision["credit"] == {
        "requested": 400,
        "applied": 301,
        "shortfall": 99,
        "shares": [201, 100],
        "burned": [{"lot_no": 1, "amount": 301}],
    }
    assert decision["refusals"] == [
        {
            "code": "NOPE",
            "campaign_id": None,
            "version": None,
            "reason": "unknown-coupon",
            "because": "there is no such code",
        }
    ]
    assert [(kept["campaign_id"], kept["version"], kept["terms"].get("amount")) for kept in history.terms] == [
        ("e", 1, None),
        ("k", 1, 100),
    ]
    assert history.progress is not None
    assert history.progress["lines"][0]["reversed_value"] == 1_000
    assert history.progress["reversed"] == {
        "coupons": [{"campaign_id": "k", "amount": 34}],
        "credit": 101,
        "earned": [{"campaign_id": "e", "amount": 87}],
    }
    moved = [(t["kind"], t["amount"], t["debit_account"], t["credit_account"], t["cause"]) for t in history.transfers]
    assert moved == [
        ("coupon", 100, "campaign:k", "order:o", "placing"),
        ("credit", 301, "wallet:ann", "order:o", "placing"),
        ("earn", 260, "campaign:e", "pending:ann", "placing"),
        ("coupon_reversal", 34, "order:o", "campaign:k", "refund:r1"),
        ("credit_return", 101, "order:o", "wallet:ann", "refund:r1"),
        ("earn_cancel", 87, "pending:ann", "campaign:e", "refund:r1"),
    ]
    assert history.standing == 100 + 301 - 34 - 101
    assert [(used["campaign_id"], used["discount"], used["released_at"]) for used in history.redemptions] == [
        ("k", 100, None)
    ]
    assert [(odd.reason, odd.subject, odd.resolved_at) for odd in history.anomalies] == [("unknown-line", "z", None)]
    assert [(o["sequence"], o["type"], o["fact"], o["unpublished"]) for o in history.outcomes] == [
        (1, "incentives-applied.v1", "placing", ["rabbitmq", "sns"]),
        (2, "incentives-reversed.v1", "refund:r1", ["rabbitmq", "sns"]),
    ]


def test_an_outcome_tells_where_it_is_still_to_be_published(session: Session) -> None:
    apply(session, placed("o"))
    session.connection.execute("DELETE FROM outbox_unpublished WHERE destination = 'sns'")
    assert [outcome["unpublished"] for outcome in _history(session, "o").outcomes] == [["rabbitmq"]]


def test_a_released_redemption_and_a_vesting_and_its_lot_are_shown(session: Session) -> None:
    apply(session, placed("o", coupons=["K"]), delivered("o"), refunded("r1", order="o"))
    history = _history(session, "o")
    assert [used["released_at"] for used in history.redemptions] == [text(day(2))]
    assert history.progress is not None
    assert history.progress["vested"] == [{"campaign_id": "e", "lot_no": 1, "reversed_before": 0, "clawed_back": 90}]
    assert [(lot["lot_no"], lot["campaign_id"], lot["amount"], lot["remaining"]) for lot in history.lots] == [
        (1, "e", 90, 0)
    ]


def test_every_order_of_the_small_world_explains_its_account(database_url: str) -> None:
    play(database_url)
    session = Session(database_url)
    orders = [row[0] for row in rows(database_url, "SELECT order_id FROM orders")]
    assert len(orders) > 8
    for order in orders:
        plain = dataclasses.asdict(_history(session, order))
        assert json.loads(json.dumps(plain)) == plain
        account = f"order:{order}"
        moved = sum(
            t["amount"] * ((t["credit_account"] == account) - (t["debit_account"] == account))
            for t in plain["transfers"]
        )
        assert plain["standing"] == moved
    session.close()


def test_a_final_basket_stands_beside_the_placing_with_what_moved_each_coupon(
    session: Session, database_url: str
) -> None:
    load(
        session,
        terms("coupon", "half", code="HALF", rate_bps=5_000, categories=["tea"], stacking="stackable"),
        terms("coupon", "poor", code="POOR", rate_bps=1_000, budget=100, stacking="stackable"),
        terms("coupon", "flat", code="FLAT", amount=10, stacking="stackable"),
    )
    give(session, "g", 700)
    tea, jam, bread = line("a", 2, 100, "tea"), line("b", 1, 800, "jam"), line("c", 1, 500)
    apply(session, estimated(placed("o", tea, jam, coupons=["HALF", "POOR", "FLAT"], credit=700)))
    apply(session, finalized("o", line("a", 1, 90, "tea"), bread, line("d", 1, 900)))
    final = _history(session, "o").final_basket
    assert final is not None
    assert not final["all_reversed"]
    worth = {row["incentive"]: (row["placed"], row["picked"], row["because"]) for row in final["worth"]}
    assert worth == {
        "HALF": (100, 45, "the lines that it is for are worth less"),
        "POOR": (90, 90, "the campaign's budget bears no more than before"),
        "FLAT": (10, 10, None),
        "e": (10, 65, "the lines that it is for are worth more"),
        "credit": (700, 700, None),
    }
    shown = incentives("order", "o", env={"INCENTIVES_DATABASE_URL": database_url}).out
    assert re.search(r"^HALF +100 +45 +the lines that it is for are worth less$", shown, re.MULTILINE), shown
    assert re.search(r"^d +900$", shown, re.MULTILINE), shown


def test_a_minimum_that_is_asked_again_and_an_order_cancelled_before_say_why_nothing_is_left(session: Session) -> None:
    strict = terms("coupon", "strict", code="STRICT", amount=50, min_subtotal=900, recheck_minimum=True)
    load(session, strict)
    apply(session, estimated(placed("o", coupons=["STRICT"])), finalized("o", line("a", 1, 899)))
    apply(session, estimated(placed("p")), cancelled("p"), finalized("p", line("a", 1, 2_000)))
    short, gone = _history(session, "o").final_basket, _history(session, "p").final_basket
    assert short is not None
    assert gone is not None
    assert short["worth"][0]["because"] == "no line that it is for was picked, or a minimum is missed"
    assert gone["all_reversed"]
