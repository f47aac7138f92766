"""Publications and their confirms: which of a window of messages the broker has safely taken. Pure; no I/O, no threads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pika.spec import BasicProperties

from incentive_fleet.errors import BrokerUnavailable

# Reply codes by which the broker ends a channel or connection for what was sent on it (AMQP 0-9-1, 1.2): too large, a
# failed precondition, a frame or its syntax, a field of a wrong type, a command out of place.
BLAMES_WHAT_WAS_SENT: Final = frozenset({311, 406, 501, 502, 503, 505, 540, 541})


@dataclass(frozen=True, slots=True)
class Publication:
    """A message to publish as `mandatory`; its properties say that it is persistent."""

    exchange: str
    routing_key: str
    properties: BasicProperties
    body: bytes


class Unconfirmed(BrokerUnavailable):
    """The link ended before each publication was confirmed."""

    def __init__(self, why: str, taken: list[bool], *, blamed: bool) -> None:
        super().__init__(why)
        self.taken = taken  # which the broker has confirmed; of the others nobody knows
        self.blamed = blamed  # whether the broker ended it for something that was published


class Confirms:
    """What became of one window. A return carries no delivery tag, so it fails every publication of its destination.

    That is the safe side: where a binding came or went within the window, a message may be published once more.
    """

    def __init__(self, first_tag: int, publications: Sequence[Publication]) -> None:
        self._first = first_tag
        self._destinations = [(publication.exchange, publication.routing_key) for publication in publications]
        self._acknowledged = [False] * len(publications)
        self._left = set(range(first_tag, first_tag + len(publications)))
        self._returned: set[tuple[str, str]] = set()

    def on_return(self, exchange: str, routing_key: str) -> None:
        """The broker found no queue for a message; it says so before it confirms it."""
        self._returned.add((exchange, routing_key))

    def on_confirm(self, tag: int, multiple: bool, acknowledged: bool) -> None:
        """The broker took or refused a message, or with `multiple` every one up to it."""
        for settled in [left for left in self._left if left <= tag] if multiple else [tag]:
            self._left.discard(settled)
            self._acknowledged[settled - self._first] = acknowledged

    @property
    def complete(self) -> bool:
        """Whether every publication has been answered."""
        return not self._left

    def taken(self) -> list[bool]:
        """For each publication whether it is in a queue for certain."""
        pairs = zip(self._acknowledged, self._destinations, strict=True)
        return [acknowledged and destination not in self._returned for acknowledged, destination in pairs]
