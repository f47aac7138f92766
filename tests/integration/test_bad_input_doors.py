"""Bad input at every door: events in queues and files, questions, terms, codes, audiences, grants and what operators type.

Whatever the door, field and value are named, the program ends in a failure, and nothing of what was refused is there after.
"""

from __future__ import annotations

import csv
import json
import re
from collections import Counter, deque
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from psycopg import Connection

from incentive_fleet.brokers.memory import MemoryBroker
from incentive_fleet.brokers.memory_replies import MemoryReplies
from incentive_fleet.brokers.messages import Ack, DeadLetter, Delivery
from incentive_fleet.cli.root import cli
from incentive_fleet.consumers.answering import Answering
from incentive_fleet.consumers.core import Core
from incentive_fleet.errors import Refused
from incentive_fleet.events.document import shown
from incentive_fleet.events.reasons import Reason
from incentive_fleet.ledger.audiences import add_members, remove_members
from incentive_fleet.ledger.campaign_reports import list_campaigns
from incentive_fleet.ledger.code_file import read_codes, read_members, read_revoked
from incentive_fleet.ledger.codes import generate_codes, load_codes, revoke_codes, show_code
from incentive_fleet.ledger.finalizing import finalize_as_placed
from incentive_fleet.ledger.grant_file import COLUMNS, read_grants
from incentive_fleet.ledger.grants import Grant, reverse_grant
from incentive_fleet.ledger.holds import hold, release
from incentive_fleet.ledger.session import Session
from incentive_fleet.literal import literal
from incentive_fleet.names import CORRELATION_ATTRIBUTE, REPLY_ATTRIBUTE
from incentive_fleet.reply_addresses import read_reply_addresses
from tests.bad_input import QUOTE, rows
from tests.command import incentives
from tests.domain import NOON, day, estimated, placed, terms
from tests.event_bodies import encoded
from tests.small_world import apply, give, load

FACTS = [row for row in rows() if row.document is not QUOTE]
QUESTIONS = [row for row in rows() if row.document is QUOTE]
TABLES = ("facts", "orders", "wallets", "transfers", "outbox", "grants", "waiting", "codes", "audience_members")
POOL = terms("coupon", "pool", codes="pool", amount=100)
GIFT = terms("grant", "gift")
# Of a text that is none, in a cell of a CSV file.
NO_TEXTS = ("", "x" * 201, "a\tb", "a\n", "\n", "a\x85", "\x7f")
NO_TIMES = ("tomorrow", "2026-03-01", "2026-03-01T10:00:00", "2026-02-30T00:00:00Z", "2200-01-01T00:00:00Z", "a\n", "0")


def kept(connection: Connection[Any]) -> dict[str, int]:
    """How many rows there are of what input could have left."""
    counts = {name: connection.execute(f"SELECT count(*) FROM {name}".encode()).fetchone() for name in TABLES}
    return {name: row[0] for name, row in counts.items() if row and row[0]}


# ── Events ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_each_bad_event_of_a_queue_is_a_dead_letter_by_its_reason(session: Session) -> None:
    core = Core(session, (5.0,), lambda: datetime.now(UTC))
    given = iter([(row, Delivery(row.body, "queue", "memory", "", 1, receipt=None)) for row in FACTS])
    while batch := list(islice(given, 500)):
        decided = dict(core.process([delivery for _, delivery in batch], carries_failures=True))
        for row, delivery in batch:
            letter = decided[delivery]
            assert isinstance(letter, DeadLetter), row.body[:400]
            assert (letter.reason, letter.detail[: len(row.detail)]) == (row.reason, row.detail)
    assert kept(session.connection) == {}


def test_each_bad_event_of_a_file_is_rejected_by_its_reason(
    database_url: str, session: Session, tmp_path: Path
) -> None:
    (tmp_path / "events.jsonl").write_bytes(b"\n".join(row.body for row in FACTS))
    words = ("backfill", tmp_path / "events.jsonl", "--rejects", tmp_path / "rejects", "--strict", "--format", "json")
    ran = incentives(*words, env={"INCENTIVES_DATABASE_URL": database_url})
    assert (ran.code, ran.err) == (1, "")
    assert ran.document["rejected"] == dict(Counter(row.reason.value for row in FACTS))
    rejects = [json.loads(line) for line in (tmp_path / "rejects").read_text().splitlines()]
    assert [one["reason"] for one in rejects] == [row.reason for row in FACTS]
    assert all(one["detail"].startswith(row.detail) for one, row in zip(rejects, FACTS, strict=True))
    assert kept(session.connection) == {}


