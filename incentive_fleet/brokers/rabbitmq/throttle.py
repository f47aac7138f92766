"""Shuts a link's tap while what it delivered and its owner did not let go fills the budget, and opens it again."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from incentive_fleet.brokers.budget import Budget
from incentive_fleet.brokers.rabbitmq.tap import Tap

log = logging.getLogger(__name__)


class Throttle:
    """One link's. `let_go` belongs to the link's owner, the rest to the I/O thread."""

    def __init__(self, budget: Budget, tap: Callable[[], Tap | None], on_shut: Callable[[], None]) -> None:
        """`tap` gives None where reading cannot be stopped; `on_shut` is called each time that it was."""
        self._budget = budget.renewed()
        self._tap = tap
        self._on_shut = on_shut
        self._shut = False
        self._told = False

    @property
    def held(self) -> int:
        """Bytes held, as decoded; any thread may ask."""
        return self._budget.held

    def arrived(self, size: int) -> None:
        """A body of so many bytes was delivered."""
        self._budget.take(size)
        if self._budget.full and not self._shut:
            self._stop_reading()

    def _stop_reading(self) -> None:
        tap = self._tap()
        if tap is None:
            if not self._told:
                log.warning(
                    "memory is bounded by the prefetch alone: reading from this pika's connection cannot be stopped"
                )
            self._told = True
            return
        tap.close()
        self._shut = True
        self._on_shut()
        self.read_on()  # the owner may have let go before it could see that we stopped

    def let_go(self, sizes: Iterable[int]) -> bool:
        """Bodies of so many bytes count for nothing from here on; True when `read_on` is to be called for it."""
        self._budget.give_back(sizes)
        return self._shut and not self._budget.full

    def read_on(self) -> None:
        """Open the tap, if there is room."""
        if self._shut and not self._budget.full and (tap := self._tap()) is not None:
            self._shut = False
            tap.open()
