"""Which message kills the workers that touch it. A worker that died more than once is followed by a careful one, which has
one message in hand at a time and says which before it touches it; so the supervisor can tell the culprit.

Nothing here reads a message. What every message would meet is no message's fault: a suspect is condemned only if others
were handled well since, or, where there are none, if it is the only one that ever was suspected.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

from incentive_fleet.brokers.messages import DeadLetter, Delivery

KILLS_WORKERS: Final = "kills-workers"  # the reason code of its dead letter
DEATHS: Final = 3  # with the same message in hand, while others are handled well
DEATHS_ALONE: Final = 5  # where no other message came


@dataclass(slots=True)
class Suspects:
    """The supervisor's side. Thread-safe."""

    _deaths: Counter[str] = field(default_factory=Counter)  # by the body's digest
    _others_went_well: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def died_with(self, digest: str) -> None:
        """A careful worker died and had this in hand."""
        with self._lock:
            self._deaths[digest] += 1

    def went_well(self, digest: str) -> None:
        """A careful worker is done with this one."""
        with self._lock:
            self._others_went_well.update(suspect for suspect in self._deaths if suspect != digest)
            self._deaths.pop(digest, None)
            self._others_went_well.discard(digest)

    def condemned(self) -> list[str]:
        """Those that workers must not touch any more."""
        with self._lock:
            return sorted(digest for digest, deaths in self._deaths.items() if deaths >= self._needed(digest))

    def _needed(self, digest: str) -> float:
        if digest in self._others_went_well:
            return DEATHS
        return DEATHS_ALONE if len(self._deaths) == 1 else float("inf")


@dataclass(slots=True)
class Care:
    """A careful worker's side, shared by its consumers: one of them at a time has a message in hand."""

    condemned: frozenset[str]
    tell: Callable[[str], None]  # the digest of what is touched next; "" when it went well
    _hands: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def in_hand(self, deliveries: Sequence[Delivery]) -> Iterator[None]:
        """While the block runs, the supervisor knows what is touched."""
        with self._hands:
            self.tell(" ".join(digest_of(delivery) for delivery in deliveries))
            yield
            self.tell("")

    def condemn(self, deliveries: Sequence[Delivery]) -> list[tuple[Delivery, DeadLetter]]:
        """The dead letters of those that nobody must touch."""
        detail = "workers died each time they had nothing but this message in hand; see the system's log for what killed them"
        return [(one, DeadLetter(KILLS_WORKERS, detail)) for one in deliveries if digest_of(one) in self.condemned]


def digest_of(delivery: Delivery) -> str:
    """What names a message here: the SHA-256 of its body, in hex."""
    return sha256(delivery.body).hexdigest()