def test_each_bad_question_is_answered_with_its_reason_and_a_fact_is_kept(session: Session) -> None:
    replies = MemoryReplies(MemoryBroker())
    replies.queues["checkout"] = deque()
    answering = Answering(session, replies, read_reply_addresses("checkout"))
    asked = {
        Delivery(
            row.body, "quotes", "memory", "", 1, None, {REPLY_ATTRIBUTE: "checkout", CORRELATION_ATTRIBUTE: str(number)}
        ): row
        for number, row in enumerate(QUESTIONS)
    }
    decided = dict(answering.process(list(asked), carries_failures=True))
    told = {correlation: json.loads(message.body) for correlation, message in replies.queues["checkout"]}
    for delivery, row in asked.items():
        answer, disposition = told.get(delivery.headers[CORRELATION_ATTRIBUTE]), decided[delivery]
        if row.reason is Reason.WRONG_QUEUE:
            assert isinstance(disposition, DeadLetter)
            assert (answer, disposition.reason) == (None, "wrong-queue")
        else:
            assert (answer, disposition) == ({"error": row.reason.value}, Ack()), row.body[:400]
    assert kept(session.connection) == {}


def test_each_bad_question_of_a_file_is_named_and_the_good_one_is_answered(database_url: str, tmp_path: Path) -> None:
    bodies = [*(row.body for row in QUESTIONS[:9]), encoded(QUOTE), *(row.body for row in QUESTIONS[9:])]
    (tmp_path / "quotes.jsonl").write_bytes(b"\n".join(bodies))
    ran = incentives("quote", tmp_path / "quotes.jsonl", env={"INCENTIVES_DATABASE_URL": database_url})
    assert ran.code == 1
    assert json.loads(ran.out)["subject"] == "q1"
    assert f"{len(QUESTIONS)} lines are no quote requests" in ran.err
    for number, row in enumerate(QUESTIONS[:9], start=1):
        assert f"line {number}: {row.reason}: {literal(row.detail)}" in ran.err


# ── Files ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def saved(folder: Path, header: str, *cells: tuple[str, ...]) -> Path:
    """A CSV file with these rows, as a spreadsheet would save them."""
    path = folder / "file.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header.split(","), *cells])
    return path


CELLS: list[tuple[str, str, str, tuple[str, ...]]] = [  # header, a good row, the column that is wrong, and how
    *(("campaign_id,code,customer_id,expires_at", "pool,A1,,", column, NO_TEXTS) for column in ("campaign_id", "code")),
    ("campaign_id,code,customer_id,expires_at", "pool,A1,,", "customer_id", NO_TEXTS[1:]),
    ("campaign_id,code,customer_id,expires_at", "pool,A1,,", "expires_at", NO_TIMES),
    ("code", "A1", "code", NO_TEXTS[1:]),  # an empty line is none
    *(("audience,customer_id", "vip,ann", column, NO_TEXTS) for column in ("audience", "customer_id")),
]
READERS: dict[str, Callable[[Path], Iterable[object]]] = {
    "campaign_id,code,customer_id,expires_at": read_codes,
    "code": read_revoked,
    "audience,customer_id": read_members,
}


@pytest.mark.parametrize(("header", "good", "column", "wrong"), CELLS, ids=[f"{one[2]} of {one[0]}" for one in CELLS])
def test_a_bad_cell_refuses_the_file_and_is_named_with_its_line(
    header: str, good: str, column: str, wrong: tuple[str, ...], tmp_path: Path
) -> None:
    names, row = header.split(","), tuple(good.split(","))
    for value in wrong:
        bad = tuple(value if name == column else cell for name, cell in zip(names, row, strict=True))
        path = saved(tmp_path, header, row, bad, row)
        with pytest.raises(Refused, match=f"{column} is {re.escape(shown(value))}: ") as refused:
            list(READERS[header](path))
        assert refused.value.reason == "bad-row"
        assert re.search(r": line [34]: ", refused.value.detail)  # a line feed in a cell makes the row one line longer


