"""The pause while a part is away: a back-off that doubles, with jitter, told once when it begins and once when it is over.

The consumer, the collector, the relay and the backfill share it. It gives nothing up; its owner does, if anybody.
"""

from __future__ import annotations

import logging
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from incentive_fleet.errors import DatabaseContention, DatabaseUnavailable, DatabaseUnfit, FleetError
from incentive_fleet.measuring import Tally, sum_of
from incentive_fleet.stopping import Stop

log = logging.getLogger(__name__)

PAUSED: Final = "incentives_paused"
FIRST_S: Final = 0.2
DATABASE_MAX_S: Final = 2.0  # a failover takes seconds: a wait that has grown must not double it


def longest_pause_s(error: Exception, others_s: float) -> float:
    """The longest back-off after this error: short towards a database, `others_s` towards everything else."""
    of_database = isinstance(error, DatabaseUnavailable | DatabaseContention | DatabaseUnfit)
    return min(others_s, DATABASE_MAX_S) if of_database else others_s


def cause_of(error: FleetError) -> str:
    """The error's class as metrics call it: database-unavailable."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", type(error).__name__).lower()


@dataclass(slots=True)
class Pause:
    """One activity's pauses. Belongs to one thread; `paused` may be read by any."""

    activity: str  # what pauses, for the log: "consuming", "relay to sns"
    longest_s: float
    stop: Stop
    about: Mapping[str, object] = field(default_factory=dict)  # further members of the log lines
    tally: Tally = field(default_factory=Tally)  # of the thread
    paused: bool = False
    _cause: str = ""
    _next_s: float = FIRST_S

    def wait(self, error: FleetError) -> None:
        """Wait a little; returns early when told to stop."""
        if not self.paused:
            self.paused = True
            self._note(cause_of(error))
            log.warning("%s paused", self.activity, extra={**self.about, "error": str(error)})
        longest_s = longest_pause_s(error, self.longest_s)
        self.stop.wait(min(self._next_s, longest_s) * random.uniform(0.5, 1.0))
        self._next_s = min(self._next_s * 2, longest_s)

    def _note(self, cause: str) -> None:
        self._cause = cause
        self.tally.add("incentives_pauses_total", self.activity, cause)
        self.tally.level(PAUSED, self.activity, cause, now=1)

    def over(self) -> None:
        """All is well again."""
        if self.paused:
            self.paused = False
            self.tally.level(PAUSED, self.activity, self._cause, now=0)
            log.info("%s resumed", self.activity, extra=dict(self.about))
        self._next_s = FIRST_S


@dataclass(slots=True)
class Pauses:
    """The pauses of one run, for whoever asks from outside whether it goes on. One a thread of the run; any may read."""

    each: list[Pause] = field(default_factory=list)

    def add(self, pause: Pause) -> Pause:
        """The same pause, from now on one of these."""
        self.each.append(pause)
        return pause

    @property
    def paused(self) -> bool:
        """Whether one of them waits for a part that is away."""
        return any(pause.paused for pause in self.each)

    def tally(self) -> Tally:
        """What all their threads count."""
        return sum_of(pause.tally for pause in list(self.each))
