"""Memory is bounded by bytes: whatever lies in the queues, a process takes no more than it has when idle, twice its budget and
three times the largest single body; and all the same every message ends as it should."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pika
import pytest

from incentive_fleet.settings import Settings
from tests.brokers_and_workers import Brokers, Source, start, start_worker
from tests.dead_letter_world import LetterDatabase
from tests.memory import MIB, PAIR, junk, largest_order, order, watched

BUDGET = 8 * MIB
EVENT = 1 * MIB
BROKER_SETTINGS = {"sqs_visibility_s": 30, "held_bytes_max": BUDGET, "event_bytes_max": EVENT}
IDLE_S = 0.5
PATIENCE_S = 240.0  # for a process to be idle; a busy machine, not a bar
PLACED = "order-placed.v1"


class MemoryWorld:
    """Both brokers, one database, and processes whose memory is watched."""

    measured: ClassVar[dict[Source, tuple[int, int]]] = {}

    def __init__(self, brokers: Brokers, database_url: str, folder: Path, **changed: Any) -> None:
        self.brokers, self.folder = brokers, folder
        self.settings: Settings = brokers.settings.model_copy(update={"database_url": database_url, **changed})
        self.database = LetterDatabase(database_url)
        self.database.load()
        self.before = 0
        self.idle_s = IDLE_S

    def send(self, source: Source, bodies: list[bytes]) -> None:
        """Past the topic, whose limits on a message's size are its own."""
        queue = self.brokers.queue_of(source, PLACED)
        if source == "sqs":
            for body in bodies:
                self.brokers.sqs.send_message(QueueUrl=self.brokers.url(queue), MessageBody=body.decode())
            return
        with self.brokers.channel() as channel:
            channel.confirm_delivery()
            for body in bodies:
                channel.basic_publish("", queue, body, pika.BasicProperties(delivery_mode=2), mandatory=True)

    def idle(self, source: Source) -> tuple[int, int]:
        """What a worker and a collector have when next to nothing was there; measured once."""
        if source not in self.measured:
            self.send(source, [order(f"idle-{source}")])
            self.measured[source] = self.consume(source), self.collect(source)
            self.before = self.database.count("facts")
        return self.measured[source]

    def consume(self, source: Source) -> int:
        """A worker until it is idle; its peak in bytes."""
        log = self.folder / "worker.log"
        return self._watch(start_worker(source, self.settings, until_idle_s=self.idle_s, log=log), log)

    def collect(self, source: Source) -> int:
        """The collector until it is idle; its peak in bytes."""
        return self.run("dlq", "collect", "--from", source, "--until-idle", str(self.idle_s))

    def run(self, *arguments: str) -> int:
        """A command until its end; its peak in bytes."""
        log = self.folder / "command.log"
        return self._watch(
            start([sys.executable, "-m", "incentive_fleet.cli.main", *arguments], self.settings, log), log
        )

    def _watch(self, process: subprocess.Popen[bytes], log: Path) -> int:
        try:
            with watched(process) as peak:
                assert process.wait(PATIENCE_S) == 0, log.read_text()
        finally:
            process.kill()
            process.wait()
        return peak.bytes

    def applied(self) -> int:
        return self.database.count("facts") - self.before


@pytest.fixture(scope="module")
def brokers(brokers: Brokers, rabbitmq: Any) -> Brokers:
    """Read with the management API, which alone knows what is on its way to us."""
    brokers.settings = brokers.settings.model_copy(update={"rabbitmq_management_url": rabbitmq.management_url})
    return brokers


@pytest.fixture
def memory_world(brokers: Brokers, database_url: str, tmp_path: Path) -> MemoryWorld:
    return MemoryWorld(brokers, database_url, tmp_path)


def within(peak: int, idle: int, budget: int, largest: int) -> None:
    bar = idle + 2 * budget + 3 * largest
    told = f"{peak / MIB:.0f} MiB; idle {idle / MIB:.0f}, budget {budget / MIB:.0f}, largest {largest / MIB:.1f}"
    assert peak <= bar, told


def test_huge_bodies_are_dead_letters_undecoded_and_kept_once(memory_world: MemoryWorld) -> None:
    idle, idle_collector = memory_world.idle("rabbitmq")
    bodies = [junk(number, 12 * MIB) for number in range(8)]
    memory_world.send("rabbitmq", [*bodies, *(order(number) for number in range(20))])
    within(memory_world.consume("rabbitmq"), idle, BUDGET, 12 * MIB)
    assert memory_world.applied() == 20
    within(memory_world.collect("rabbitmq"), idle_collector, BUDGET, 12 * MIB)
    letters = memory_world.database.letters()
    assert [letter.body for letter in letters] == bodies
    assert {(letter.reason, letter.times_seen) for letter in letters} == {("too-large", 1)}
    assert "more than 1048576" in letters[0].detail


