"""Publications and their confirms: which of a window of messages the broker has safely taken. Pure; no I/O, no threads.

Both drivers keep their window here: kombu publishes (publisher.py), pika sends copies on (link.py). ADR 25 says why two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from itertools import takewhile
from typing import Final

from pika.spec import BasicProperties

from incentive_fleet.errors import BrokerUnavailable

# Reply codes by which the broker ends a channel or connection for what was sent on it (AMQP 0-9-1, 1.2): too large, a
# failed precondition, a frame or its syntax, a field of a wrong type, a command out of place.
BLAMES_WHAT_WAS_SENT: Final = frozenset({311, 406, 501, 502, 503, 505, 540, 541})


@dataclass(frozen=True, slots=True)
class Publication:
    """A message to publish; its properties say whether it is persistent."""

    exchange: str
    routing_key: str
    properties: BasicProperties
    body: bytes
    mandatory: bool = True  # it comes back where no queue takes it

    @property
    def told(self) -> tuple[str, str, bytes]:
        """What the broker repeats when it returns one."""
        return self.exchange, self.routing_key, self.body


class Unconfirmed(BrokerUnavailable):
    """The link ended before each publication was confirmed."""

    def __init__(self, why: str, taken: list[bool], *, blamed: bool) -> None:
        super().__init__(why)
        self.taken = taken  # which the broker has confirmed; of the others nobody knows
        self.blamed = blamed  # whether the broker ended it for something that was published


class Fate(Enum):
    """What became of one publication."""

    TAKEN = auto()  # in a queue for certain
    NACKED = auto()  # a queue refused it: it is full, or has no leader at the moment
    RETURNED = auto()  # no queue takes it
    UNKNOWN = auto()  # not answered


class Confirms:
    """The publications of one channel in confirm mode that the broker has not answered, and what became of the others.

    The window, however it slides, is the caller's: it asks how many are `waiting`. One thread sends and is told at a time.
    """

    def __init__(self, last_tag: int = 0, *, strict: bool = True) -> None:
        """Not `strict`: publications before these, or that nobody waits for, may still be answered."""
        self.last_tag = last_tag  # of the channel's last publication so far
        self._strict = strict
        self._waiting: dict[int, tuple[str, str, bytes]] = {}  # by tag, in publishing order
        self._returned: set[int] = set()
        self._refused: dict[int, Fate] = {}

    def sent(self, exchange: str, routing_key: str, body: bytes, *, wanted: bool = True) -> int:
        """A message is published next; its delivery tag. Of one that is not `wanted` nothing is kept."""
        self.last_tag += 1
        if wanted:
            self._waiting[self.last_tag] = (exchange, routing_key, body)
        return self.last_tag

    def on_return(self, exchange: str, routing_key: str, body: bytes) -> None:
        """The broker found no queue for a message; it says so before it confirms it, and names no delivery tag.

        Every one that waits and is its equal counts as returned. That is the safe side: where a binding came or went while
        equal ones waited, one that was taken may be published once more. Raises AssertionError where none is its equal
        and that cannot be.
        """
        returned = (exchange, routing_key, body)
        equals = [tag for tag, one in self._waiting.items() if one == returned]
        if self._strict and not equals:
            raise AssertionError("RabbitMQ returned a message that is not on its way")
        self._returned.update(equals)

    def on_confirm(self, tag: int, multiple: bool, acknowledged: bool) -> None:
        """The broker took or refused a message, or with `multiple` every one up to it."""
        answered = list(takewhile(tag.__ge__, self._waiting)) if multiple else [tag]
        for one in answered:
            if self._waiting.pop(one, None) is None:
                continue
            if one in self._returned:
                self._refused[one] = Fate.RETURNED
            elif not acknowledged:
                self._refused[one] = Fate.NACKED

    @property
    def waiting(self) -> int:
        """How many publications are not answered."""
        return len(self._waiting)

    @property
    def refused(self) -> Mapping[int, Fate]:
        """By tag, those that are answered and in no queue. They are kept for as long as this is: make another in time."""
        return self._refused

    def fate(self, tag: int) -> Fate:
        """Of a publication that was sent."""
        return Fate.UNKNOWN if tag in self._waiting else self._refused.get(tag, Fate.TAKEN)

    def taken(self, tags: Sequence[int]) -> list[bool]:
        """For each publication that was sent whether it is in a queue for certain."""
        return [self.fate(tag) is Fate.TAKEN for tag in tags]
