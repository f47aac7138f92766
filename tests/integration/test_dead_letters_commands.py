"""`incentives dlq` as operators and scripts use it: filters, JSON shapes, exit codes, the question before many, $EDITOR."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from incentive_fleet.dead_letters import documents, editing
from incentive_fleet.dead_letters.causes import cause_of
from incentive_fleet.dead_letters.letter import search_fields_of
from incentive_fleet.errors import Refused
from tests.command import Ran, incentives
from tests.dead_letter_world import NOON, LetterDatabase, arrival, order, refund

BAD = order(1, currency="XXX")
REASONED = {
    "fleet-reason": "unknown-currency",
    "fleet-detail": "data.currency is 'XXX': an ISO 4217 code is needed",
}


@pytest.fixture
def database(database_url: str) -> LetterDatabase:
    return LetterDatabase.loaded(database_url)


def dlq(database: LetterDatabase, *arguments: str, **more: str) -> Ran:
    environment = {"INCENTIVES_DATABASE_URL": database.url, "INCENTIVES_ACTOR": "night-shift", **more}
    return incentives("dlq", *arguments, env=environment)


def stock(database: LetterDatabase) -> None:
    """1: an order in XXX; 2: a refund that conflicts, five days old; 3: bytes; 4: another order in XXX, elsewhere."""
    now = datetime.now(UTC)
    database.keep(arrival(BAD, name="1", headers=REASONED), at=now)
    database.keep(arrival(refund(9), name="2", queue="refunds"), at=now - timedelta(days=5))
    database.keep(
        arrival(b"\xff\x00 ESC \x1b[31m", name="3", headers={"fleet-reason": "not-utf8", "fleet-detail": "byte 0"}),
        at=now,
    )
    detail = REASONED["fleet-detail"].replace("XXX", "YYY")
    database.keep(arrival(order(4, currency="YYY"), name="4", headers={**REASONED, "fleet-detail": detail}), at=now)


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ([], [1, 2, 3, 4]),
        (["--reason", "unknown-currency"], [1, 4]),
        (["--type", "order-refunded.v1"], [2]),
        (["--order", "o-9"], [2]),
        (["--customer", "c-4"], [4]),
        (["--queue", "refunds"], [2]),
        (["--queue", "refunds-dlq"], [2]),
        (["--older-than", "3d"], [2]),
        (["--newer-than", "3d"], [1, 3, 4]),
        (["--text", "xxx"], [1]),
        (["--text", "esc"], [3]),
        (["--text", "taken"], [2]),
        (["--text", 'c-4"', "--reason", "unknown-currency"], [4]),
        (["--status", "discarded"], []),
        (["--text", "100%"], []),
    ],
)
def test_filters(database: LetterDatabase, filters: list[str], found: list[int]) -> None:
    stock(database)
    document = dlq(database, "list", *filters, "--format", "json").document
    assert sorted(letter["id"] for letter in document["dead_letters"]) == found
    assert document["total"] == len(found)


@pytest.mark.parametrize(
    ("option", "value", "named"),
    [
        ("--reason", "nonsense", {"unknown-currency", "delivery-limit", "not-utf8"}),
        ("--queue", "nonsense", {"incentives.order-placed", "incentives-order-placed-dlq", "refunds"}),
        ("--type", "order-placed.v9", {"order-placed.v1", "delivery-completed.v1"}),
        ("--status", "nonsense", {"discarded"}),
    ],
)
@pytest.mark.parametrize("command", [["list"], ["discard", "--because", "x"]])
def test_a_filter_that_names_nothing_known_says_what_there_is(
    database: LetterDatabase, command: list[str], option: str, value: str, named: set[str]
) -> None:
    stock(database)
    ran = dlq(database, *command, "--reason-code" if option == "--reason" else option, value)
    assert (ran.code, ran.out) == (2, "")
    assert repr(value) in ran.err
    assert named <= set(re.split(r"[\s',.]*\s[\s',]*|'", ran.err))


def test_a_reason_that_only_a_letter_has_is_known(database: LetterDatabase) -> None:
    database.keep(arrival(BAD, name="1", headers={"fleet-reason": "reason-of-a-later-release"}), at=datetime.now(UTC))
    found = dlq(database, "list", "--reason", "reason-of-a-later-release", "--format", "json").document
    assert found["total"] == 1
    assert dlq(database, "list", "--reason", "gross-too-large", "--format", "json").document["total"] == 0


def test_a_refund_is_found_by_its_order_s_customer(database: LetterDatabase) -> None:
    from incentive_fleet.events.codec import decode
    from incentive_fleet.ledger.batch import apply_events
    from incentive_fleet.ledger.session import Session

    session = Session(database.url)
    apply_events(session, [decode(order(9))])
    session.close()
    stock(database)
    assert [letter.id for letter in database.letters(customer="c-9")] == [2]


def test_groups_count_what_is_alike_and_forget_values(database: LetterDatabase) -> None:
    stock(database)
    document = dlq(database, "list", "--group", "--format", "json").document
    first = document["groups"][0]
    assert (first["count"], first["reason"], first["event_type"], first["example"]) == (
        2,
        "unknown-currency",
        "order-placed.v1",
        1,
    )
    assert first["cause"] == "data.currency is '…': an ISO 4217 code is needed"
    found = dlq(database, "list", "--cause", first["cause"], "--format", "json").document
    assert found["total"] == 2


def test_list_on_paper_holds_no_control_characters(database: LetterDatabase) -> None:
    stock(database)
    for ran in (
        dlq(database, "list"),
        dlq(database, "show", "3"),
        dlq(database, "history"),
        dlq(database, "list", "--group"),
    ):
        assert ran.code == 0, ran.err
        assert "\x1b" not in ran.out
    assert "ff 00 20 45 53 43" in dlq(database, "show", "3").out


def test_show_has_the_whole_letter_and_its_effect(database: LetterDatabase) -> None:
    stock(database)
    document = dlq(database, "show", "2", "--effect", "--format", "json").document
    assert document["body"] == {"encoding": "utf-8", "text": refund(9).decode()}
    assert document["effect"]["sentence"] == "0 transfers: would wait for its order o-9"
    assert [act["act"] for act in document["history"]] == ["collected"]
    assert document["headers"]["fleet-reason"] == "conflict"
    binary = dlq(database, "show", "3", "--format", "json").document
    assert bytes.fromhex(binary["body"]["text"]) == b"\xff\x00 ESC \x1b[31m"
    assert "would wait for its order" in dlq(database, "show", "2", "--effect").out
    missing = dlq(database, "show", "77")
    assert (missing.code, missing.out) == (1, "")
    assert "there is no dead letter 77" in missing.err


def test_edit_shows_a_diff_saves_what_is_valid_and_undoes(database: LetterDatabase) -> None:
    stock(database)
    wrong = dlq(database, "edit", "1", "--set", "data.currency=GBQ")
    assert wrong.code == 1
    assert "unknown-currency: data.currency is 'GBQ'" in wrong.err
    right = dlq(database, "edit", "1", "--set", "data.currency=EUR", "--reason", "typo", "--format", "json").document
    assert (right["changed"], right["edited"]) == (True, True)
    assert '-    "currency": "XXX",' in right["diff"]
    assert '+    "currency": "EUR",' in right["diff"]
    act = dlq(database, "history", "1", "--format", "json").document["acts"][-1]
    assert (act["act"], act["actor"], act["reason"]) == ("edited", "night-shift", "typo")
    undone = dlq(database, "edit", "1", "--original", "--format", "json").document
    assert (undone["changed"], undone["edited"]) == (True, False)
    assert database.letter(1).current_body == BAD


def test_edit_in_an_editor(database: LetterDatabase, tmp_path: Path) -> None:
    stock(database)
    editor = tmp_path / "editor"
    editor.write_text("#!/bin/sh\nsed -i 's/XXX/EUR/' \"$1\"\n")
    editor.chmod(0o700)
    ran = dlq(database, "edit", "1", EDITOR=str(editor), VISUAL=str(editor))
    assert ran.code == 0, ran.err
    assert '+    "currency": "EUR",' in ran.out
    assert database.letter(1).edited_body is not None
    again = dlq(database, "edit", "1", EDITOR="true", VISUAL="true")
    assert (again.code, again.out.strip()) == (0, "Nothing changed.")


def test_an_editor_that_is_no_command_or_saves_no_text_is_told_in_a_sentence(
    database: LetterDatabase, tmp_path: Path
) -> None:
    stock(database)
    unbalanced = dlq(database, "edit", "1", EDITOR="vi 'x", VISUAL="vi 'x")
    assert (unbalanced.code, "Traceback" in unbalanced.err) == (1, False)
    assert "VISUAL or EDITOR is no command: No closing quotation" in unbalanced.err
    editor = tmp_path / "editor.sh"
    editor.write_text("#!/bin/sh\nprintf '{\\377}' > \"$1\"\n")
    editor.chmod(0o755)
    latin = dlq(database, "edit", "1", EDITOR=str(editor), VISUAL=str(editor))
    assert (latin.code, "Traceback" in latin.err) == (1, False)
    assert "what the editor saved is no UTF-8 at byte 1" in latin.err


def test_a_dry_run_counts_transfers_and_exits_1_when_one_would_come_back(database: LetterDatabase) -> None:
    database.keep(arrival(order(5), name="5"), arrival(BAD, name="1"))
    ran = dlq(database, "replay", "--all", "--dry-run", "--format", "json")
    assert ran.code == 1
    assert ran.document["transfers"] == 2
    assert [effect["verdict"] for effect in ran.document["effects"]] == ["applied", "unknown-currency"]
    alone = dlq(database, "replay", "1", "--dry-run")
    assert (alone.code, "coupon: 100 EUR campaign:k -> order:o-5" in alone.out) == (0, True)
    assert database.count("transfers") == 0
    assert {letter.status for letter in database.letters()} == {"open"}


@pytest.mark.parametrize("command", [["replay"], ["discard", "--reason", "x"]])
def test_more_than_one_is_touched_only_when_confirmed(database: LetterDatabase, command: list[str]) -> None:
    stock(database)
    ran = dlq(database, *command, "--all")
    assert ran.code == 2
    assert "4 dead letters" in ran.err
    assert "--yes" in ran.err
    assert {letter.status for letter in database.letters()} == {"open"}


@pytest.mark.parametrize(("answer", "code", "status"), [("n\n", 1, "open"), ("y\n", 0, "discarded")])
def test_a_person_is_asked_with_a_count_and_a_sample(
    database: LetterDatabase, answer: str, code: int, status: str
) -> None:
    stock(database)
    ran = on_a_terminal(database, ["discard", "1", "4", "--reason", "test data"], answer)
    assert ran.code == code
    assert "This will discard 2 dead letters" in ran.err
    assert "data.currency is 'XXX'" in ran.err
    assert {database.letter(number).status for number in (1, 4)} == {status}


def on_a_terminal(database: LetterDatabase, arguments: Sequence[str], answer: str) -> Ran:
    ours, theirs = pty.openpty()
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "incentive_fleet.cli.main", "dlq", *arguments],
            env={**os.environ, "INCENTIVES_DATABASE_URL": database.url},
            stdin=theirs,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        os.write(ours, answer.encode())
        out, err = process.communicate(timeout=60)
    finally:
        os.close(ours)
        os.close(theirs)
    return Ran(process.returncode, out, err)


def test_discard_and_restore_by_filter_and_the_trail_of_all(database: LetterDatabase) -> None:
    stock(database)
    no_reason = dlq(database, "discard", "1")
    assert no_reason.code == 2
    done = dlq(database, "discard", "--text", "currency", "--reason", "test shop", "--yes", "--format", "json").document
    assert (done["discarded"], done["refused"]) == (3, 0)  # the refund has a currency too
    unknown = dlq(database, "restore", "2", "77", "--yes")
    assert (unknown.code, unknown.out) == (1, "")
    restored = dlq(database, "restore", "2", "3", "--yes", "--format", "json").document
    assert restored["dead_letters"] == [{"id": number, "status": "open", "refused": ""} for number in (2, 3)]
    acts = dlq(database, "history", "--format", "json").document["acts"]
    assert [act["act"] for act in acts] == ["collected"] * 4 + ["discarded"] * 3 + ["restored"]
    assert {act["actor"] for act in acts[4:]} == {"night-shift"}
    assert acts[4]["reason"] == "test shop"


@pytest.mark.parametrize(
    "arguments",
    [
        ["replay"],
        ["replay", "1", "--all"],
        ["replay", "1", "--reason", "x"],
        ["replay", "nought"],
        ["replay", "1", "--rate", "0"],
        ["list", "--older-than", "soon"],
        ["list", "--limit", "0"],
        ["edit", "1", "--original", "--set", "a=b"],
        ["collect", "--from", "rabbitmq"],
    ],
)
def test_wrong_use_exits_2_and_prints_nothing_on_standard_output(
    database: LetterDatabase, arguments: list[str]
) -> None:
    database.keep(arrival(BAD))
    ran = dlq(database, *arguments)
    assert (ran.code, ran.out) == (2, ""), ran.err


def test_a_replay_without_the_broker_s_address_leaves_the_letter_open(database: LetterDatabase) -> None:
    database.keep(arrival(order(5), transport="rabbitmq"))
    ran = dlq(database, "replay", "1")
    assert ran.code == 1
    assert "INCENTIVES_RABBITMQ_URL is not set" in ran.out
    assert database.letter(1).status == "open"


# ── Pure parts ──


@pytest.mark.parametrize(
    ("assignment", "value"),
    [
        ("data.currency=GBP", "GBP"),
        ("data.lines[0].quantity=2", 2),
        ('data.customer_id="7"', "7"),
        ("data.customer_id=7", 7),
        ("data.coupons=[]", []),
        ("data.note=a=b", "a=b"),
        ("data.note=", ""),
        ("data.note=NaN", "NaN"),
        ('data.note=1}, "x": {', '1}, "x": {'),
        ('data.note=1,"value":2', '1,"value":2'),
    ],
)
def test_assigned_values_are_json_where_they_parse(assignment: str, value: Any) -> None:
    assert editing.parse_assignment(assignment).value == value


@pytest.mark.parametrize("text", ["data.currency", "=x", "data..currency=x", "data[x]=1", "[0]=1"])
def test_bad_assignments_are_named(text: str) -> None:
    with pytest.raises(Refused, match="bad-assignment"):
        editing.parse_assignment(text)


@pytest.mark.parametrize(
    "text", ["data.nothing.there=1", "data.lines[7].quantity=1", "data.lines[7]=1", "data.currency.x=1"]
)
def test_fields_are_set_only_where_there_is_a_place(text: str) -> None:
    with pytest.raises(Refused, match="no-such-place"):
        editing.assign(order(1), [editing.parse_assignment(text)])


def test_an_event_wrapped_by_sns_is_edited_inside() -> None:
    import json

    wrapped = json.dumps({"Type": "Notification", "Message": BAD.decode()}).encode()
    edited = editing.assign(wrapped, [editing.parse_assignment("data.currency=EUR")])
    assert json.loads(edited) == json.loads(order(1))
    assert search_fields_of(wrapped).order_id == "o-1"


@pytest.mark.parametrize(
    "body", [b"", b"[" * 100_000, b'{"data": 7}', b'{"id": "\\ud800\\u0000"}', b"9" * 5_000, b"null"]
)
def test_search_fields_of_anything_never_raise(body: bytes) -> None:
    search_fields_of(body)
    documents.pretty_body(body)
    documents.body_document(body)


def test_groups_forget_values_and_numbers() -> None:
    one = cause_of("out-of-bounds", "data.lines[3].quantity is 0: at least 1 is needed", None)
    two = cause_of("out-of-bounds", "data.lines[17].quantity is 0: at least 1 is needed", None)
    assert one == two
    assert cause_of("unexpected-error", "x", {"error_class": "KeyError"}) == "KeyError"


def test_ages_count_from_the_last_copy() -> None:
    from incentive_fleet.cli.dead_letters import age

    assert [age(NOON - timedelta(seconds=s), NOON) for s in (5, 300, 10_000, 400_000)] == ["5 s", "5 min", "2 h", "4 d"]
