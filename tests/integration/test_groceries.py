"""Codes, audiences, holds, grants by event, final baskets that never come and quotes, on a real ledger."""

from __future__ import annotations

import json
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from incentive_fleet.errors import Refused
from incentive_fleet.events.codec import decode_quote
from incentive_fleet.events.models import OrderPlaced
from incentive_fleet.events.notices import validate_notice
from incentive_fleet.events.quotes import validate_quoted
from incentive_fleet.incentives.campaign_file import CampaignFileError
from incentive_fleet.ledger.audiences import add_members, remove_members
from incentive_fleet.ledger.codes import (
    CodesRefused,
    PoolRow,
    export_codes,
    generate_codes,
    load_codes,
    revoke_codes,
    show_code,
)
from incentive_fleet.ledger.expiry import expire_lots
from incentive_fleet.ledger.finalizing import finalize_as_placed
from incentive_fleet.ledger.grants import reverse_grant
from incentive_fleet.ledger.holds import hold, release
from incentive_fleet.ledger.quoting import quote, reply
from incentive_fleet.ledger.reminders import remind
from incentive_fleet.ledger.session import Session
from incentive_fleet.ledger.verify import verify
from incentive_fleet.ledger.waiting import list_waiting
from tests.command import incentives
from tests.domain import NOON, asked, back, day, delivered, estimated, finalized, line, placed, refunded, terms
from tests.small_world import apply, give, load

POOL = terms("coupon", "pool", codes="pool", amount=100, stacking="stackable", per_customer=9)


def row(code: str, line_no: int = 2, campaign: str = "pool") -> PoolRow:
    return PoolRow(line_no, campaign, code, None, None)


def discounts(session: Session) -> dict[str, int]:
    """By order, what its placing was given by coupons."""
    rows = session.connection.execute("SELECT order_id, body FROM outbox WHERE fact = 'placing'").fetchall()
    return {order: sum(one["discount"] for one in json.loads(body)["data"]["coupons"]) for order, body in rows}


def notices(session: Session) -> list[tuple[str, int]]:
    rows = session.connection.execute("SELECT type, body FROM outbox WHERE order_id = '' ORDER BY outbox_id").fetchall()
    return [(type_, validate_notice(body.encode()).amount) for type_, body in rows]


def sound(session: Session) -> bool:
    return verify(session.connection).sound


def test_codes_are_loaded_all_or_nothing_and_each_wrong_line_is_named(session: Session) -> None:
    load(session, POOL, terms("coupon", "word", code="WORD", amount=5), terms("grant", "gift"))
    assert load_codes(session.connection, [row("A1"), row("A2", 3), row("A1", 4)]) == (2, 1)
    assert load_codes(session.connection, [row("A1"), row("A2", 3)]) == (0, 2)
    wrong = [
        row("NEW", 2),
        row("WORD", 3),
        PoolRow(4, "pool", "A1", "ann", None),
        row("B1", 5, "gift"),
        row("B1", 6, "none"),
        row("NEW2", 7),
        PoolRow(8, "pool", "NEW2", None, NOON),
    ]
    with pytest.raises(CodesRefused) as refused:
        load_codes(session.connection, wrong)
    assert [problem.partition(":")[0] for problem in refused.value.problems] == [
        f"line {number}" for number in (3, 4, 5, 6, 8)
    ]
    assert show_code(session.connection, "new") is None
    with pytest.raises(CampaignFileError, match="'A1' is in the pool of campaign 'pool'"):
        load(session, terms("coupon", "word", code="a1", amount=5))
    with pytest.raises(CampaignFileError, match="way of codes cannot change"):
        load(session, terms("coupon", "pool", code="P", amount=100))


def test_a_batch_is_resumed_and_has_its_count_and_no_other(session: Session) -> None:
    load(session, POOL)
    assert generate_codes(session.connection, "pool", "spring", 300) == 300
    assert generate_codes(session.connection, "pool", "spring", 300) == 0
    codes = list(export_codes(session.connection, "pool", "spring"))
    assert len(set(codes)) == 300
    assert all(len(code) >= 10 and code == code.upper() for code in codes)
    for arguments, reason in ((("pool", "spring", 301), "other-count"), (("none", "spring", 1), "not-a-pool")):
        with pytest.raises(Refused) as refused:
            generate_codes(session.connection, *arguments)
        assert refused.value.reason == reason


def test_a_revoked_code_gives_nothing_more_and_what_stands_stays(session: Session) -> None:
    load(session, POOL)
    load_codes(session.connection, [row("R1"), row("R2", 3)])
    apply(session, placed("before", coupons=["R1"]))
    assert revoke_codes(session.connection, [(2, "R1"), (3, "R2")], "leaked") == (2, 0)
    assert revoke_codes(session.connection, [(2, "R1")], "again") == (0, 1)
    apply(session, placed("after", coupons=["R2"]))
    assert discounts(session) == {"before": 100, "after": 0}
    with pytest.raises(CodesRefused, match="line 2: code is NONE: no pool has it"):
        revoke_codes(session.connection, [(2, "NONE"), (3, "R2")], "leaked")


