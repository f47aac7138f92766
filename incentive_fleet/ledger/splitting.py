"""Finds out what of a batch cannot be done, and whose fault that is: the one place for both questions.

A batch that fails is halved until what fails stands alone; the rest is done. What fails alone is only *suspected* until a
probe, something made up that goes the same way, has passed after it failed. When the probe fails as well the system is at
fault: that is raised as a TransientError, and nothing is held against anybody. The probe costs little and its number is bound:
before a batch is taken apart, unless it passed a second ago, then once for all suspects, and in between once a second.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

import psycopg

from incentive_fleet.errors import DatabaseUnfit, FleetError, StatementTimedOut, TransientError
from incentive_fleet.logs import Traces, told_words
from incentive_fleet.measuring import Tally

log = logging.getLogger(__name__)

T = TypeVar("T")

SUSPECTED_MAX_S: Final = 1.0  # how old a suspicion may be before the probe is asked about it
SLOW_S: Final = 5.0  # a probe takes some ten round trips; one that takes this long waited for somebody
FRESH_S: Final = (
    1.0  # for so long a probe that passed is reason enough to look for a culprit; to blame one takes a new one
)


def refusal_of(error: Exception) -> str:
    """Why the database refuses what stands alone, in one line for a person. Raises `error` where it is no such refusal."""
    if not isinstance(error, psycopg.Error):
        raise error
    return f"Postgres refuses it: {str(error).partition(chr(10))[0]} (SQLSTATE {error.sqlstate})"


@dataclass(slots=True)
class Probe:
    """Something made up that goes the same way, kept from batch to batch by the thread that it belongs to."""

    attempt: Callable[[], None]  # returns when all is well
    traces: Traces = field(default_factory=Traces)
    clock: Callable[[], float] = time.monotonic
    tally: Tally = field(default_factory=Tally)  # of the thread
    _passed_at: float = float("-inf")
    _was_slow: bool = False

    def ask(self, failure: Exception) -> None:
        """Return when the probe passes now. Raises TransientError otherwise: what `failure` tells of is the system's fault.

        One that was held up before it passed may have outlived the fault, such as a lock on a table: then what failed is
        worth another attempt, and nobody is blamed yet. Twice in a row that is no reason any more.
        """
        began = self.clock()
        try:
            self.attempt()
        except TransientError:
            raise
        except Exception as error:
            # Rare, and never about a message: here the operator finds where it broke, once a place.
            told = self.traces.told(error)
            if "traceback" in told:
                log.error("a made-up order fails as well", extra={"error": str(error)[:500]} | told)
            raise DatabaseUnfit(f"a made-up order fails as well: {type(error).__name__}: {error}"[:500]) from failure
        self._passed_at = self.clock()
        took_s = self._passed_at - began
        self._was_slow = took_s > SLOW_S and not self._was_slow
        if self._was_slow:
            # The log tells this as it is, and what failed may repeat an event.
            raise DatabaseUnfit(
                f"a made-up order was held up for {took_s:.0f} s: {told_words(failure)}"[:500]
            ) from failure

    def ask_again(self, failure: Exception) -> None:
        """As `ask`, unless it passed a moment ago."""
        if self.clock() - self._passed_at > FRESH_S:
            self.ask(failure)


@dataclass(slots=True)
class Trial(Generic[T]):
    """One batch. `blame` is called with culprits and their errors, each once."""

    probe: Probe
    blame: Callable[[Sequence[tuple[T, Exception]]], None]
    _suspects: list[tuple[T, Exception]] = field(default_factory=list)
    _suspected_at: float = 0.0

    def split(self, batch: Sequence[T], apply: Callable[[Sequence[T]], None]) -> None:
        """Apply a batch, halved for as long as it fails. `apply` keeps what it has done; it does all or raises.

        Raises TransientError, and whatever FleetError is no question of guilt.
        """
        try:
            apply(batch)
            return
        except Exception as error:
            if isinstance(error, FleetError) and not isinstance(error, StatementTimedOut):
                raise
            failure = error
        if len(batch) == 1:
            self.suspect(batch[0], failure)
            return
        self.probe.ask_again(failure)
        self.probe.tally.add("incentives_batch_splits_total")
        half = len(batch) // 2
        self.split(batch[:half], apply)
        self.split(batch[half:], apply)

    def suspect(self, one: T, error: Exception) -> None:
        """Note what failed alone. Raises TransientError when that turns out to be the system's fault."""
        now = self.probe.clock()
        if not self._suspects:
            self._suspected_at = now
        self._suspects.append((one, error))
        if now - self._suspected_at > SUSPECTED_MAX_S:
            self.judge()

    def judge(self) -> None:
        """Blame the suspects, unless the probe fails: then TransientError is raised and they are blamed for nothing."""
        if not self._suspects:
            return
        self.probe.ask(self._suspects[0][1])
        suspects, self._suspects = self._suspects, []
        self.blame(suspects)
