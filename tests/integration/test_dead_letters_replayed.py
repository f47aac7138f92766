"""Rehearsal, edit and replay: what would happen is what happens, and each letter is sent once in effect."""

from __future__ import annotations

import signal
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from incentive_fleet.brokers.contract import Sender
from incentive_fleet.brokers.messages import Outgoing
from incentive_fleet.dead_letters import replay as replaying
from incentive_fleet.errors import Malformed, Refused
from incentive_fleet.ledger.session import Session
from tests.brokers_and_workers import SOURCES, Brokers, Source, start
from tests.dead_letter_world import LetterDatabase, LetterWorld, arrival, by, open_letter_world, order, refund
from tests.shop import balances, faults

BROKER_SETTINGS = {"sqs_visibility_s": 1}

BAD = order(1, currency="XXX")
REPLAY = [sys.executable, "-m", "incentive_fleet.cli.main", "dlq", "replay", "--all", "--yes"]


@pytest.fixture
def world(brokers: Brokers, database_url: str) -> Iterator[LetterWorld]:
    with open_letter_world(brokers, database_url) as world:
        yield world


@pytest.fixture
def database(database_url: str) -> LetterDatabase:
    return LetterDatabase.loaded(database_url)


def copies(*bodies: bytes) -> list[Any]:
    return [arrival(body, name=f"m-{number}") for number, body in enumerate(bodies)]


def stock(world: LetterWorld, source: Source, count: int) -> list[int]:
    """Good events in the database as dead letters of the broker's real queue, as after an outage."""
    queue = world.brokers.queue_of(source, "order-placed.v1")
    envelope: dict[str, Any] = {"attributes": {}} if source == "sqs" else {"headers": {}, "properties": {}}
    for number in range(count):
        world.keep(arrival(order(number), name=f"m-{number}", queue=queue, transport=source, envelope=envelope))
    return [letter.id for letter in world.letters()]


# ── Rehearsal ──


def test_a_rehearsal_tells_what_a_replay_would_book_and_books_nothing(database: LetterDatabase) -> None:
    database.keep(*copies(order(1), refund(7), order(2, currency="XXX"), order(1, customer_id="someone-else")))
    new, waiting, malformed, conflict = database.rehearse(*database.letters())
    assert (new.verdict, new.good, new.sentence) == ("applied", True, "2 transfers")
    assert [(one["kind"], one["amount"]) for one in new.transfers] == [("coupon", 100), ("earn", 90)]
    assert waiting.sentence == "0 transfers: would wait for its order o-7"
    assert (malformed.verdict, malformed.good) == ("unknown-currency", False)
    assert (conflict.verdict, conflict.good, conflict.transfers) == ("conflict", False, [])
    assert (database.count("facts"), database.count("transfers"), database.count("outbox")) == (
        0,
        0,
        0,
    )


def test_a_rehearsal_of_what_was_applied_books_nothing_and_one_that_differs_says_where(
    database: LetterDatabase,
) -> None:
    from incentive_fleet.events.codec import decode
    from incentive_fleet.ledger.batch import apply_events

    session = Session(database.url)
    apply_events(session, [decode(order(1))])
    session.close()
    database.keep(*copies(order(1), order(1, customer_id="someone-else")))
    effect, conflict = database.rehearse(*database.letters())
    assert (effect.verdict, effect.sentence) == ("duplicate", "0 transfers: already applied")
    assert conflict.verdict == "conflict"
    assert '-  "customer_id": "c-1",' in conflict.difference
    assert '+  "customer_id": "someone-else",' in conflict.difference


def test_letters_are_rehearsed_one_after_the_other(database: LetterDatabase) -> None:
    """A refund beside its placing reverses it, and a placing wakes the refund that waits in the ledger."""
    database.keep(*copies(order(1), refund(1)))
    first, second = database.rehearse(*database.letters())
    assert [one["kind"] for one in first.transfers] == ["coupon", "earn"]
    assert [one["kind"] for one in second.transfers] == ["coupon_reversal", "earn_cancel"]
    assert database.rehearse(*reversed(database.letters()))[0].verdict == "waiting"