def test_what_is_loaded_or_held_when_the_placing_takes_effect_decides(session: Session) -> None:
    load(
        session,
        terms("coupon", "vips", code="VIPS", amount=50, audience="vip", stacking="stackable"),
        terms("coupon", "others", code="OTHERS", amount=30, not_audience="vip", stacking="stackable"),
        terms("grant", "gift"),
    )
    give(session, "g", 500)
    both = ["VIPS", "OTHERS"]
    apply(session, placed("o1", coupons=both, credit=100))
    assert (add_members(session.connection, [("vip", "ann")]), add_members(session.connection, [("vip", "ann")])) == (
        1,
        0,
    )
    assert (hold(session.connection, "ann", "dispute"), hold(session.connection, "ann", "dispute")) == (True, False)
    apply(session, placed("o2", coupons=both, credit=100))
    assert (release(session.connection, "ann", "settled"), release(session.connection, "ann", "x")) == (True, False)
    assert (
        remove_members(session.connection, [("vip", "ann")]),
        remove_members(session.connection, [("vip", "ann")]),
    ) == (1, 0)
    apply(session, placed("o3", coupons=both, credit=100))
    assert discounts(session) == {"o1": 30, "o2": 50, "o3": 30}
    applied = session.connection.execute(
        "SELECT body::json -> 'data' -> 'credit' ->> 'applied' FROM outbox WHERE fact = 'placing' ORDER BY outbox_id"
    ).fetchall()
    assert applied == [("100",), ("0",), ("100",)]


def test_a_grant_that_comes_alone_is_a_batch_of_its_own(session: Session) -> None:
    """The one fact without an order: its row's only text of that column is empty."""
    load(session, terms("grant", "gift"))
    assert [verdict.value for verdict in apply(session, asked("k1", 300))] == ["applied"]
    assert notices(session) == [("credit-granted.v1", 300)]
    assert sound(session)


def test_a_grant_is_one_grant_whichever_way_it_comes_and_each_is_told(session: Session) -> None:
    load(session, terms("grant", "gift", budget=1_000), terms("grant", "other"))
    verdicts = apply(session, asked("k1", 300), asked("k1", 300), asked("k1", 301), asked("k2", 701), asked("k2", 700))
    assert [verdict.value for verdict in verdicts] == [
        *("applied", "duplicate", "conflict", "grant-refused:budget-exhausted", "applied")
    ]
    refused = [asked("k5", 2_000), asked("k5", 2, customer="bob"), asked("k5", 2, customer="cat")]
    assert {verdict.value for verdict in apply(session, *refused)} == {"grant-refused:budget-exhausted"}
    give(session, "k3", 50, campaign_id="other", expires_at=day(3))
    assert [verdict.value for verdict in apply(session, asked("k3", 50, campaign="other"))] == ["conflict"]
    assert [verdict.value for verdict in apply(session, asked("k4", 1, campaign="none"))] == [
        "grant-refused:unknown-campaign"
    ]
    assert remind(session.connection, NOON, 7) == 1
    assert remind(session.connection, NOON, 7) == 0
    assert remind(session.connection, NOON, 8) == 1
    expire_lots(session, day(9), timedelta(0))
    reverse_grant(session, "k1", "typed twice", day(9))
    reverse_grant(session, "k3", "expired meanwhile", day(9))
    assert notices(session) == [
        *(("credit-granted.v1", 300), ("credit-granted.v1", 700), ("credit-granted.v1", 50)),
        *(("credit-expiring.v1", 50), ("credit-expiring.v1", 50)),
        *(("credit-expired.v1", 50), ("credit-withdrawn.v1", 300)),
    ]
    assert sound(session)


def test_an_order_whose_final_basket_never_comes_is_finalized_as_placed(session: Session) -> None:
    load(session, terms("earn", "points", rate_bps=1_000))
    apply(session, estimated(placed("o1", line("a", 2))), delivered("o1"), refunded("r1", back("a"), order="o1"))
    apply(session, placed("plain"), delivered("unplaced"))
    waits = {(one.order_id, one.fact): one.waits_for for one in list_waiting(session.connection, now=datetime.now(UTC))}
    assert waits == {
        ("o1", "delivery"): "final basket",
        ("o1", "refund:r1"): "final basket",
        ("unplaced", "delivery"): "placing",
    }
    finalize_as_placed(session, "o1", "the picker's device was lost", day(1))
    assert [one.order_id for one in list_waiting(session.connection, now=datetime.now(UTC))] == ["unplaced"]
    for order, reason in (("o1", "already-finalized"), ("plain", "not-estimated"), ("none", "unknown-order")):
        with pytest.raises(Refused) as refused:
            finalize_as_placed(session, order, "again", day(2))
        assert refused.value.reason == reason
    assert [verdict.value for verdict in apply(session, finalized("o1", line("a", 1)))] == ["conflict"]
    assert sound(session)


