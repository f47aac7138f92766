"""An event of a source that its queue does not take is refused before anything is booked, by whichever way it comes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from incentive_fleet.allowed_sources import WORDS
from tests.brokers_and_workers import SOURCES, Brokers, Source
from tests.command import Ran, incentives
from tests.dead_letter_world import LetterWorld, arrival, open_letter_world, order

ALLOWED = "/shop/*, shop; delivery-completed = /courier"
NAME = "INCENTIVES_ALLOWED_SOURCES"
FACTS = ("facts", "transfers", "decisions", "outbox")


@pytest.fixture
def world(brokers: Brokers, database_url: str) -> Iterator[LetterWorld]:
    with open_letter_world(brokers, database_url, allowed_sources=ALLOWED) as world:
        yield world


def of(source: str, number: int = 1) -> bytes:
    return json.dumps(json.loads(order(number)) | {"source": source}).encode()


def booked(world: LetterWorld) -> list[int]:
    return [world.count(table) for table in FACTS]


def called(world: LetterWorld, *words: str | Path, **changed: str) -> Ran:
    return incentives(*words, env=world.environment | changed)


@pytest.mark.parametrize("source", SOURCES)
def test_a_source_that_the_queue_does_not_take_is_a_dead_letter_and_its_neighbours_are_applied(
    world: LetterWorld, source: Source
) -> None:
    world.publish(source, of("/shop/checkout", 1), of("/staging", 2), of("shop", 3))
    assert world.consume(source) == {"applied": 2, "dead-letter:source-not-allowed": 1}
    world.collect(source)
    (letter,) = world.letters(reason="source-not-allowed")
    assert letter.detail == f"source is '/staging': the queue order-placed takes '/shop/*', 'shop' alone ({NAME})"
    assert (letter.event_source, letter.order_id) == ("/staging", "o-2")
    with world.connect() as connection:
        assert {row[0] for row in connection.execute("SELECT order_id FROM facts")} == {"o-1", "o-3"}


@pytest.mark.parametrize("source", SOURCES)
def test_a_letter_is_sent_again_once_the_setting_allows_its_source(world: LetterWorld, source: Source) -> None:
    (letter,) = world.give_up(source, of("/staging"))
    effect = called(world, "dlq", "show", str(letter.id), "--effect", "--format", "json").document["effect"]
    assert (effect["verdict"], effect["good"]) == ("source-not-allowed", False)
    world.replay(letter.id)
    assert world.consume(source) == {"dead-letter:source-not-allowed": 1}
    assert world.collect(source)["returned"] == 1

    world.settings = world.settings.model_copy(update={"allowed_sources": f"{ALLOWED}; order-placed=/staging"})
    assert called(world, "dlq", "replay", "--all", "--dry-run").code == 0
    world.replay(letter.id)
    assert world.consume(source) == {"applied": 1}


def test_an_edited_letter_does_not_get_around_it(world: LetterWorld) -> None:
    """Neither by its source, nor by its type, nor when the edit is older than the setting."""
    queue = world.brokers.queue_of("rabbitmq", "delivery-completed.v1")
    body = order(1, currency="XXX")
    world.keep(arrival(body, queue=queue, transport="rabbitmq", envelope={"headers": {}, "properties": {}}))
    (letter,) = world.letters()
    edit = ("dlq", "edit", str(letter.id), "--set", "data.currency=EUR")
    for source in ("shop", "/courier", "/staging"):  # what one queue takes the other does not
        ran = called(world, *edit, "--set", f"source={source}")
        assert ran.code == 1
        assert "so nothing was saved: source-not-allowed: source is '" in ran.err
    assert world.letter(letter.id).edited_body is None

    assert called(world, *edit, **{NAME: ""}).code == 0
    ran = called(world, "dlq", "replay", "--dry-run", "--all", "--format", "json")
    assert (ran.code, ran.document["effects"][0]["verdict"]) == (1, "source-not-allowed")
    world.replay(letter.id)
    assert world.consume("rabbitmq") == {"dead-letter:source-not-allowed": 1}
    assert booked(world) == [0, 0, 0, 0]


def test_backfill_holds_each_event_against_the_queue_of_its_type(world: LetterWorld, tmp_path: Path) -> None:
    file, rejects = tmp_path / "events.jsonl", tmp_path / "rejects.jsonl"
    file.write_bytes(b"\n".join([of("/courier", 1), of("/shop/1", 2), of("/staging", 3)]))
    ran = called(world, "backfill", file, "--rejects", rejects, "--format", "json")
    assert (ran.code, ran.document["applied"]) == (0, 1)
    assert ran.document["rejected"] == {"source-not-allowed": 2}
    told = [json.loads(line) for line in rejects.read_text().splitlines()]
    assert [(one["line"], one["reason"]) for one in told] == [(1, "source-not-allowed"), (3, "source-not-allowed")]
    assert told[0]["detail"].startswith("source is '/courier': the queue order-placed takes")
    assert called(world, "backfill", file, "--strict").code == 1


@pytest.mark.parametrize("command", ["consume --from all", "backfill {file}", "dlq list", "topology check", "relay"])
def test_a_setting_that_cannot_be_read_ends_every_command(world: LetterWorld, command: str, tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    file.write_bytes(of("/shop/1"))
    ran = called(world, *command.format(file=file).split(), **{NAME: "oder-placed=/shop"})
    assert ran.code == 2
    assert ran.err == (
        f"Error: {NAME} is 'oder-placed=/shop': there is no queue 'oder-placed', but {', '.join(WORDS)}.\n"
    )
    assert booked(world) == [0, 0, 0, 0]
