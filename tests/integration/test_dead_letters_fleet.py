"""Replays that any process of the fleet carries on, letters sent elsewhere, and letters that leave, come and go for good."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner, Result

from incentive_fleet.cli.root import cli
from incentive_fleet.dead_letters import purging, runs
from incentive_fleet.dead_letters.audit import Attribution
from incentive_fleet.dead_letters.bulk_edit import begin_edit, begin_undo
from incentive_fleet.dead_letters.carrying import carry_ready
from incentive_fleet.dead_letters.changes import begin_move
from incentive_fleet.dead_letters.claims import Target
from incentive_fleet.dead_letters.edit_plan import EditPlan
from incentive_fleet.dead_letters.exchange import export_lines, import_file
from incentive_fleet.dead_letters.replay import Ended, ReplayRequest, begin_replay, carry, replay
from incentive_fleet.dead_letters.run_locks import RunLocks
from incentive_fleet.dead_letters.runs import Following
from incentive_fleet.embedded.postgres import Postgres
from incentive_fleet.errors import BrokerUnavailable, Refused
from incentive_fleet.ledger.session import Session
from incentive_fleet.settings import Settings
from incentive_fleet.stopping import Stop
from tests.brokers_and_workers import Brokers, Source, start
from tests.dead_letter_world import NOON, LetterDatabase, LetterWorld, arrival, by, open_letter_world, order
from tests.parts import fresh_database

BROKER_SETTINGS = {"sqs_visibility_s": 1}
DLQ = [sys.executable, "-m", "incentive_fleet.cli.main", "dlq"]


@pytest.fixture
def world(brokers: Brokers, database_url: str) -> Iterator[LetterWorld]:
    with open_letter_world(brokers, database_url) as world:
        yield world


@pytest.fixture
def database(database_url: str) -> LetterDatabase:
    return LetterDatabase.loaded(database_url)


def stock(world: LetterWorld, source: Source, count: int) -> list[int]:
    queue = world.brokers.queue_of(source, "order-placed.v1")
    envelope: dict[str, Any] = {"attributes": {}} if source == "sqs" else {"headers": {}, "properties": {}}
    copies = [
        arrival(order(number), name=f"m-{number}", queue=queue, transport=source, envelope=envelope)
        for number in range(count)
    ]
    world.keep(*copies)
    return [letter.id for letter in world.summaries()]


def begun(world: LetterWorld, ids: list[int], rate: float | None = None) -> int:
    with world.connect() as connection:
        return begin_replay(connection, ReplayRequest(ids, by(), rate_per_s=rate))


def run_of(world: LetterDatabase, number: int) -> runs.RunRecord:
    with world.connect() as connection:
        return runs.get_run(connection, number)


def carry_as_the_fleet(world: LetterWorld, **changed: Any) -> None:
    with closing(Session(world.url)) as session:
        carry_ready(session, world.settings.model_copy(update=changed), Stop())


def dlq(url: str, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["dlq", *arguments], env={"INCENTIVES_DATABASE_URL": url, "INCENTIVES_ACTOR": "ann"})


# ── A run that any process carries on ──


@pytest.mark.parametrize("step", ["replay-after-claim", "replay-after-send"])
def test_the_fleet_carries_on_what_a_dead_command_left(world: LetterWorld, step: str) -> None:
    ids = stock(world, "rabbitmq", 60)
    dying = start([*DLQ, "replay", "--all", "--yes"], world.settings, INCENTIVES_TEST_FAULT=step)
    assert dying.wait(60) == -signal.SIGKILL
    carry_as_the_fleet(world)
    (run,) = _runs(world)
    assert (run.status, run.done, run.refused, run.carried) == ("done", 60, 0, False)
    assert {letter.status for letter in world.summaries()} == {"replayed"}
    assert {letter.replays for letter in world.summaries()} == {1}
    assert world.consume("rabbitmq")["applied"] == len(ids)


def _runs(world: LetterWorld) -> list[runs.RunRecord]:
    with world.connect() as connection:
        return runs.list_runs(connection)


def test_a_collecting_process_carries_a_detached_run_and_another_shell_watches(world: LetterWorld) -> None:
    stock(world, "rabbitmq", 5)
    told = dlq(world.url, "replay", "--all", "--yes", "--detach", "--format", "json")
    (run,) = json.loads(told.stdout)["runs"]
    assert (told.exit_code, run["status"], run["pending"]) == (0, "ready", 5)
    fleet = start([*DLQ, "collect", "--from", "rabbitmq"], world.settings)
    try:
        watched = dlq(world.url, "watch", str(run["run"]), "--format", "json")
    finally:
        fleet.send_signal(signal.SIGTERM)
    assert fleet.wait(60) == 0
    assert (watched.exit_code, json.loads(watched.stdout)["replayed"]) == (0, 5)
    assert world.consume("rabbitmq") == {"applied": 5}


def test_one_process_carries_a_run_at_a_time(world: LetterWorld) -> None:
    number = begun(world, stock(world, "rabbitmq", 3))
    with closing(Session(world.url)) as session:
        with closing(RunLocks(world.url, number)) as other:
            assert other.held
            assert run_of(world, number).carried
            assert carry(session, world.settings, number, Following(stop=Stop())) is Ended.ELSEWHERE
        assert carry(session, world.settings, number, Following(stop=Stop())) is Ended.DONE
        assert carry(session, world.settings, number, Following(stop=Stop())) is Ended.STOPPED
    assert world.waiting("rabbitmq") == 3


def test_a_run_is_stopped_from_another_shell_and_resumed(world: LetterWorld) -> None:
    ids = stock(world, "rabbitmq", 6)
    numbers: list[int] = []

    def stopped_elsewhere(done: int) -> None:
        if done == 2:
            assert dlq(world.url, "stop", str(numbers[0])).exit_code == 0

    following = Following(numbers.append, stopped_elsewhere)
    done = replay(Session(world.url), world.settings, ReplayRequest(ids, by(), rate_per_s=2.0), following)
    assert [one.id for one in done] == ids[:2]
    assert (run_of(world, numbers[0]).status, run_of(world, numbers[0]).pending) == ("stopped", 4)
    carry_as_the_fleet(world)
    assert run_of(world, numbers[0]).pending == 4, "nobody goes on with what a person stopped"
    with world.connect() as connection:
        runs.resume_run(connection, numbers[0], by())
    carry_as_the_fleet(world)
    assert run_of(world, numbers[0]).status == "done"
    assert world.consume("rabbitmq") == {"applied": 6}


def test_a_process_carries_only_runs_whose_brokers_it_knows(world: LetterWorld) -> None:
    number = begun(world, stock(world, "rabbitmq", 2))
    carry_as_the_fleet(world, rabbitmq_url=None)
    assert run_of(world, number).pending == 2


def test_a_broker_that_is_away_leaves_the_run_to_be_gone_on_with(world: LetterWorld) -> None:
    number = begun(world, stock(world, "rabbitmq", 3))
    with pytest.raises(BrokerUnavailable):
        carry_as_the_fleet(world, rabbitmq_url="amqp://guest:guest@127.0.0.1:9/")
    run = run_of(world, number)
    assert (run.status, run.pending) == ("ready", 3)
    assert {letter.status for letter in world.summaries()} == {"open"}
    carry_as_the_fleet(world)
    assert run_of(world, number).status == "done"
    assert world.waiting("rabbitmq") == 3


# ── Elsewhere ──


@pytest.mark.parametrize(("from_", "to"), [("rabbitmq", "sqs"), ("sqs", "rabbitmq"), ("sqs", "sqs")])
def test_letters_are_redirected_to_a_queue_of_either_broker(world: LetterWorld, from_: Source, to: Source) -> None:
    ids = stock(world, from_, 3)
    queue = world.brokers.queue_of(to, "order-placed.v1")
    request = ReplayRequest(ids, by(), to=Target(to, queue))
    assert [one.refused for one in replay(Session(world.url), world.settings, request)] == [""] * 3
    assert world.consume(to) == {"applied": 3}
    sent = [act for act in world.acts() if act.act == "sent"]
    assert {(act.after["to"], act.after["over"]) for act in sent} == {(queue, to)}


def test_a_redirected_letter_that_fails_there_names_its_earlier_life(world: LetterWorld) -> None:
    queue = world.brokers.queue_of("rabbitmq", "order-placed.v1")
    world.keep(arrival(order(1, currency="XXX"), queue="of-old", transport="sqs"))
    (letter,) = world.letters()
    request = ReplayRequest([letter.id], by(), to=Target("rabbitmq", queue))
    replay(Session(world.url), world.settings, request)
    world.consume("rabbitmq")
    world.collect("rabbitmq")
    first, second = world.summaries()
    assert (first.status, second.earlier_id, second.source_queue, second.life) == ("replayed", letter.id, queue, 2)


def test_bytes_that_sqs_cannot_take_are_refused_alone(world: LetterWorld) -> None:
    (good,) = stock(world, "rabbitmq", 1)
    world.keep(
        arrival(b"\xff\xfe", name="bytes", queue="q", transport="rabbitmq", envelope={"headers": {}, "properties": {}})
    )
    bad = world.summaries()[-1].id
    target = Target("sqs", world.brokers.queue_of("sqs", "order-placed.v1"))
    done = {
        one.id: one.refused
        for one in replay(Session(world.url), world.settings, ReplayRequest([good, bad], by(), to=target))
    }
    assert done[good] == ""
    assert "SQS takes text alone" in done[bad]
    assert world.letter(bad).status == "open"
    assert world.consume("sqs") == {"applied": 1}


# ── Leaving, coming, going ──


@pytest.fixture
def elsewhere(postgres: Postgres, database_template: str) -> Iterator[LetterDatabase]:
    with fresh_database(postgres, database_template) as url:
        yield LetterDatabase(url)


def test_what_is_exported_is_imported_elsewhere_once_with_its_edit(
    database: LetterDatabase, elsewhere: LetterDatabase, tmp_path: Path
) -> None:
    database.keep(
        arrival(
            order(1, currency="XXX"), name="1", headers={"fleet-reason": "unknown-currency", "fleet-detail": "XXX"}
        ),
        arrival(
            b"\xff\x00", name="2", headers={"fleet-reason": "not-utf8", "x": "y"}, envelope={"attributes": {"a": 1}}
        ),
    )
    database.edit(database.letters()[0], "data.currency=EUR")
    file = tmp_path / "letters.jsonl"
    with database.connect() as connection:
        file.write_text("".join(export_lines(connection, [letter.id for letter in database.summaries()])))
    assert file.read_text().isascii()
    for expected in ({"imported": 2, "known": 0}, {"imported": 0, "known": 2}):
        with elsewhere.connect() as connection:
            assert import_file(connection, file, by(), None) == expected
    for here, there in zip(database.letters(), elsewhere.letters(), strict=True):
        for name in ("body", "edited_body", "reason", "detail", "source_queue", "transport", "envelope", "order_id"):
            assert getattr(here, name) == getattr(there, name), name
    assert [act.act for act in elsewhere.acts(1)] == ["collected", "edited", "imported"]


def test_a_file_with_a_bad_line_is_refused_whole(database: LetterDatabase, tmp_path: Path) -> None:
    database.keep(arrival(order(1), name="1"))
    file = tmp_path / "letters.jsonl"
    with database.connect() as connection:
        good = next(export_lines(connection, [1])).replace("o-1", "o-2")
        for line, told in (
            ("{", "line 2 is no JSON"),
            ("[]", "line 2 is a list of 0: an object is needed"),
            ("{}", "line 2: format is missing"),
            (good.replace("letter/1", "letter/2"), "line 2: format is 'incentives-dead-letter/2'"),
            ('{"format": "incentives-dead-letter/1"}', "line 2: transport is missing"),
            (good.replace('"sqs"', '"post"'), "line 2: transport is 'post': known are"),
            (
                good.replace('"q"', '"\\ud800"'),
                "line 2: source_queue is '\\ud800': a text without NUL and lone surrogates",
            ),
            (good.replace('"q"', '""'), "line 2: source_queue is '': it may not be empty"),
            (good.replace('"headers":{', '"headers":7,"h":{'), "line 2: headers is 7: an object is needed"),
            (good.replace('"body":{', '"body":[],"b":{'), "line 2: body is a list of 0: an object"),
            (good.replace('"utf-8"', '"utf-9"'), "line 2: body.encoding is 'utf-9': utf-8 or hex is needed"),
            (good.replace('"utf-8","text"', '"utf-8","test"'), "line 2: body.text is missing"),
            (good.replace('"utf-8","text":"', '"hex","text":"0'), "line 2: body.text is '0{"),
            (
                good.replace('"edited_body":null', '"edited_body":{"encoding":"hex","text":"00"}'),
                "edited_body is no event",
            ),
        ):
            file.write_text(f"{good}{line}\n")
            with pytest.raises(Refused, match="bad-line") as caught:
                import_file(connection, file, by(), None)
            assert told in caught.value.detail
    assert database.count("dead_letters") == 1


def test_what_was_closed_long_ago_is_purged_and_its_trail_stays(database: LetterDatabase) -> None:
    long_ago = datetime.now(UTC) - timedelta(days=100)
    database.keep(*(arrival(order(n, currency="XXX"), name=f"m-{n}") for n in range(4)), at=long_ago)
    closed, lately, reopened, still_open = (letter.id for letter in database.summaries())
    edited = database.edit(database.letter(closed), "data.currency=EUR")
    database.discard(closed, reopened)  # on a day in May, as every act of these tests
    dlq(database.url, "discard", str(lately), "--because", "x")
    database.restore(reopened)
    assert edited.edited
    before = datetime.now(UTC) - timedelta(days=90)
    with database.connect() as connection:
        assert purging.count_closed(connection, before) == 1
        assert purging.purge(connection, before, by("bob", "retention")) == 1
        assert purging.purge(connection, before, by("bob", "retention")) == 0
    assert [letter.id for letter in database.summaries()] == [lately, reopened, still_open]
    acts = database.acts(closed)
    assert [act.act for act in acts] == ["collected", "edited", "discarded", "purged"]
    assert not any("body" in act.before for act in acts)
    with psycopg.connect(database.url) as owner:
        kept = owner.execute("SELECT count(*) FROM dead_letter_run_letters WHERE after IS NOT NULL").fetchone()
    assert kept == (0,)


def test_the_database_keeps_what_is_not_closed(database: LetterDatabase) -> None:
    database.keep(arrival(order(1)))
    with psycopg.connect(database.url, autocommit=True) as owner:
        with pytest.raises(psycopg.errors.RestrictViolation):
            owner.execute("DELETE FROM dead_letters")
        owner.execute(
            "UPDATE dead_letters SET status = 'replaying', claim_run = 1, claimed_by = 'a', claimed_at = now()"
        )
        with pytest.raises(psycopg.errors.RestrictViolation):
            owner.execute("DELETE FROM dead_letters")


def test_wrong_use_of_files_exits_2(database: LetterDatabase) -> None:
    for arguments in (["purge", "--older-than", "90d"], ["purge", "--closed"], ["export"]):
        ran = dlq(database.url, *arguments)
        assert (ran.exit_code, ran.stdout) == (2, "")


# ── Acts in the database that nobody waits for ──


def _detached_edit(database: LetterDatabase, **more: Any) -> int:
    database.keep(*(arrival(order(number, currency="EURO"), name=f"m-{number}") for number in range(3)))
    ids = [letter.id for letter in database.summaries()]
    with database.connect() as connection:
        return begin_edit(connection, ids, EditPlan(("data.currency=EUR",)), Attribution("ann", NOON, **more))


def _carry(database: LetterDatabase, stop: Stop | None = None) -> None:
    with closing(Session(database.url)) as session:
        carry_ready(session, Settings(database_url=database.url), stop or Stop())


def test_the_fleet_carries_an_edit_that_nobody_waits_for_and_its_undoing(database: LetterDatabase) -> None:
    number = _detached_edit(database)
    _carry(database)
    assert (run_of(database, number).status, run_of(database, number).done) == ("done", 3)
    assert {b'"currency":"EUR"' in letter.current_body for letter in database.letters()} == {True}
    with database.connect() as connection:
        undoing = begin_undo(connection, number, by())
    _carry(database)
    assert (run_of(database, undoing).status, run_of(database, undoing).done) == ("done", 3)
    assert {letter.edited for letter in database.summaries()} == {False}


def test_the_fleet_discards_and_opens_again_what_it_was_told_to(database: LetterDatabase) -> None:
    database.keep(*(arrival(order(number), name=f"m-{number}") for number in range(3)))
    ids = [letter.id for letter in database.summaries()]
    for act, status in (("discard", "discarded"), ("restore", "open")):
        with database.connect() as connection:
            begin_move(connection, act, ids, by(reason="noise"))
        _carry(database)
        assert {letter.status for letter in database.summaries()} == {status}


def test_a_process_that_is_told_to_stop_leaves_the_edit_to_another(database: LetterDatabase) -> None:
    number, stop = _detached_edit(database), Stop()
    stop.set()
    _carry(database, stop)
    assert (run_of(database, number).status, run_of(database, number).pending) == ("ready", 3)
    _carry(database)
    assert run_of(database, number).status == "done"


def test_an_edit_waits_for_its_approval_and_one_of_a_command_for_its_command(database: LetterDatabase) -> None:
    number = _detached_edit(database, needs_approval=True)
    with database.connect() as connection:
        ids = [letter.id for letter in database.summaries()]
        of_a_command = runs.begin(connection, "discard", ids, by(reason="noise"))
    _carry(database)
    assert [run_of(database, one).status for one in (number, of_a_command)] == ["waiting", "ready"]
    with database.connect() as connection:
        runs.approve_run(connection, number, by("ben"))
    _carry(database)
    assert [run_of(database, one).status for one in (number, of_a_command)] == ["done", "ready"]