def test_a_bug_met_in_a_rehearsal_is_named_and_spares_the_others(database: LetterDatabase) -> None:
    database.keep(*copies(order(1), refund(7)))
    with psycopg.connect(database.url, autocommit=True) as owner:  # only a placing writes a decision
        owner.execute("ALTER TABLE decisions ADD CONSTRAINT a_bug CHECK (order_id <> 'o-1')")
    broken, waiting = database.rehearse(*database.letters())
    assert broken.verdict == "unexpected-error"
    assert "CheckViolation" in broken.sentence
    assert waiting.verdict == "waiting"


# ── Edit and replay ──


@pytest.mark.parametrize("source", SOURCES)
def test_an_edited_replay_books_what_its_rehearsal_said(world: LetterWorld, source: Source) -> None:
    (letter,) = world.give_up(source, BAD)
    edited = world.edit(letter, "data.currency=EUR")
    assert edited.body == BAD
    (effect,) = world.rehearse(edited)
    (done,) = world.replay(letter.id)
    assert (done.status, done.refused) == ("replayed", "")
    assert world.consume(source)["applied"] == 1
    with psycopg.connect(world.url) as owner:
        booked = owner.execute("SELECT kind, amount, debit_account FROM transfers ORDER BY transfer_id").fetchall()
    assert booked == [(one["kind"], one["amount"], one["debit_account"]) for one in effect.transfers]
    assert world.letter(letter.id).status == "replayed"
    assert [act.act for act in world.acts(letter.id)] == ["collected", "edited", "claimed", "sent"]
    assert faults(world.url) == {}


@pytest.mark.parametrize(("source", "last_life"), [("sqs", 2), ("rabbitmq", 3)])
def test_a_replay_that_fails_again_is_the_same_letter_in_its_next_life(
    world: LetterWorld, source: Source, last_life: int
) -> None:
    (letter,) = world.give_up(source, BAD)
    for life in range(2, last_life + 1):
        world.replay(letter.id)
        world.consume(source)
        assert world.collect(source) == {"returned": 1}
        (now,) = world.letters()
        assert (now.id, now.status, now.life, now.replays) == (letter.id, "open", life, life - 1)


def test_a_third_replay_of_one_body_needs_force(world: LetterWorld) -> None:
    (letter,) = world.give_up("rabbitmq", BAD)
    for _ in range(2):
        world.replay(letter.id)
        world.consume("rabbitmq")
        world.collect("rabbitmq")
    (refused,) = world.replay(letter.id)
    assert "after 2 replays of this very body" in refused.refused
    assert world.waiting("rabbitmq") == 0
    (forced,) = world.replay(letter.id, force=True)
    assert forced.refused == ""
    assert world.waiting("rabbitmq") == 1


def test_an_edit_makes_a_third_replay_welcome(world: LetterWorld) -> None:
    (letter,) = world.give_up("rabbitmq", BAD)
    for _ in range(2):
        world.replay(letter.id)
        world.consume("rabbitmq")
        world.collect("rabbitmq")
    world.edit(world.letter(letter.id), "data.currency=EUR")
    (done,) = world.replay(letter.id)
    assert done.refused == ""
    assert world.consume("rabbitmq")["applied"] == 1