def test_large_events_and_junk_of_every_size_are_worked_through_within_the_budget(memory_world: MemoryWorld) -> None:
    idle, idle_collector = memory_world.idle("rabbitmq")
    good = [
        order("much", lines=2_000),
        order("wide", lines=120, text=PAIR * 200),
        *(order(f"medium-{n}", lines=150, text="abc" * 66) for n in range(30)),
        *(order(f"small-{n}") for n in range(200)),
    ]
    bad = [
        *(junk(number, MIB // 4) for number in range(100)),  # decoded, and no event
        *(junk(number, 3 * MIB) for number in range(10)),
        # Forty and ten times their size once parsed: unknown fields of nothing but brackets, and one wide character.
        *(order(f"brackets-{n}", extra=f'"x":[{"[]," * 300_000}[]]') for n in range(5)),
        *(order(f"wide-{n}", extra=f'"x":"{"y" * (MIB - 2_000)}{PAIR}","x":0') for n in range(5)),
    ]
    mixed = [*good, *bad]
    random.Random(9).shuffle(mixed)
    memory_world.send("rabbitmq", mixed)
    within(memory_world.consume("rabbitmq"), idle, BUDGET, 3 * MIB)
    within(memory_world.collect("rabbitmq"), idle_collector, BUDGET, 3 * MIB)
    assert memory_world.applied() == len(good)
    letters = memory_world.database.letters()
    assert {letter.body for letter in letters} == set(bad)
    reasons = [letter.reason for letter in letters]
    assert {reason: reasons.count(reason) for reason in sorted(set(reasons))} == {
        "not-json": 100,
        "repeated-name": 5,
        "too-large": 10,
        "too-many-values": 5,
    }


def test_sqs_is_asked_for_no_more_than_there_is_room_for(memory_world: MemoryWorld) -> None:
    size = 250_000
    idle, idle_collector = memory_world.idle("sqs")
    bodies = [junk(number, size) for number in range(120)]
    memory_world.send("sqs", [*bodies, *(order(f"after-{number}") for number in range(10))])
    within(memory_world.consume("sqs"), idle, BUDGET, size)
    within(memory_world.collect("sqs"), idle_collector, BUDGET, size)
    assert memory_world.applied() == 10
    assert {letter.body for letter in memory_world.database.letters()} == set(bodies)


@pytest.mark.chaos
@pytest.mark.parametrize("mix", ["huge", "largest", "medium", "all"])
def test_the_worst_mixes_at_the_default_budget(memory_world: MemoryWorld, mix: str, say: Callable[[str], None]) -> None:
    """The table of docs/recovery.md: peak of a worker, of the collector, of a replay and of a backfill."""
    bounds = Settings().model_dump(include={"held_bytes_max", "event_bytes_max"})
    memory_world.settings = memory_world.settings.model_copy(update=bounds)
    memory_world.idle_s = 8.0  # RabbitMQ reads hundreds of MiB before it sends the first, and counts every 5 s
    idle, idle_collector = memory_world.idle("rabbitmq")
    huge = [junk(number, 100 * MIB) for number in range(5)]
    largest = [largest_order(f"{mix}-{number}") for number in range(30)]
    medium = [junk(number, 200_000) for number in range(1_000)]
    good = [order(f"{mix}-small-{number}") for number in range(100)]
    sent = {"huge": huge, "largest": largest, "medium": medium, "all": [*huge, *largest[:10], *medium[:500]]}[mix]
    memory_world.send("rabbitmq", [*sent[::2], *good, *sent[1::2]])
    biggest = max(map(len, sent))
    bad = [body for body in sent if body.startswith(b"junk")]
    worker = memory_world.consume("rabbitmq")
    assert memory_world.applied() == len(good) + len(sent) - len(bad)
    collector = memory_world.collect("rabbitmq")
    budget = memory_world.settings.held_bytes_max
    for name, peak, at_rest in (("worker", worker, idle), ("collector", collector, idle_collector)):
        say(f"{mix}: {name} {peak / MIB:.0f} MiB, idle {at_rest / MIB:.0f}, largest body {biggest / MIB:.1f}")
    within(worker, idle, budget, biggest)
    within(collector, idle_collector, budget, biggest)
    numbers = {letter.id: letter.size for letter in memory_world.database.summaries()}
    assert sorted(numbers.values()) == sorted(map(len, bad))
    replay = memory_world.run("dlq", "replay", *map(str, list(numbers)[:5]), "--yes") if numbers else idle
    say(f"{mix}: replay {replay / MIB:.0f} MiB")
    within(replay, idle, budget, biggest)
    memory_world.consume("rabbitmq")  # what was replayed comes back as it was
    memory_world.collect("rabbitmq")
    assert sorted(letter.size for letter in memory_world.database.summaries()) == sorted(map(len, bad))