@pytest.mark.parametrize(
    ("header", "told"),
    [
        ("campaign_id,customer_id", "lacks the columns code"),
        ("campaign_id,Code", "lacks the columns code"),
        ("campaign_id,code,code", "has the column code more than once"),
        (
            "campaign_id,code,customer",
            "has the column 'customer': known are campaign_id, code, customer_id, expires_at",
        ),
        ("campaign_id,code,expires at", "has the column 'expires at': known are"),
    ],
)
def test_a_column_that_is_missing_twice_or_misspelt_is_named(header: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(Refused, match=f"bad-file: .*: the first line {told}"):
        list(read_codes(saved(tmp_path, header, ("pool", "A1", "ann"))))


def test_a_file_of_codes_or_customers_is_loaded_whole_or_not_at_all(session: Session, tmp_path: Path) -> None:
    load(session, POOL)
    connection = session.connection
    codes = saved(tmp_path, "campaign_id,code,expires_at", ("pool", "A1", ""), ("pool", "A2", "soon"))
    with pytest.raises(Refused, match="line 3: expires_at is 'soon'"):
        load_codes(connection, read_codes(codes))
    assert kept(connection) == {}
    load_codes(connection, read_codes(saved(tmp_path, "campaign_id,code", ("pool", "A1"), ("pool", "A2"))))
    for bad, told in ((("A\n",), "line 4: code is 'A\\\\n'"), (("A3",), "line 3: code is A3: no pool has it")):
        with pytest.raises(Refused, match=told):
            revoke_codes(connection, read_revoked(saved(tmp_path, "code", ("A1",), bad)), "leaked")
    assert (show_code(connection, "A1") or {})["revoked_at"] is None
    for act in (add_members, remove_members):
        with pytest.raises(Refused, match="line 3: customer_id is ''"):
            act(connection, read_members(saved(tmp_path, "audience,customer_id", ("vip", "ann"), ("vip", ""))))
    assert kept(connection) == {"codes": 2}


GRANT = ("g", "ann", "EUR", "500", "gift", "")
GRANTS: list[tuple[str, str, tuple[str, ...]]] = [
    *((column, "bad-text", NO_TEXTS) for column in ("key", "customer_id", "campaign_id")),
    ("currency", "unknown-currency", ("", "eur", "EURO", "XAU", "EUR\n", "EUR ")),
    (
        "amount",
        "bad-amount",
        ("", "5.0", "-5", "+5", "1e3", " 5", "5\n", "\u0665", "0x5", "1_000", "9" * 14, "NaN", "true"),
    ),
    ("expires_at", "bad-time", NO_TIMES),
]


@pytest.mark.parametrize(("column", "reason", "wrong"), GRANTS, ids=[one[0] for one in GRANTS])
def test_a_bad_cell_of_a_grant_is_named_and_the_other_rows_are_read(
    column: str, reason: str, wrong: tuple[str, ...], tmp_path: Path
) -> None:
    place = COLUMNS.index(column)
    bad = [(*GRANT[:place], value, *GRANT[place + 1 :]) for value in wrong]
    read = [row.grant for row in read_grants(saved(tmp_path, ",".join(COLUMNS), GRANT, *bad, GRANT))]
    assert isinstance(read[0], Grant)
    assert read[0] == read[-1]
    for value, refused in zip(wrong, read[1:-1], strict=True):
        assert isinstance(refused, Refused), value
        assert (refused.reason, refused.detail.partition(": ")[0]) == (reason, f"{column} is {shown(value)}")


def test_commands_name_what_a_file_has_wrong_and_write_nothing(
    database_url: str, session: Session, tmp_path: Path
) -> None:
    load(session, POOL, GIFT)
    (tmp_path / "terms.toml").write_text(
        terms("grant", "fine") + terms("coupon", "wrong", auto=1, amount=5) + "[credit]\nline_kinds = ['tips']\n"
    )
    grants = saved(tmp_path, ",".join(COLUMNS), GRANT, ("h", "ann\n", "EUR", "5", "gift", ""))
    grants = grants.rename(tmp_path / "grants.csv")
    codes = saved(tmp_path, "campaign_id,code", ("pool", "A1"), ("gift", "A2"))
    for words, told in (
        (
            ("campaigns", "load", tmp_path / "terms.toml"),
            ("'wrong': auto: is 1: ", "[credit]: line_kinds.0: is 'tips': "),
        ),
        (("codes", "load", codes), ("nothing was loaded", "line 3: campaign_id is gift: ")),
        (
            ("codes", "revoke", codes, "--reason", "leaked"),
            ("nothing was revoked", "line 2: code is A1: no pool has it"),
        ),
        (("audiences", "load", codes), ("the first line lacks the columns audience, customer_id",)),
        (("grants", "load", grants), ("1 rows were refused", "line 4: bad-text: customer_id is 'ann\\n'")),
    ):
        ran = incentives(*words, env={"INCENTIVES_DATABASE_URL": database_url})
        assert ran.code == 1, words
        assert all(part in ran.err for part in told), ran.err
        assert "Traceback" not in ran.err
    assert [row["campaign_id"] for row in list_campaigns(session.connection)] == ["gift", "pool"]
    assert kept(session.connection) == {"grants": 1, "wallets": 1, "transfers": 1, "outbox": 1}


# ── What operators type ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("text", NO_TEXTS)
def test_a_text_that_no_event_may_hold_is_none_for_an_operator_either(session: Session, text: str) -> None:
    load(session, POOL, GIFT)
    give(session, "g", 500)
    apply(session, estimated(placed("o1")))
    connection, before = session.connection, kept(session.connection)
    acts: dict[str, list[Callable[[], object]]] = {
        "customer_id": [lambda: hold(connection, text, "dispute"), lambda: release(connection, text, "settled")],
        "reason": [
            lambda: hold(connection, "ann", text),
            lambda: release(connection, "ann", text),
            lambda: finalize_as_placed(session, "o1", text, day(1)),
            lambda: reverse_grant(session, "g", text, NOON),
            lambda: revoke_codes(connection, [], text),
        ],
        "batch": [lambda: generate_codes(connection, "pool", text, 5)],
    }
    for field, typed in acts.items():
        for act in typed:
            with pytest.raises(Refused, match=f"bad-text: {field} is {re.escape(shown(text))}: "):
                act()
    assert kept(connection) == before
    assert connection.execute("SELECT count(*) FROM wallet_holds").fetchone() == (0,)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("remind", "--as-of", "2026-03-01T00:00:00Z", "--days", "0"), "0 is not in the range 1<=x<=365"),
        (("remind", "--as-of", "2026-03-01T00:00:00Z", "--days", "366"), "366 is not in the range 1<=x<=365"),
        (("remind", "--as-of", "2026-03-01T00:00:00Z", "--days", "1.5"), "'1.5' is not a valid integer"),
        (("remind", "--as-of", "0001-01-01T00:00:00+14:00", "--days", "5"), "the year in UTC must be 1970 to 2199"),
        (("remind", "--as-of", "9999-12-31T00:00:00Z", "--days", "5"), "the year in UTC must be 1970 to 2199"),
        (("remind", "--as-of", "2026-03-01T00:00:00", "--days", "5"), "'2026-03-01T00:00:00' is not a time like"),
        (("remind", "--as-of", "2026-W09-7T00:00:00Z", "--days", "5"), "'2026-W09-7T00:00:00Z' is not a time like"),
        (("codes", "generate", "pool", "--batch", "b", "--count", "0"), "0 is not in the range 1<=x<=10000000"),
        (("codes", "generate", "pool", "--batch", "b", "--count", "10000001"), "10000001 is not in the range"),
        (("codes", "generate", "pool", "--batch", "b", "--count", "1e3"), "'1e3' is not a valid integer"),
        (("orders", "finalize", "o1", "--reason", "lost"), "--as-placed"),
        (("wallets", "hold", "ann"), "--reason"),
    ],
)
def test_a_number_or_a_time_that_is_none_is_wrong_use(words: tuple[str, ...], told: str) -> None:
    ran = CliRunner().invoke(cli, words)
    assert (ran.exit_code, ran.stdout) == (2, "")
    assert told in ran.stderr