def test_an_edited_replay_that_fails_again_names_its_earlier_life(world: LetterWorld) -> None:
    applied, other = order(1), order(1, customer_id="someone-else", currency="XXX")
    (letter,) = world.give_up("rabbitmq", applied, other)
    world.edit(letter, "data.currency=EUR")  # valid now, and a conflict with what was applied
    world.replay(letter.id)
    world.consume("rabbitmq")
    world.collect("rabbitmq")
    earlier, later = world.letters()
    assert (earlier.id, earlier.status) == (letter.id, "replayed")
    assert (later.earlier_id, later.life, later.reason, later.status) == (letter.id, 2, "conflict", "open")
    assert [act.act for act in world.acts(letter.id)][-1] == "returned"
    world.replay(later.id)
    world.consume("rabbitmq")
    world.collect("rabbitmq")
    (refused,) = world.replay(later.id)
    assert "after 2 replays" in refused.refused  # the earlier letter's replay of this body counts


def test_a_replay_carries_the_sender_s_headers_and_none_of_ours(world: LetterWorld) -> None:
    (letter,) = world.give_up("sqs", BAD)
    world.replay(letter.id)
    url = world.brokers.url(letter.source_queue)
    (message,) = world.brokers.sqs.receive_message(
        QueueUrl=url, MessageAttributeNames=["All"], WaitTimeSeconds=2, VisibilityTimeout=0
    )["Messages"]
    assert {name: value["StringValue"] for name, value in message["MessageAttributes"].items()} == {
        "type": "order-placed.v1",
        "fleet-replay": f"{letter.id}.1",
    }


@pytest.mark.parametrize("source", SOURCES)
def test_replayed_twice_is_processed_once(world: LetterWorld, source: Source) -> None:
    """ServiceControl 4797: replay twice = processed twice."""
    (number,) = stock(world, source, 1)
    world.replay(number)
    world.restore(number)
    world.replay(number)
    assert world.waiting(source) == 2
    counts = world.consume(source)
    assert (counts["applied"], counts["duplicate"]) == (1, 1)
    assert world.count("transfers") == 2
    assert world.collect(source) == {}


# ── Claims ──


@pytest.mark.parametrize("source", SOURCES)
def test_two_operators_at_once_send_each_letter_once(world: LetterWorld, source: Source) -> None:
    ids = stock(world, source, 120)
    operators = [start([*REPLAY, "--actor", name], world.settings) for name in ("ann", "bob")]
    assert all(operator.wait(60) in (0, 1) for operator in operators)
    assert {letter.status for letter in world.letters()} == {"replayed"}
    assert world.waiting(source) == len(ids)
    sent = [act.dead_letter_id for act in world.acts() if act.act == "sent"]
    assert Counter(sent) == Counter(ids)
    assert world.consume(source) == {"applied": len(ids)}


