"""How many bytes a consumer holds at a time, counted as decoded. Arithmetic alone: who holds, waits or pauses is the caller.

A body costs more than its bytes once it is an event: models, texts, the canonical form, what the ledger writes of it.
The dearest events, short orders of short texts, were measured at 11 times their bytes decoded and 14 written; the factor is
above all of them. A body that is larger than any event is not decoded: it costs itself, and its copy for the dead letters.

One body is always let in when nothing else is held, however large: a budget slows, it never starves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, TypeVar

Item = TypeVar("Item")

AS_DECODED: Final = 16  # times the body's bytes
EACH: Final = 1_024  # bytes of a delivery beside its body: properties, headers, receipts
NOT_DECODED: Final = 2  # times the body's bytes: the body, and the copy that is on its way out


class Budget:
    """What one holder holds. `take` belongs to the thread that receives, `give_back` to the one that settles: each counts
    for itself, so neither needs a lock."""

    __slots__ = ("_given", "_largest", "_taken", "most")

    def __init__(self, most: int, largest_event: int) -> None:
        self.most = most
        self._largest = largest_event
        self._taken = 0
        self._given = 0

    def cost(self, size: int) -> int:
        """What a body of so many bytes counts."""
        return EACH + size * (AS_DECODED if size <= self._largest else NOT_DECODED)

    def renewed(self) -> Budget:
        """The same bounds, with nothing held."""
        return Budget(self.most, self._largest)

    @property
    def held(self) -> int:
        """Bytes held now, as decoded."""
        return self._taken - self._given

    @property
    def full(self) -> bool:
        """Whether nothing more may be received. Never true while nothing is held."""
        return self._taken - self._given >= self.most

    def take(self, size: int) -> None:
        """A body of so many bytes has come."""
        self._taken += self.cost(size)

    def give_back(self, sizes: Iterable[int]) -> None:
        """Bodies of so many bytes are let go."""
        self._given += sum(map(self.cost, sizes))


class Forecast:
    """What messages that are yet to be asked for will cost: as much as the largest of late. It begins with the worst, and comes
    down quickly."""

    __slots__ = ("_budget", "each")

    def __init__(self, budget: Budget, largest_message: int) -> None:
        self._budget = budget
        self.each = budget.cost(largest_message)

    def learn(self, sizes: Sequence[int]) -> None:
        """Bodies of so many bytes came at once."""
        if sizes:
            self.each = max(self._budget.cost(max(sizes)), self.each // 4)

    def fitting(self, room: int, most: int) -> int:
        """How many messages to ask for, from 1 to `most`, so that they fit into so many bytes."""
        return max(1, min(most, room // self.each))


def portions(items: Iterable[Item], cost: Callable[[Item], int], most: int, count: int) -> Iterator[list[Item]]:
    """The items in their order, in lists of up to `count` that cost up to `most` together; a dearer one stands alone."""
    portion: list[Item] = []
    total = 0
    for item in items:
        price = cost(item)
        if portion and (len(portion) == count or total + price > most):
            yield portion
            portion, total = [], 0
        portion.append(item)
        total += price
    if portion:
        yield portion
