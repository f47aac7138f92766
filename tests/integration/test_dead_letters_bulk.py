"""Many letters as one: groups with numbers, filters, edits of many as one run, and undoing them as one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
import tenacity
from click.testing import CliRunner, Result

from incentive_fleet.cli.root import cli
from incentive_fleet.dead_letters import acting, bulk_edit, runs
from incentive_fleet.dead_letters.edit_plan import EditPlan, read_values
from incentive_fleet.dead_letters.runs import Done, Following, RunRecord
from incentive_fleet.errors import Refused
from incentive_fleet.stopping import Stop
from tests.command import incentives
from tests.dead_letter_world import LetterDatabase, arrival, by, order, refund

EUROS = EditPlan(sets=["data.currency=EUR"])
UNKNOWN = {
    "fleet-reason": "unknown-currency",
    "fleet-detail": "data.currency is 'UKP': an ISO 4217 code with minor units is needed",
}
LONG = {"fleet-reason": "unexplained", "fleet-detail": "a sentence that goes on " * 30}


@pytest.fixture
def database(database_url: str) -> LetterDatabase:
    return LetterDatabase.loaded(database_url)


def stock(database: LetterDatabase, count: int, *, at: datetime | None = None, first: int = 0) -> list[int]:
    """So many orders in a currency that there is not; their ids."""
    before = {letter.id for letter in database.summaries()}
    copies = [
        arrival(order(number, currency="UKP"), name=f"m-{number}", headers=UNKNOWN)
        for number in range(first, first + count)
    ]
    database.keep(*copies, at=at or datetime.now(UTC))
    return [letter.id for letter in database.summaries() if letter.id not in before]


def dlq(database: LetterDatabase, *arguments: str) -> Result:
    environment = {"INCENTIVES_DATABASE_URL": database.url, "INCENTIVES_ACTOR": "ann", "COLUMNS": "80"}
    return CliRunner().invoke(cli, ["dlq", *arguments], env=environment)


def document(database: LetterDatabase, *arguments: str, code: int = 0) -> Any:
    ran = dlq(database, *arguments, "--format", "json")
    assert ran.exit_code == code, (ran.output, ran.exception)
    return json.loads(ran.stdout)


def edit(database: LetterDatabase, ids: list[int], plan: EditPlan = EUROS, **following: Any) -> int:
    with database.connect() as connection:
        return bulk_edit.edit_many(connection, ids, plan, by(), None, Following(**following))


def undo(database: LetterDatabase, run: int) -> int:
    with database.connect() as connection:
        return bulk_edit.undo(connection, run, by("bob"))


def run_of(database: LetterDatabase, number: int) -> RunRecord:
    with database.connect() as connection:
        return runs.get_run(connection, number)


def outcomes(database: LetterDatabase, number: int) -> list[Done]:
    with database.connect() as connection:
        return runs.outcomes(connection, number)


# ── Groups ──


def test_a_group_keeps_its_number_whatever_becomes_of_its_letters(database: LetterDatabase) -> None:
    ids = stock(database, 3)
    database.keep(arrival(refund(9), name="r"), at=datetime.now(UTC))
    first, second = document(database, "groups")["groups"]
    assert (first["count"], first["reason"], first["sources"], first["edited"]) == (3, "unknown-currency", ["shop"], 0)
    assert document(database, "list", "--group")["groups"] == [first, second]
    chosen = ("--group", str(first["group"]))
    assert sorted(row["id"] for row in document(database, "list", *chosen)["dead_letters"]) == ids
    document(database, "discard", *chosen, "--because", "noise", "--yes")
    assert [group["group"] for group in document(database, "groups")["groups"]] == [second["group"]]
    later = stock(database, 2, first=50)
    again = document(database, "list", *chosen)["dead_letters"]
    assert sorted(row["id"] for row in again) == later


def test_a_group_that_nobody_has_names_those_there_are(database: LetterDatabase) -> None:
    stock(database, 1)
    number = document(database, "groups")["groups"][0]["group"]
    for command in (
        ["list"],
        ["groups"],
        ["discard", "--because", "x"],
        ["edit", "--set", "data.currency=EUR"],
        ["replay"],
    ):
        ran = dlq(database, *command, "--group", str(number + 7))
        assert (ran.exit_code, ran.stdout) == (2, "")


def test_many_groups_are_named_in_the_order_of_their_numbers(database: LetterDatabase) -> None:
    reasons = ({**UNKNOWN, "fleet-reason": f"broker-{n}"} for n in range(11))
    database.keep(*(arrival(order(n), name=f"m-{n}", headers=headers) for n, headers in enumerate(reasons)))
    ran = incentives("dlq", "list", "--group", "99", env={"INCENTIVES_DATABASE_URL": database.url})
    assert ran.err.splitlines()[1:] == [f"  {number}" for number in range(1, 12)]


def test_an_edit_leaves_a_letter_in_its_group_and_a_new_reason_moves_it(database: LetterDatabase) -> None:
    (number,) = stock(database, 1)
    group = database.letter(number).group_no
    edit(database, [number], EditPlan(sets=["type=order-refunded.v1", 'data={"refund_id": "r", "order_id": "o-0", '
        '"currency": "EUR", "refunded_at": "2026-01-12T12:00:00Z"}']))  # fmt: skip
    assert (database.letter(number).event_type, database.letter(number).group_no) == ("order-refunded.v1", group)
    database.keep(arrival(order(0, currency="UKP"), name="another copy", headers=LONG), at=datetime.now(UTC))
    assert database.letter(number).group_no != group


def test_lines_stay_within_eighty_columns_and_json_has_the_whole_cause(database: LetterDatabase) -> None:
    stock(database, 2)
    database.keep(arrival(refund(9), name="r", headers=LONG), at=datetime.now(UTC))
    edit(database, [1])
    for command in (["groups"], ["list"], ["runs"], ["history"], ["list", "--group"]):
        ran = dlq(database, *command)
        assert max(map(len, ran.stdout.splitlines())) <= 80, ran.stdout
    whole = document(database, "groups", "--reason", "unexplained")["groups"][0]["cause"]
    assert len(whole) > 300
    assert "…" in dlq(database, "groups").stdout


# ── Filters ──


def test_letters_are_found_by_producer_time_edit_replay_and_run(database: LetterDatabase) -> None:
    now = datetime.now(UTC)
    old = stock(database, 2, at=now - timedelta(days=2))
    new = stock(database, 2, first=20)
    foreign = order(40, currency="UKP").replace(b'"source": "shop"', b'"source": "kiosk"')
    database.keep(arrival(foreign, name="kiosk", headers=UNKNOWN), at=now)
    (kiosk,) = [letter.id for letter in database.summaries(source="kiosk")]
    run = edit(database, [old[0]])
    yesterday = (now - timedelta(days=1)).isoformat()
    expected = {
        ("--source", "kiosk"): [kiosk],
        ("--since", yesterday): [*new, kiosk],
        ("--until", yesterday): old,
        ("--edited",): [old[0]],
        ("--not-edited",): [old[1], *new, kiosk],
        ("--not-replayed",): [*old, *new, kiosk],
        ("--replayed",): [],
        ("--run", str(run)): [old[0]],
        ("--run", str(run), "--not-edited"): [],
    }
    for filters, found in expected.items():
        listed = document(database, "list", *filters)["dead_letters"]
        assert sorted(row["id"] for row in listed) == found, filters
    (edited,) = document(database, "list", "--edited")["dead_letters"]
    assert (edited["run"], edited["edited"], edited["event_source"]) == (run, True, "shop")


# ── Edits of many ──


def test_a_dry_run_shows_one_diff_and_what_the_rest_would_fail_with(database: LetterDatabase) -> None:
    stock(database, 3)
    database.keep(arrival(order(9, currency="UKP", customer_id=""), name="worse", headers=UNKNOWN))
    database.keep(arrival(b"{", name="no JSON"), at=datetime.now(UTC))
    preview = document(database, "edit", "--all", "--set", "data.currency=EUR", "--dry-run", code=1)
    assert (preview["passed"], preview["unchanged"], preview["refused"]) == (3, 0, 2)
    assert [line for line in preview["diff"] if line[:1] in "+-"][2:] == [
        '-    "currency": "UKP",',
        '+    "currency": "EUR",',
    ]
    told = [(one["reason"], one["count"]) for one in preview["refusals"]]
    assert sorted(told) == [("no-fields", 1), ("out-of-bounds", 1)]
    assert {letter.edited for letter in database.summaries()} == {False}
    assert database.count("dead_letter_runs") == 0


def test_an_edit_of_many_is_one_run_and_is_undone_as_one(database: LetterDatabase) -> None:
    ids = stock(database, 5)
    bad = stock_one(database, order(8, currency="UKP", customer_id=""))
    done = document(
        *(database, "edit", "--reason-code", "unknown-currency", "--set", "data.currency=EUR"),
        *("--because", "INC-7", "--yes"),
        code=1,
    )
    assert (done["edited"], done["refused"], done["untried"]) == (5, 1, 0)
    (refused,) = [one for one in done["dead_letters"] if one["refused"]]
    assert (refused["id"], refused["status"]) == (bad, "open")
    acts = document(database, "history", "--run", str(done["run"]))["acts"]
    assert {(act["act"], act["actor"], act["reason"], act["run_id"]) for act in acts} == {
        ("edited", "ann", "INC-7", done["run"])
    }
    assert len(acts) == 5
    assert b"EUR" in database.letter(ids[0]).current_body
    undone = document(database, "undo", str(done["run"]))
    assert (undone["undone"], undone["refused"]) == (5, 0)
    assert {letter.edited for letter in database.summaries()} == {False}
    again = document(database, "undo", str(done["run"]))
    assert (again["undone"], again["unchanged"]) == (0, 5)


def stock_one(database: LetterDatabase, body: bytes) -> int:
    database.keep(arrival(body, name=f"m-{hash(body)}", headers=UNKNOWN), at=datetime.now(UTC))
    return max(letter.id for letter in database.summaries())


def test_undo_takes_back_one_run_alone_and_leaves_what_came_after(database: LetterDatabase) -> None:
    first, second = stock(database, 2)
    early = edit(database, [first, second])
    late = edit(database, [second], EditPlan(sets=["data.currency=USD"]))
    assert [one.refused for one in outcomes(database, undo(database, early))] == [
        "",
        f"it was edited again after run {early}: undo that one first",
    ]
    assert b"UKP" in database.letter(first).current_body
    undo(database, late)
    assert b"EUR" in database.letter(second).current_body, "the edit before it stands again"
    database.discard(second)
    (gone,) = outcomes(database, undo(database, late))
    assert gone.refused == "it is discarded, so it cannot be changed back"
    redone = undo(database, undo(database, edit(database, [first])))
    assert b"EUR" in database.letter(first).current_body, "an undo can be undone"
    assert run_of(database, redone).act == "undo"


def test_an_undo_of_what_is_no_edit_is_refused(database: LetterDatabase) -> None:
    (number,) = stock(database, 1)
    database.discard(number)
    with database.connect() as connection:
        (run,) = runs.list_runs(connection)
    with pytest.raises(Refused, match="no-edit"):
        undo(database, run.run_id)
    with pytest.raises(Refused, match="unknown-run"):
        undo(database, 999)


@pytest.mark.parametrize(
    ("options", "before", "after"),
    [
        (["--set", "data.currency=EUR"], {"currency": "UKP"}, {"currency": "EUR"}),
        (["--unset", "data.coupons", "--set", "data.currency=EUR"], {"coupons": ["K"]}, {"coupons": None}),
        (["--append", "data.coupons=L", "--set", "data.currency=EUR"], {"coupons": ["K"]}, {"coupons": ["K", "L"]}),
    ],
)
def test_fields_are_set_appended_and_taken_out(
    database: LetterDatabase, options: list[str], before: dict[str, Any], after: dict[str, Any]
) -> None:
    ids = stock(database, 2)
    document(database, "edit", *map(str, ids), *options, "--yes")
    for number in ids:
        letter = database.letter(number)
        old, new = (json.loads(body)["data"] for body in (letter.body, letter.current_body))
        assert {name: old.get(name) for name in before} == before
        assert {name: new.get(name) for name in after} == after


def test_a_list_that_may_be_left_out_is_made_and_what_is_none_is_refused(database: LetterDatabase) -> None:
    ids = stock(database, 2)
    edit(database, ids, EditPlan(sets=["data.currency=EUR"], unsets=["data.coupons"]))
    edit(database, [ids[0]], EditPlan(appends=["data.coupons=K"]))
    assert json.loads(database.letter(ids[0]).current_body)["data"]["coupons"] == ["K"]
    (refused,) = outcomes(database, edit(database, [ids[1]], EditPlan(appends=["data.currency=K"])))
    assert refused.refused == "no-such-place: data.currency: 'EUR' is no list"


def test_values_by_order_come_from_a_file(database: LetterDatabase, tmp_path: Path) -> None:
    ids = stock(database, 3)
    file = tmp_path / "values.csv"
    file.write_text("order_id,data.currency,data.lines[0].quantity\no-0,EUR,2\no-1,USD,\n")
    done = document(database, "edit", "--all", "--from-file", str(file), "--yes", code=1)
    assert [one["refused"] for one in done["dead_letters"]] == [
        "",
        "",
        "not-in-file: the file has no row for order 'o-2'",
    ]
    first, second = (json.loads(database.letter(number).current_body)["data"] for number in ids[:2])
    assert (first["currency"], first["lines"][0]["quantity"]) == ("EUR", 2)
    assert (second["currency"], second["lines"][0]["quantity"]) == ("USD", 1)
    file.write_text(f"id,data.currency\n{ids[2]},EUR\n")
    assert document(database, "edit", str(ids[2]), "--from-file", str(file))["edited"] == 1


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "line 1: order_id or id"),
        ("currency\nx\n", "line 1: order_id or id"),
        ("order_id,data..x\no,1\n", "is not a path"),
        ("order_id,data.currency\no-1,EUR\no-1,USD\n", "line 3: order_id 'o-1' comes twice"),
        ("order_id,data.currency\no-1\n", "line 2: 1 cells, and 2 columns"),
        ("order_id,data.currency\n,EUR\n", "line 2: order_id '' is needed"),
        ("order_id,data.currency\n", "has no rows"),
        ('order_id,data.currency\n"o-1,EUR\n', "is no CSV"),
    ],
)
def test_a_file_of_values_that_is_none_is_named_by_line(tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "values.csv"
    file.write_text(text)
    with pytest.raises(Refused, match="bad-") as caught:
        read_values(file)
    assert told in caught.value.detail


def test_an_edit_that_is_stopped_goes_on_where_it_stood(
    database: LetterDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acting, "PORTION", 2)
    ids, stop = stock(database, 7), Stop()

    def told_to_stop(done: int) -> None:
        if done == 4:
            stop.set()

    number = edit(database, ids, on_progress=told_to_stop, stop=stop)
    run = run_of(database, number)
    assert (run.status, run.done, run.pending) == ("stopped", 4, 3)
    assert [letter.edited for letter in database.summaries()] == [True] * 4 + [False] * 3
    listed = document(database, "runs", "--unfinished")["runs"]
    assert [(row["run"], row["act"], row["pending"]) for row in listed] == [(number, "edit", 3)]
    resumed = document(database, "resume", str(number))
    assert (resumed["edited"], resumed["untried"]) == (7, 0)
    assert {letter.edited for letter in database.summaries()} == {True}
    assert [act.act for act in database.acts()].count("edited") == 7
    with pytest.raises(Refused, match="run-is-done"), database.connect() as connection:
        runs.resume_run(connection, number, by())


def test_an_edit_is_stopped_from_another_shell(database: LetterDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acting, "PORTION", 2)
    ids = stock(database, 6)
    begun: list[int] = []

    def stopped_elsewhere(done: int) -> None:
        if done == 2:
            document(database, "stop", str(begun[0]))

    number = edit(database, ids, on_begin=begun.append, on_progress=stopped_elsewhere)
    run = run_of(database, number)
    assert (run.status, run.done, run.pending) == ("stopped", 2, 4)


def test_an_edit_that_breaks_in_the_middle_leaves_whole_portions(
    database: LetterDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acting, "PORTION", 2)
    ids = stock(database, 4)
    with psycopg.connect(database.url, autocommit=True) as owner:
        owner.execute(f"ALTER TABLE dead_letters ADD CONSTRAINT broken CHECK (NOT (id = {ids[3]} AND edited))")
    with pytest.raises(Exception, match="broken"):
        edit(database, ids)
    assert [letter.edited for letter in database.summaries()] == [True, True, False, False]
    assert [act.act for act in database.acts()].count("edited") == 2
    with psycopg.connect(database.url, autocommit=True) as owner:
        owner.execute("ALTER TABLE dead_letters DROP CONSTRAINT broken")
    assert document(database, "resume", "1")["edited"] == 4


@pytest.mark.parametrize("order_", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_run_of_a_command_and_says_how_to_go_on(
    database: LetterDatabase, order_: signal.Signals
) -> None:
    ids = stock(database, acting.PORTION + 10)
    command = [sys.executable, "-m", "incentive_fleet.cli.main", "dlq", "edit", "--all", "--yes"]
    environment = {**os.environ, "INCENTIVES_DATABASE_URL": database.url}
    with psycopg.connect(database.url) as other:  # holds the last letter, so that the second portion waits for it
        other.execute("SELECT FROM dead_letters WHERE id = %s FOR UPDATE", (ids[-1],))
        editing = subprocess.Popen(
            [*command, "--set", "data.currency=EUR"], env=environment, stderr=subprocess.PIPE, text=True
        )
        wait_until(lambda: database.count("dead_letter_runs") == 1 and run_of(database, 1).done == acting.PORTION)
        editing.send_signal(order_)
        _, told = editing.communicate(timeout=60)
    assert editing.returncode == 128 + order_
    assert "Run 1 is stopped: `incentives dlq resume 1` goes on with it." in told
    assert (run_of(database, 1).status, run_of(database, 1).pending) == ("stopped", 10)
    assert document(database, "resume", "1")["edited"] == len(ids)


def wait_until(holds: Callable[[], bool]) -> None:
    for attempt in tenacity.Retrying(stop=tenacity.stop_after_delay(60), wait=tenacity.wait_fixed(0.05), reraise=True):
        with attempt:
            assert holds()


@pytest.mark.chaos
def test_ten_thousand_letters_are_edited_within_half_a_minute(
    database: LetterDatabase, say: Callable[[str], None]
) -> None:
    ids = stock(database, 10_000)
    began = time.monotonic()
    number = edit(database, ids)
    seconds = time.monotonic() - began
    say(f"10,000 letters edited in {seconds:.1f} s")
    assert run_of(database, number).done == len(ids)
    began = time.monotonic()
    undo(database, number)
    say(f"... and undone in {time.monotonic() - began:.1f} s")
    assert seconds < 30


def test_wrong_use_of_edits_of_many_exits_2(database: LetterDatabase) -> None:
    stock(database, 2)
    for arguments in (
        ["edit", "--all"],
        ["edit", "--all", "--original"],
        ["edit", "1", "2"],
        ["edit", "1", "--all", "--set", "a=b"],
        ["edit", "--set", "a=b"],
        ["list", "--since", "yesterday"],
        ["list", "--group", "x"],
        ["runs", "x"],
    ):
        ran = dlq(database, *arguments)
        assert (ran.exit_code, ran.stdout) == (2, ""), ran.output
