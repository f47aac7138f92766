"""Looks at everything every few seconds, in one thread for all visitors, and keeps what charts need for half an hour.

It begins with the first visit and rests once nobody has asked for a while, so that an idle console asks no broker anything. It
keeps no look by a visitor's name: `incentives status` does.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Final

from starlette.requests import HTTPConnection

from incentive_fleet.console.premises import premises_of
from incentive_fleet.errors import FleetError
from incentive_fleet.logs import traceback_of
from incentive_fleet.settings import Settings
from incentive_fleet.stopping import Stop
from incentive_fleet.telemetry.status import Status, Watcher

EVERY_S: Final = 5.0
SAMPLES_MAX: Final = 360  # half an hour
REST_S: Final = 1_800.0  # after the last question
LISTENERS_MAX: Final = 50  # live pages of one process

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Sample:
    """What the charts show of one look. None is what nobody told."""

    at: float  # monotonic
    rate: float | None  # settled for good a second, of all sources
    lag_s: float | None  # the longest of them
    letters: int | None  # open


@dataclass(frozen=True, slots=True)
class Sighting:
    """The last look, and the samples up to it."""

    number: int
    status: Status
    samples: tuple[Sample, ...]


class Lookout:
    """Thread-safe. `listeners` bounds the live pages."""

    def __init__(self, settings: Settings, stop: Stop) -> None:
        self.listeners = threading.BoundedSemaphore(LISTENERS_MAX)
        self._settings = settings
        self._stop = stop
        self._changed = threading.Condition()
        self._seen: Sighting | None = None
        self._samples: deque[Sample] = deque(maxlen=SAMPLES_MAX)
        self._asked = 0.0  # monotonic
        self._looks = False

    def seen(self, wait_s: float = 0.0) -> Sighting | None:
        """The last look, at the most `EVERY_S` and what a look takes old; None where the first is not there in time."""
        with self._changed:
            self._asked = time.monotonic()
            if not self._looks and not self._stop.is_set():
                self._looks = True
                threading.Thread(target=self._run, name="lookout", daemon=True).start()
            self._stop.wait_for(self._changed, lambda: self._seen is not None, wait_s)
            return self._seen

    def _run(self) -> None:
        try:
            with closing(Watcher(self._settings, "console", keeps=False)) as watcher:
                watcher.glance()
                self._look(watcher)
                while not self._stop.wait(EVERY_S) and time.monotonic() < self._asked + REST_S:
                    self._look(watcher)
        except FleetError as error:  # settings that name no broker well; the page says that nothing was seen
            log.error("the lookout ended", extra={"error": str(error)[:500]})
        except Exception as error:
            log.error("the lookout ended", extra={"error": str(error)[:500], "traceback": traceback_of(error)})
        finally:
            with self._changed:
                self._looks, self._seen = False, None
                self._changed.notify_all()

    def _look(self, watcher: Watcher) -> None:
        status = watcher.look()
        letters = None if status.ledger is None else status.ledger.letters
        sample = Sample(
            time.monotonic(),
            _told(sum, [one.out_per_s for one in status.sources]),
            _told(max, [one.lag_s for one in status.sources]),
            None if letters is None else sum(one.letters for one in letters),
        )
        with self._changed:
            self._samples.append(sample)
            number = 1 if self._seen is None else self._seen.number + 1
            self._seen = Sighting(number, status, tuple(self._samples))
            self._changed.notify_all()


def _told(gather: Callable[[list[float]], float], values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return gather(known) if known else None


_beginning = threading.Lock()


def lookout_of(request: HTTPConnection) -> Lookout:
    """The one of the process that answers this request."""
    state = request.app.state
    with _beginning:
        if not hasattr(state, "lookout"):
            premises = premises_of(request)
            state.lookout = Lookout(premises.settings, premises.stop)
    found = state.lookout
    assert isinstance(found, Lookout)
    return found
