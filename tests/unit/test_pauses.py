"""How long the fleet waits for what is away: a database is asked again within two seconds, however long it was away."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from incentive_fleet.errors import BrokerUnavailable, DatabaseContention, DatabaseUnavailable, TransientError
from incentive_fleet.pausing import Pause, longest_pause_s
from incentive_fleet.stopping import Stop


class Waits(Stop):
    """A stop that nobody sets; it keeps how long it was waited for, and returns at once."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def wait(self, seconds: float) -> bool:
        self.seconds.append(seconds)
        return False


@pytest.mark.parametrize(
    ("error", "most"), [(DatabaseUnavailable, 2), (DatabaseContention, 2), (BrokerUnavailable, 30)]
)
def test_the_back_off_grows_up_to_what_the_part_may_take(error: Callable[[str], TransientError], most: float) -> None:
    waits = Waits()
    pause = Pause("test", 30, waits)
    for _ in range(40):
        pause.wait(error("away"))
    assert most / 2 <= max(waits.seconds[10:]) <= most
    assert waits.seconds[0] <= 0.2


def test_a_wait_that_grew_for_a_broker_is_not_kept_for_the_database() -> None:
    waits = Waits()
    pause = Pause("test", 30, waits)
    for _ in range(20):
        pause.wait(BrokerUnavailable("away"))
    pause.wait(DatabaseUnavailable("away"))
    assert waits.seconds[-1] <= 2


def test_who_asks_for_shorter_pauses_gets_them() -> None:
    assert longest_pause_s(DatabaseUnavailable("away"), 0.5) == 0.5
    assert longest_pause_s(BrokerUnavailable("away"), 0.5) == 0.5
