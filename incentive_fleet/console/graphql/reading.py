"""What one request reads and how: one moment of the ledger, in batches, until its deadline.

A request is answered in a thread of its own, on one connection, in one read-only transaction that sees one moment: whatever it
shows fits together. It begins with the first read, under the reading role that the visitor has, on the replica where there is
one. Fields that read for many elements give their keys to a batch, which reads once for all of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from time import monotonic
from typing import Any, Final, TypeVar

from psycopg import Connection
from strawberry.types import Info

from incentive_fleet.console.premises import Premises
from incentive_fleet.console.visitors import Visitor, Work
from incentive_fleet.errors import FleetError, Refused, StatementTimedOut, TransientError
from incentive_fleet.ledger.connection import mapped_errors
from incentive_fleet.ledger.snapshot import snapshot

ELEMENTS_MAX: Final = 50_000  # of lists without pages in one answer: an order may have 2,000 lines
TELL: Final = "SELECT set_config('statement_timeout', %s, true)"
TELL_AGAIN: Final = 0.9  # Postgres is told anew what is left when a tenth of it has gone
T = TypeVar("T")
Read = Callable[..., Mapping[Any, Any]]


@dataclass(slots=True)
class Asking:
    """A request under way. Belongs to one thread; close it."""

    premises: Premises
    visitor: Visitor
    ends_at: float  # on the monotonic clock
    now: datetime = field(default_factory=lambda: datetime.now(UTC))
    _stack: ExitStack = field(default_factory=ExitStack)
    _connection: Connection[Any] | None = None
    _batches: dict[Hashable, _Batch] = field(default_factory=dict)
    _told_s: float = 0.0  # what Postgres knows of the deadline
    _elements: int = 0
    _broken: FleetError | None = None  # after which the transaction reads nothing more

    def close(self) -> None:
        """Give the connection back."""
        self._stack.close()

    def left_s(self) -> float:
        """What is left until the deadline. Raises StatementTimedOut when nothing is."""
        left = self.ends_at - monotonic()
        if left <= 0:
            raise StatementTimedOut("the deadline of the request has passed")
        return left

    def reader(self, work: Work) -> Connection[Any]:
        """The connection to read from, in the request's one transaction. Raises as Connections.to does."""
        self.visitor.require(work)
        if self._broken is not None:
            raise self._broken
        left = self.left_s()
        if self._connection is None:
            may = Work.READ if self.visitor.may(Work.READ) else Work.LOOK
            connection = self._stack.enter_context(self.premises.connections.to(may, self.visitor, left))
            self._stack.enter_context(snapshot(connection))
            self._connection, self._told_s = connection, left
        elif left < TELL_AGAIN * self._told_s:
            self._connection.execute(TELL, (str(max(1, round(left * 1_000))),))
            self._told_s = left
        return self._connection

    def read(self, work: Work, read: Callable[..., T], *given: Any, **named: Any) -> T:
        """What `read(connection, ...)` returns, now."""
        with self.breaking():
            return read(self.reader(work), *given, **named)

    @contextmanager
    def breaking(self) -> Iterator[None]:
        """Errors in the block are ours, and one that ends the transaction is told again to whoever reads after it."""
        try:
            with mapped_errors(blameless=True):
                yield
        except (TransientError, StatementTimedOut) as error:
            self._broken = error
            raise

    async def load(self, read: Read, key: Hashable, *options: Hashable) -> Any:
        """What `read(asking, keys, *options)` finds for the key, read together with the keys of all elements beside this one."""
        batch = self._batches.setdefault((read, options), _Batch(read, options))
        batch.keys[key] = None
        await asyncio.sleep(0)  # those beside this one name their keys
        if batch.found is None:
            del self._batches[(read, options)]
            batch.read_now(self)
        if isinstance(batch.found, Exception):
            raise batch.found
        assert batch.found is not None
        return batch.found.get(key)

    def counted(self, elements: list[T]) -> list[T]:
        """The list, if the answer bears it. Raises Refused (answer-too-large), and StatementTimedOut past the deadline."""
        self._elements += len(elements)
        if self._elements > ELEMENTS_MAX:
            raise Refused(
                "answer-too-large", f"the answer has more than {ELEMENTS_MAX} elements: ask for fewer at once"
            )
        self.left_s()
        return elements


@dataclass(slots=True)
class _Batch:
    """Keys to be read at once, and what was found or why nothing could be."""

    read: Read
    options: tuple[Hashable, ...]
    keys: dict[Hashable, None] = field(default_factory=dict)
    found: Mapping[Any, Any] | Exception | None = None

    def read_now(self, asking: Asking) -> None:
        try:
            with asking.breaking():
                self.found = self.read(asking, list(self.keys), *self.options)
        except Exception as error:  # told to each of the elements, not to the first alone
            self.found = error


def asking_of(info: Info[Any, Any]) -> Asking:
    """The request that a resolver answers."""
    asking = info.context
    assert isinstance(asking, Asking)
    return asking