def test_terms_of_the_placing_are_found_again_by_a_process_that_never_knew_them(
    session: Session, database_url: str
) -> None:
    load(
        session,
        terms("coupon", "k", code="K", rate_bps=1_000),
        "\n[credit]\nline_kinds = ['goods']\n",
        terms("grant", "gift"),
    )
    give(session, "g", 500)
    apply(session, estimated(placed("o1", line("a"), line("b", kind="fee"), coupons=["K"], credit=500)))
    load(session, terms("coupon", "k", code="K", amount=1), "\n[credit]\nline_kinds = ['fee']\n")
    with closing(Session(database_url)) as other:
        apply(other, finalized("o1", line("a", 1, 300), line("b", 1, 900, kind="fee")))
    [body] = session.connection.execute("SELECT body FROM outbox WHERE fact = 'final-basket'").fetchall()
    data = json.loads(body[0])["data"]
    assert (data["coupons"][0]["after"], data["credit"]) == (30, {"before": 500, "after": 270})
    env = {"INCENTIVES_DATABASE_URL": database_url}
    shown = incentives("order", "o1", env=env)
    told = [row.split() for row in shown.out.splitlines()]
    worth = [row[:3] for row in told[told.index(["worth"]) :] if row[:1] in (["K"], ["credit"])]
    assert worth == [["K", "100", "30"], ["credit", "500", "270"]]
    assert (
        incentives("order", "o1", "--format", "json", env=env).document["final_basket"]["coupons"][0]["discount"] == 30
    )
    assert sound(session)


def test_a_quote_and_then_the_same_placing_are_decided_alike_and_the_quote_leaves_nothing(session: Session) -> None:
    load(session, POOL, terms("coupon", "first", auto=True, rate_bps=500, first_orders=1), terms("grant", "gift"))
    load_codes(session.connection, [row("Q1")])
    give(session, "g", 70)
    lines = [line("a", 2, 450), line("bag", 1, 25, kind="deposit")]
    request = {
        "quote_id": "q1",
        "customer_id": "ann",
        "currency": "EUR",
        "at": NOON.isoformat(),
        "lines": lines,
        "coupons": ["q1", "NOPE"],
        "credit_requested": 100,
    }
    envelope = {"specversion": "1.0", "id": "q", "source": "/checkout", "type": "incentives-quote-requested.v1"}
    body = json.dumps(envelope | {"subject": "q1", "time": NOON.isoformat(), "data": request}).encode()
    counted = "SELECT (SELECT count(*) FROM outbox), (SELECT count(*) FROM orders), (SELECT count(*) FROM wallets)"
    before = session.connection.execute(counted).fetchone()
    quoted = quote(session, decode_quote(body)[0])
    assert session.connection.execute(counted).fetchone() == before
    assert validate_quoted(json.dumps(reply(quoted)).encode()).quote_id == "q1"
    placing = OrderPlaced.model_validate_json(
        json.dumps(
            {name: request[name] for name in ("customer_id", "currency", "lines", "coupons", "credit_requested")}
            | {"order_id": "o1", "placed_at": NOON.isoformat()}
        )
    )
    apply(session, placing)
    [row_] = session.connection.execute("SELECT body FROM outbox WHERE fact = 'placing'").fetchall()
    decided = json.loads(row_[0])["data"]
    assert {name: decided[name] for name in ("coupons", "credit", "earned", "lines")} == {
        name: quoted[name] for name in ("coupons", "credit", "earned", "lines")
    }
    assert (quoted["wallet_balance"], decided["wallet_balance"]) == (70, 0)


def test_the_commands_name_what_is_wrong_with_a_file_and_load_nothing(database_url: str, tmp_path: Path) -> None:
    env = {"INCENTIVES_DATABASE_URL": database_url}
    (tmp_path / "terms.toml").write_text(POOL)
    assert incentives("campaigns", "load", tmp_path / "terms.toml", env=env).code == 0
    for text, named in (
        ("campaign_id\npool\n", "lacks the columns code"),
        ("campaign_id,code,expires_at\npool,A,tomorrow\n", "line 2: expires_at is 'tomorrow'"),
        ("campaign_id,code\npool,\n", "line 2: code is ''"),
        ("campaign_id,code\npool,A\npool\n", "line 3: the row does not have 2 columns"),
        ("campaign_id,code\npool,A\nnone,B\n", "line 3: campaign_id is none"),
    ):
        (tmp_path / "codes.csv").write_text(text)
        ran = incentives("codes", "load", tmp_path / "codes.csv", env=env)
        assert (ran.code, named in ran.err) == (1, True), ran.err
    assert incentives("codes", "show", "A", env=env).code == 1
    generated = incentives("codes", "generate", "pool", "--batch", "b", "--count", "3", "--format", "json", env=env)
    assert generated.document["added"] == 3
    exported = incentives("codes", "export", "pool", "--batch", "b", env=env).out.splitlines()
    assert len(exported) == 3