def test_a_claim_that_lives_is_respected(world: LetterWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    (number,) = stock(world, "rabbitmq", 1)
    claimed, go_on = threading.Event(), threading.Event()
    opened = replaying.open_sender

    class Slow:
        def __init__(self, sender: Sender) -> None:
            self.sender = sender
            self.close = sender.close

        def send(self, messages: list[Outgoing]) -> list[str]:
            claimed.set()
            assert go_on.wait(30)
            return self.sender.send(messages)

    monkeypatch.setattr(replaying, "open_sender", lambda *about: Slow(opened(*about)))
    first = threading.Thread(target=world.replay, args=(number,))
    first.start()
    try:
        assert claimed.wait(30)
        (done,) = world.replay(number, actor="bob")
        assert done.refused.startswith("ann is replaying it since")
        with pytest.raises(Refused):
            world.edit(world.letter(number), "data.currency=USD")
        assert world.discard(number)[0].refused == "it is replaying, so it cannot be discarded"
    finally:
        go_on.set()
        first.join()
    assert world.letter(number).status == "replayed"
    assert world.waiting("rabbitmq") == 1


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("step", ["replay-after-claim", "replay-after-send"])
def test_a_replay_that_dies_is_taken_up_and_has_one_effect(world: LetterWorld, source: Source, step: str) -> None:
    ids = stock(world, source, 5)
    dying = start(REPLAY, world.settings, INCENTIVES_TEST_FAULT=step)
    assert dying.wait(60) == -signal.SIGKILL
    assert {letter.status for letter in world.letters()} == {"replaying"}
    done = world.replay(*ids, actor="bob")
    assert {(one.status, one.refused) for one in done} == {("replayed", "")}
    assert {letter.replays for letter in world.letters()} == {1}
    counts = world.consume(source)
    assert counts["applied"] == len(ids)
    assert counts["duplicate"] == (len(ids) if step == "replay-after-send" else 0)
    assert balances(world.url)["campaign:k|EUR"] == 100 * len(ids)
    assert world.collect(source) == {}


def test_a_replay_sent_twice_by_a_crash_that_fails_is_one_letter_with_one_more_life(world: LetterWorld) -> None:
    (letter,) = world.give_up("rabbitmq", BAD)
    dying = start(REPLAY, world.settings, INCENTIVES_TEST_FAULT="replay-after-send")
    assert dying.wait(60) == -signal.SIGKILL
    world.replay(letter.id)
    assert world.consume("rabbitmq") == {"dead-letter:unknown-currency": 2}
    world.collect("rabbitmq")
    (now,) = world.letters()
    assert (now.life, now.replays, now.same_body_replays, now.status) == (2, 1, 1, "open")


def test_what_comes_back_before_the_crashed_replay_is_taken_up_is_open(world: LetterWorld) -> None:
    (letter,) = world.give_up("rabbitmq", BAD)
    assert start(REPLAY, world.settings, INCENTIVES_TEST_FAULT="replay-after-send").wait(60) == -signal.SIGKILL
    world.consume("rabbitmq")
    assert world.collect("rabbitmq") == {"returned": 1}
    assert world.letter(letter.id).status == "open"


# ── What goes wrong ──


def test_a_broker_that_is_away_leaves_the_letters_open_and_says_so(world: LetterWorld) -> None:
    ids = stock(world, "rabbitmq", 60)
    away = world.settings.model_copy(update={"rabbitmq_url": "amqp://guest:guest@127.0.0.1:9/"})
    done = world.replay(*ids, settings=away)
    assert len(done) == 50, "the second chunk is not tried"
    assert all("RabbitMQ" in one.refused for one in done)
    assert {(letter.status, letter.replays) for letter in world.letters()} == {("open", 0)}
    assert [act.act for act in world.acts(ids[0])] == ["collected", "claimed", "not-sent"]


def test_a_queue_that_is_missing_leaves_its_letter_open_and_sends_the_others(world: LetterWorld) -> None:
    (number,) = stock(world, "rabbitmq", 1)
    envelope: dict[str, Any] = {"headers": {}, "properties": {}}
    world.keep(arrival(order(9), name="m-9", queue="nowhere", transport="rabbitmq", envelope=envelope))
    lost = world.letters()[-1]
    done = {one.id: one for one in world.replay(number, lost.id)}
    assert done[number].refused == ""
    assert "'nowhere'" in done[lost.id].refused
    assert world.letter(lost.id).status == "open"


def test_a_replay_of_what_is_closed_or_unknown_is_refused(world: LetterWorld) -> None:
    first, second = stock(world, "rabbitmq", 2)
    world.discard(first)
    world.replay(second)
    done = {one.id: one.refused for one in world.replay(first, second, 999)}
    assert done[first] == "it is discarded already; restore it first"
    assert done[second].startswith("it is replayed already")
    assert done[999] == "there is no dead letter 999"
    assert world.waiting("rabbitmq") == 1


# ── Edit, discard, restore, audit ──


def test_only_a_valid_event_is_saved_and_the_original_stays(database: LetterDatabase) -> None:
    database.keep(*copies(BAD))
    (letter,) = database.letters()
    with pytest.raises(Malformed, match="GBQ"):
        database.edit(letter, "data.currency=GBQ")
    assert database.letter(letter.id).edited_body is None
    edited = database.edit(letter, "data.currency=EUR", "data.customer_id=c-2")
    assert (edited.customer_id, database.letters(customer="c-2")[0].id) == ("c-2", letter.id)
    with pytest.raises(Refused, match="changed-meanwhile"):
        database.edit(letter, "data.currency=USD")
    with pytest.raises(psycopg.errors.InsufficientPrivilege), database.connect() as connection:
        connection.execute("UPDATE dead_letters SET body = ''")
    with pytest.raises(psycopg.errors.RestrictViolation), psycopg.connect(database.url) as owner:
        owner.execute("UPDATE dead_letters SET body = ''")


@pytest.mark.parametrize("statement", ["UPDATE {} SET actor = 'x'", "DELETE FROM {}", "TRUNCATE {}"])
def test_the_audit_trail_only_grows(database: LetterDatabase, statement: str) -> None:
    database.keep(*copies(BAD))
    text = statement.format("dead_letter_audit")
    with pytest.raises(psycopg.errors.InsufficientPrivilege), database.connect() as connection:
        connection.execute(text)
    with pytest.raises(psycopg.errors.RestrictViolation), psycopg.connect(database.url) as owner:
        owner.execute(text)
    assert database.count("dead_letter_audit") == 1


def test_every_act_says_who_when_why_before_and_after(database: LetterDatabase) -> None:
    database.keep(*copies(BAD))
    (letter,) = database.letters()
    database.edit(letter, "data.currency=EUR")
    database.discard(letter.id, reason="test data")
    database.restore(letter.id)
    _, edited, discarded, restored = database.acts(letter.id)
    assert "XXX" in edited.before["body"]
    assert "EUR" in edited.after["body"]
    assert (discarded.actor, discarded.acted_at, discarded.reason) == ("ann", by().at, "test data")
    assert (discarded.before["status"], discarded.after["status"]) == ("open", "discarded")
    assert (restored.before["status"], restored.after["status"]) == ("discarded", "open")


def test_a_discard_needs_a_reason(database: LetterDatabase) -> None:
    database.keep(*copies(BAD))
    with pytest.raises(Refused, match="reason-missing"):
        database.discard(database.letters()[0].id, reason=" ")


# What a file that is imported may say of a message beside its body.
ENVELOPES: dict[Source, list[dict[str, Any]]] = {
    "sqs": [
        {"attributes": {"x": {}}},
        {"attributes": [1]},
        {"attributes": {"x": None, "y": {"type": 5, "text": 5}}},
        {"attributes": {"x": {"type": "Binary", "base64": "!"}}},
    ],
    "rabbitmq": [{"wire": "!"}, {"properties": {"nope": 1}}, {"headers": [1]}, {"headers": {"n" * 300: 1}}],
}


@pytest.mark.parametrize("source", SOURCES)
def test_a_letter_that_no_broker_can_take_as_it_is_keeps_no_other_from_being_sent(
    source: Source, world: LetterWorld
) -> None:
    queue = world.brokers.queue_of(source, "order-placed.v1")
    nowhere = ["nowhere", "n" * 300, "no queue \u202e/.."]
    odd = [
        arrival(order(f"e{n}"), queue=queue, transport=source, envelope=one) for n, one in enumerate(ENVELOPES[source])
    ]
    lost = [arrival(order(f"l{n}"), queue=name, transport=source) for n, name in enumerate(nowhere)]
    world.keep(*odd, *lost, arrival(order("good"), queue=queue, transport=source, envelope={}))
    done = world.replay(*(letter.id for letter in world.summaries()))
    assert ["has no queue" in one.refused for one in done] == [False] * len(odd) + [True] * len(lost) + [False]
    assert [one.refused for one in (*done[: len(odd)], done[-1])] == [""] * (len(odd) + 1)
    assert world.consume(source)["applied"] == len(odd) + 1
    assert [letter.status for letter in world.summaries()] == ["replayed"] * len(odd) + ["open"] * len(lost) + [
        "replayed"
    ]
