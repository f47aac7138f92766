"""A fleet whose workers are killed by -9 again and again while a stream goes through it.

The moment of a kill is a number of facts that are stored, never a time: a slow machine is hurt as often as a quick one.
"""

from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from incentive_fleet.settings import Settings
from tests.brokers_and_workers import Brokers, Source
from tests.chaos.faults import PROGRAM, Fleet
from tests.contract.brokers_under_test import eventually

CHUNK = 50  # messages published at a time
STORED_WITHIN_S = 240.0
POWER_CUT_EVERY = 3  # kills; a supervisor waits longer after each death in a row, and after ten of them gives up


@dataclass(slots=True)
class Killed:
    """A fleet of two workers on these brokers, and how many of them died."""

    brokers: Brokers
    sources: Sequence[Source]
    settings: Settings
    log: Path
    chance: random.Random
    kills: int = 0
    fleet: Fleet = field(init=False)

    def __post_init__(self) -> None:
        source = self.sources[0] if len(self.sources) == 1 else "all"
        command = (*PROGRAM, "consume", "--from", source, "--processes", "2")
        self.fleet = Fleet(self.settings, self.log, command=command)

    def kill(self) -> None:
        """One process that the supervisor watches over, whatever it is at; now and then all of them and the supervisor."""
        if self.kills % POWER_CUT_EVERY == POWER_CUT_EVERY - 1:
            self.clear_away()
            self.fleet.start()
            self.kills += 1
            return
        victim = self.chance.choice(eventually(self.fleet.workers))
        with suppress(ProcessLookupError):  # it was replaced a moment ago
            os.kill(victim, signal.SIGKILL)
            self.kills += 1

    def come_to_rest(self) -> None:
        """Drain, and let another fleet find what is left, which is nothing but repeats."""
        assert self.fleet.end(signal.SIGTERM) == 0
        self.fleet.start(
            "--until-idle", f"{self.settings.sqs_visibility_s + 0.5:g}"
        )  # SQS hid what killed workers held
        assert self.fleet.running().wait(STORED_WITHIN_S) == 0

    def clear_away(self) -> None:
        """Leave no process behind."""
        process = self.fleet.process
        if process is not None and process.poll() is None:
            orphans = self.fleet.workers()
            process.kill()
            process.wait()
            for pid in orphans:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def play_killing(killed: Killed, bodies: list[bytes], kills: int) -> None:
    """Publish the stream shuffled, a fifth of it twice, each message by any of the brokers; kill so often on the way."""
    stream = bodies + killed.chance.sample(bodies, len(bodies) // 5)
    killed.chance.shuffle(stream)
    problems: list[BaseException] = []
    sender = threading.Thread(target=_send, args=(killed, stream, random.Random(kills), problems), name="sender")
    killed.fleet.start()
    try:
        sender.start()
        for number in range(1, kills + 1):
            _until_stored(killed, len(bodies) * number // (kills + 1), problems)
            killed.kill()
        _until_stored(killed, len(bodies), problems)
        sender.join()
        killed.come_to_rest()
    finally:
        killed.clear_away()
    assert not problems, problems[0]


def _send(killed: Killed, stream: list[bytes], chance: random.Random, problems: list[BaseException]) -> None:
    try:
        for start in range(0, len(stream), CHUNK):
            killed.brokers.publish(chance.choice(killed.sources), stream[start : start + CHUNK])
    except BaseException as error:
        problems.append(error)


def _until_stored(killed: Killed, facts: int, problems: list[BaseException]) -> None:
    with psycopg.connect(killed.settings.need_database_url(), autocommit=True) as owner:

        def stored() -> bool:
            killed.fleet.running()
            row = owner.execute("SELECT count(*) FROM facts").fetchone()
            return bool(problems) or (row is not None and row[0] >= facts)

        eventually(stored, STORED_WITHIN_S)
