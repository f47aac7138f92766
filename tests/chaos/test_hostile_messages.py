"""Nothing that a sender can write stops, slows or kills what is not its own: through the real brokers, the fleet as an
operator runs it, the collector and the replay. CHAOS_SEED changes the long run.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from incentive_fleet.brokers.messages import DeadLetter, Failure, Retry
from incentive_fleet.brokers.rabbitmq.transport import RabbitMQTransport
from incentive_fleet.dead_letters import store
from incentive_fleet.embedded import sample_shop
from tests.amqp import RawConnection
from tests.brokers_and_workers import Brokers, Source, environment_of, log_of
from tests.chaos.hostile import Hostile, attributes, messages
from tests.contract.brokers_under_test import collect
from tests.dead_letter_world import LetterWorld
from tests.shop import balances, calm_balances, faults, open_shop

BROKER_SETTINGS = {"sqs_visibility_s": 30, "drain_s": 30}

SEED = int(os.environ.get("CHAOS_SEED", "20260401"))
WINDOW = 50


@pytest.fixture
def world(brokers: Brokers, database_url: str) -> LetterWorld:
    return LetterWorld(database_url, brokers.settings.model_copy(update={"database_url": database_url}), brokers)


def publish(url: str, queue: str, hostile: Sequence[Hostile]) -> list[Hostile]:
    """Those that RabbitMQ takes. What it refuses closes the connection, and is told apart by being sent alone; what had
    been taken before is then sent again, as senders do."""
    taken: list[Hostile] = []
    windows = [list(hostile[start : start + WINDOW]) for start in range(0, len(hostile), WINDOW)]
    connection = RawConnection(url)
    while windows:
        window = windows.pop(0)
        try:
            connection.publish([(queue, one.properties, one.body) for one in window])
            taken += window
        except (AssertionError, OSError):
            connection.close()
            connection = RawConnection(url)
            if len(window) > 1:
                half = len(window) // 2
                windows[:0] = [window[:half], window[half:]]
    connection.close()
    return taken


def send(brokers: Brokers, url: str, chance: random.Random, bodies: Sequence[str]) -> list[str]:
    """Those that SQS takes."""
    taken: list[str] = []
    for body in bodies:
        try:
            brokers.sqs.send_message(QueueUrl=url, MessageBody=body, MessageAttributes=attributes(chance, body))
            taken.append(body)
        except brokers.sqs.exceptions.ClientError:
            brokers.sqs.send_message(QueueUrl=url, MessageBody=body)
            taken.append(body)
    return taken


def consume(world: LetterWorld, source: Source, log: Path) -> dict[str, int]:
    """`incentives consume`, which collects as well, until nothing is left; its counts."""
    command = [sys.executable, "-m", "incentive_fleet.cli.main", "consume", "--from", source, "--processes", "2"]
    with open(log, "ab") as errors:
        done = subprocess.run(
            [*command, "--until-idle", "2", "--format", "json"],
            env=environment_of(world.settings),
            stdout=subprocess.PIPE,
            stderr=errors,
            timeout=900,
            check=False,
        )
    assert done.returncode == 0, log.read_text()[-3_000:]
    found: dict[str, int] = json.loads(done.stdout)["counts"]
    return found


def digests(bodies: Iterable[bytes]) -> list[bytes]:
    return sorted(sha256(body).digest() for body in bodies)


def named(kept: Iterable[Any]) -> list[bytes]:
    return sorted(letter.current_sha256 for letter in kept)


def letters(world: LetterWorld) -> list[Any]:
    """All of them, without their bodies."""
    with world.connect() as connection:
        return store.list_letters(connection, store.Filters(), limit=10_000)


def troubles(log: Path) -> list[dict[str, Any]]:
    """What must not have happened, whatever the messages."""
    return [line for line in log_of(log) if line["level"] in ("error", "critical") or line["message"] == "worker died"]


def judge(world: LetterWorld, source: Source, log: Path, good: list[bytes], bad: Sequence[bytes], life: int) -> None:
    assert troubles(log) == []
    kept = letters(world)
    assert named(kept) == digests(bad)
    assert {(letter.reason, letter.status, letter.life) for letter in kept} == {("not-json", "open", life)}
    assert world.waiting(source) == 0
    ended = balances(world.url)
    assert calm_balances(world.url, good) == ended
    assert faults(world.url) == {}


def run_rabbitmq(world: LetterWorld, log: Path, orders: int, count: int) -> None:
    shop = sample_shop.Shop(orders, seed=SEED)
    open_shop(world.url, shop)
    good = [body for _, body in sample_shop.events(shop)]
    hostile = messages(random.Random(SEED), good, count - len(good))
    queue = world.brokers.queue_of("rabbitmq", "order-placed.v1")
    taken = publish(world.settings.need_rabbitmq_url(), queue, hostile)
    assert len(taken) > 0.8 * len(hostile), "RabbitMQ takes most of it"
    applied = [one.body for one in taken if one.good]
    bad = [one.body for one in taken if not one.good]
    counts = consume(world, "rabbitmq", log)
    judge(world, "rabbitmq", log, applied, bad, life=1)
    assert counts["dead-letter:not-json"] == sum(letter.times_seen for letter in letters(world)), (
        "what was counted is there"
    )
    done = world.replay(*(letter.id for letter in letters(world)))
    assert [one for one in done if one.refused] == []
    assert consume(world, "rabbitmq", log)["dead-letter:not-json"] == len(bad)
    judge(world, "rabbitmq", log, applied, bad, life=2)


def run_sqs(world: LetterWorld, log: Path, orders: int, count: int) -> None:
    shop = sample_shop.Shop(orders, seed=SEED)
    open_shop(world.url, shop)
    good = [body for _, body in sample_shop.events(shop)]
    chance = random.Random(SEED)
    bodies = [body.decode() for body in good] + [f"{{ not json {number}" for number in range(count - len(good))]
    chance.shuffle(bodies)
    taken = send(world.brokers, world.brokers.url(world.brokers.queue_of("sqs", "order-placed.v1")), chance, bodies)
    bad = [body.encode() for body in taken if body.startswith("{ not json")]
    counts = consume(world, "sqs", log)
    judge(world, "sqs", log, good, bad, life=1)
    assert counts["dead-letter:not-json"] == len(bad)
    done = world.replay(*(letter.id for letter in letters(world)))
    assert [one for one in done if one.refused] == []
    consume(world, "sqs", log)
    judge(world, "sqs", log, good, bad, life=2)


RUNS: dict[Source, Callable[[LetterWorld, Path, int, int], None]] = {"rabbitmq": run_rabbitmq, "sqs": run_sqs}


@pytest.mark.parametrize("source", RUNS)
def test_hostile_messages_are_applied_or_dead_letters_and_nothing_else(
    source: Source, world: LetterWorld, tmp_path: Path
) -> None:
    RUNS[source](world, tmp_path / "log", 40, 300 if source == "rabbitmq" else 200)


def test_what_a_sender_puts_straight_into_the_dead_letters_is_kept_and_sent_again(
    world: LetterWorld, tmp_path: Path
) -> None:
    shop = sample_shop.Shop(10, seed=SEED)
    open_shop(world.url, shop)
    hostile = messages(random.Random(SEED + 1), [body for _, body in sample_shop.events(shop)], 60)
    queue = world.brokers.queues["rabbitmq"][0].dead_letters
    taken = publish(world.settings.need_rabbitmq_url(), queue, hostile)
    assert world.collect("rabbitmq") == {"new": len(taken)}
    assert named(letters(world)) == digests(one.body for one in taken)
    done = world.replay(*(letter.id for letter in letters(world)))
    assert [one for one in done if one.refused] == []
    bad = [one.body for one in taken if not one.good]
    assert consume(world, "rabbitmq", tmp_path / "log")["dead-letter:not-json"] == len(bad)
    assert troubles(tmp_path / "log") == []
    came_back = [letter for letter in letters(world) if letter.status == "open"]
    assert named(came_back) == digests(bad)
    assert {(letter.reason, letter.life) for letter in came_back} == {("not-json", 2)}
    ended = balances(world.url)
    assert calm_balances(world.url, [one.body for one in taken if one.good]) == ended


def test_hostile_messages_go_through_the_retry_queues_with_their_count(world: LetterWorld) -> None:
    hostile = messages(random.Random(SEED + 2), [], 60)
    queue = world.brokers.queue_of("rabbitmq", "order-placed.v1")
    taken = publish(world.settings.need_rabbitmq_url(), queue, hostile)
    now = datetime.now(UTC)
    met = Failure(2, "a.Bug", "\u20ac" * 2_000, "t" * 9_000, now, now, "host")
    transport = RabbitMQTransport(world.settings)
    first = collect(transport, len(taken))
    transport.settle([(delivery, Retry(1.0, met)) for delivery in first])
    second = collect(transport, len(taken))
    assert sorted(delivery.body for delivery in second) == sorted(one.body for one in taken)
    assert {delivery.failure.attempts if delivery.failure else 0 for delivery in second} == {2}
    counted: list[bytes] = []
    transport.settle(
        [(delivery, DeadLetter("unexpected-error", "d")) for delivery in second],
        on_taken=lambda delivery, _: counted.append(delivery.body),
    )
    transport.close()
    assert sorted(counted) == sorted(one.body for one in taken)
    assert world.collect("rabbitmq") == {"new": len(taken)}
    kept = world.letters()
    assert {letter.reason for letter in kept} == {"unexpected-error"}
    assert {letter.failure["attempts"] if letter.failure else 0 for letter in kept} == {2}


@pytest.mark.chaos
@pytest.mark.parametrize("source", RUNS)
def test_ten_thousand_hostile_messages(source: Source, world: LetterWorld, tmp_path: Path) -> None:
    RUNS[source](world, tmp_path / "log", 1_500, 10_000 if source == "rabbitmq" else 6_000)
