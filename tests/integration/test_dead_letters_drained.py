"""The drain task in short: eleven causes on both brokers, emptied by one operator with few commands, each effect once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.brokers_and_workers import Brokers
from tests.dead_letter_world import LetterWorld
from tests.drain import Drain
from tests.shop import faults

BROKER_SETTINGS = {"sqs_visibility_s": 5}
COMMANDS_MAX = 40
SECONDS_MAX = 300.0


def drained(brokers: Brokers, database_url: str, folder: Path, letters: int, *, processes: bool) -> Drain:
    world = LetterWorld(database_url, brokers.settings.model_copy(update={"database_url": database_url}), brokers)
    world.load()
    drain = Drain(world, folder, letters, processes)
    drain.stock()
    drain.run()
    drain.judge()
    assert faults(database_url) == {}
    assert len(drain.commands) < COMMANDS_MAX
    return drain


def test_letters_of_eleven_causes_are_drained_with_few_commands(
    brokers: Brokers, database_url: str, tmp_path: Path
) -> None:
    drained(brokers, database_url, tmp_path, 200, processes=False)


@pytest.mark.chaos
@pytest.mark.timeout(1_200)
def test_ten_thousand_letters_are_drained_within_five_minutes(
    brokers: Brokers, database_url: str, tmp_path: Path, say: Callable[[str], None]
) -> None:
    drain = drained(brokers, database_url, tmp_path, 10_000, processes=True)
    say(f"{drain.letters:,} letters, {drain.edited:,} edited: {len(drain.commands)} commands, {drain.seconds:.0f} s")
    assert drain.seconds < SECONDS_MAX
