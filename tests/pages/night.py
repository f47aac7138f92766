"""A night of dead letters: a real fleet on a real RabbitMQ, which gives up what a shop spoilt, and carries what a person begins."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from incentive_fleet.brokers import declare
from incentive_fleet.brokers.messages import message_of
from incentive_fleet.brokers.registry import by_source, open_events
from incentive_fleet.settings import Settings
from tests.brokers_and_workers import SHORT, start
from tests.console_world import console_at
from tests.contract.brokers_under_test import eventually
from tests.dead_letter_world import LetterDatabase, order
from tests.pages.scene import KEY, Scene


@dataclass(frozen=True, slots=True)
class Night:
    """A fleet that runs, and the console before it."""

    scene: Scene
    letters: LetterDatabase

    def spoil(self, count: int) -> None:
        """So many placings whose currency is none, until all of them are letters."""
        publisher = open_events(self.scene.settings, by_source("rabbitmq"))
        try:
            assert not publisher.publish([message_of(order(number, currency="EURO")) for number in range(count)])
        finally:
            publisher.close()
        eventually(lambda: len(self.letters.summaries()) == count, 90)

    def decisions(self) -> int:
        """Orders that were placed."""
        return self.letters.count("decisions")

    def mend(self) -> None:
        """What a person would do to all letters, done without one."""
        for letter in self.letters.letters(statuses=("open",)):
            self.letters.edit(letter, "data.currency=EUR")


@contextmanager
def open_night(rabbitmq_url: str, database_url: str, prefix: str, log: Path) -> Iterator[Night]:
    """With its topology, its campaigns, a fleet of one worker, and the console."""
    values = {**SHORT, "prefix": prefix, "rabbitmq_url": rabbitmq_url, "database_url": database_url}
    settings = Settings.model_validate({**values, "session_key": KEY, "requests_per_s": 1_000})
    declare.apply(settings)
    command = [sys.executable, "-m", "incentive_fleet.cli.main", "consume", "--from", "rabbitmq"]
    letters = LetterDatabase.loaded(database_url)
    fleet = start(command, settings, log)
    try:
        with console_at(settings) as address:
            yield Night(Scene(settings, address), letters)
    finally:
        fleet.send_signal(signal.SIGTERM)
        assert fleet.wait(60) == 0, log.read_text()[-2_000:]
