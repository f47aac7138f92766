"""Who is to blame, without a database: batches in memory, poisons that fail alone, and a probe that passes or fails."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from incentive_fleet.errors import DatabaseUnavailable, DatabaseUnfit, Refused, StatementTimedOut
from incentive_fleet.ledger.splitting import FRESH_S, SLOW_S, SUSPECTED_MAX_S, Probe, Trial


@dataclass
class FakeSystem:
    """A system that works or not, poisons, and a clock that goes on by `step_s` an attempt."""

    poisons: set[int] = field(default_factory=set)
    broken_from: int | None = None  # the attempt at which the system breaks
    step_s: float = 0.0
    held_up_s: float = 0.0  # how long something holds up each probe before it passes
    error: Exception = field(default_factory=lambda: ValueError("x"))
    now: float = 0.0
    attempts: int = 0
    probes: list[float] = field(default_factory=list)
    done: list[int] = field(default_factory=list)
    blamed: list[int] = field(default_factory=list)

    def broken(self) -> bool:
        return self.broken_from is not None and self.attempts >= self.broken_from

    def attempt(self, batch: Sequence[int]) -> None:
        self.attempts += 1
        self.now += self.step_s
        if self.broken() or self.poisons & set(batch):
            raise self.error
        self.done += batch

    def ask(self) -> None:
        self.probes.append(self.now)
        self.now += self.held_up_s
        if self.broken():
            raise KeyError("everything is broken")

    def blame(self, culprits: Sequence[tuple[int, Exception]]) -> None:
        self.blamed += [one for one, _ in culprits]

    def run(self, size: int) -> None:
        trial: Trial[int] = Trial(Probe(self.ask, clock=lambda: self.now), self.blame)
        trial.split(range(size), self.attempt)
        trial.judge()


def test_what_is_well_asks_no_probe() -> None:
    system = FakeSystem()
    system.run(500)
    assert (system.attempts, system.probes, system.done) == (1, [], list(range(500)))


def test_a_system_that_is_broken_is_asked_once_and_takes_no_batch_apart() -> None:
    system = FakeSystem(broken_from=1)
    with pytest.raises(DatabaseUnfit, match="a made-up order fails as well: KeyError"):
        system.run(500)
    assert (system.attempts, len(system.probes), system.blamed) == (1, 1, [])


@pytest.mark.parametrize("error", [ValueError("x"), StatementTimedOut("too slow")])
def test_poisons_are_found_and_the_rest_is_done_in_its_order(error: Exception) -> None:
    system = FakeSystem(poisons={0, 77, 499}, error=error)
    system.run(500)
    assert system.blamed == [0, 77, 499]
    assert system.done == [number for number in range(500) if number not in system.poisons]
    assert len(system.probes) == 2


def test_a_thousand_poisons_ask_the_probe_twice() -> None:
    system = FakeSystem(poisons=set(range(1_000)))
    system.run(1_000)
    assert len(system.blamed) == 1_000
    assert len(system.probes) == 2


def test_a_system_that_breaks_in_the_middle_blames_nobody() -> None:
    system = FakeSystem(poisons={3}, broken_from=12)
    with pytest.raises(DatabaseUnfit):
        system.run(100)
    assert system.blamed == []


def test_a_suspicion_does_not_grow_old() -> None:
    """Where attempts take long, suspects are judged meanwhile, each by a probe that passed after it failed."""
    system = FakeSystem(poisons=set(range(8)), step_s=SUSPECTED_MAX_S * 0.6)
    system.run(8)
    assert system.blamed == list(range(8))
    assert len(system.probes) > 3


def test_to_blame_takes_a_probe_that_is_newer_than_the_failure() -> None:
    system = FakeSystem(poisons={0})
    probe = Probe(system.ask, clock=lambda: system.now)
    for batch in range(3):  # a fresh pass saves the first question, and never the last
        trial: Trial[int] = Trial(probe, system.blame)
        trial.split(range(2), system.attempt)
        trial.judge()
        assert len(system.probes) == batch + 2
    system.now += FRESH_S * 2
    Trial(probe, system.blame).split(range(2), system.attempt)
    assert len(system.probes) == 5


def test_a_probe_that_was_held_up_blames_nobody_for_what_may_be_over() -> None:
    """As a lock on a table does: the event timed out under it, and the probe waited until it was gone."""
    system = FakeSystem(poisons={0}, held_up_s=SLOW_S + 25, error=StatementTimedOut("too slow"))
    probe = Probe(system.ask, clock=lambda: system.now)
    trial: Trial[int] = Trial(probe, system.blame)
    trial.split([0], system.attempt)
    with pytest.raises(DatabaseUnfit, match="held up for 30 s: too slow"):
        trial.judge()
    system.poisons.clear()
    Trial(probe, system.blame).split([0], system.attempt)
    assert (system.blamed, system.done) == ([], [0])


def test_what_is_said_of_a_probe_that_was_held_up_repeats_nothing_that_an_event_holds() -> None:
    """A pause tells it in the log."""
    system = FakeSystem(poisons={0}, held_up_s=SLOW_S + 25, error=ValueError("customer ann"))
    trial: Trial[int] = Trial(Probe(system.ask, clock=lambda: system.now), system.blame)
    trial.split([0], system.attempt)
    with pytest.raises(DatabaseUnfit, match=r"held up for 30 s: ValueError$"):
        trial.judge()


def test_a_database_that_is_always_slow_shelters_no_poison() -> None:
    system = FakeSystem(poisons={0}, held_up_s=SLOW_S + 1)
    probe = Probe(system.ask, clock=lambda: system.now)
    for blamed in ([], [0], [0], [0, 0]):  # every other time it is blamed
        trial: Trial[int] = Trial(probe, system.blame)
        trial.split([0], system.attempt)
        if system.blamed != blamed:
            trial.judge()
        else:
            with pytest.raises(DatabaseUnfit):
                trial.judge()
        assert system.blamed == blamed


@pytest.mark.parametrize("error", [DatabaseUnavailable("away"), Refused("x", "y")])
def test_what_is_no_question_of_guilt_is_raised_as_it_is(error: Exception) -> None:
    system = FakeSystem(poisons={1}, error=error)
    with pytest.raises(type(error)):
        system.run(10)
    assert (system.probes, system.blamed) == ([], [])
