"""A stream whose events must keep their order within a strand, a world or an order, over brokers while workers are killed.

Of a strand one event at a time is under way, of many strands at once, so a broker that mixes and repeats cannot overtake.
The moment of a kill is a number of events that were settled, never a time.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import psycopg

from incentive_fleet.errors import Malformed
from incentive_fleet.events.codec import decode
from tests.contract.brokers_under_test import eventually
from tests.killing import Killed

WITHIN_S = 60.0  # some event is settled, its worker killed perhaps
UNDER_WAY_MOST = 400

# A grant is a fact of no order; what it is refused, and what no fact can be made of, is a dead letter.
STORED = """
SELECT order_id, fact FROM facts JOIN unnest(%s::text[], %s::text[]) AS asked (order_id, fact) USING (order_id, fact)
UNION ALL SELECT '', 'grant:' || key FROM grants WHERE 'grant:' || key = ANY(%s)
"""
LETTERS = "SELECT DISTINCT body FROM dead_letters WHERE body = ANY(%s)"
Identity = tuple[str, str]
NO_IDENTITY: Identity = ("", "")


@dataclass(slots=True)
class Strands:
    """Of each strand the events that are left, and the one that is under way with its identity.

    A repeat is sent with another blank at its end: to the fleet the same event, as a dead letter one of its own. How often
    a body was given up is not to be had otherwise, for on RabbitMQ a copy that is delivered again may be one or two.
    """

    of: Callable[[bytes], str]
    left: dict[str, deque[bytes]] = field(default_factory=dict)
    under_way: dict[str, tuple[bytes, Identity]] = field(default_factory=dict)
    sent: Counter[bytes] = field(default_factory=Counter)
    numbers: dict[bytes, int] = field(default_factory=dict)  # as it was spelled, in the order of sending

    def add(self, bodies: Iterable[bytes]) -> None:
        for body in bodies:
            self.left.setdefault(self.of(body), deque()).append(body)

    def next(self) -> list[bytes]:
        """One more event of each strand of which none is under way, as far as there is room."""
        free = [strand for strand in self.left if strand not in self.under_way]
        started = []
        for strand in free[: UNDER_WAY_MOST - len(self.under_way)]:
            body = self.left[strand].popleft()
            if not self.left[strand]:
                del self.left[strand]
            spelled = body + b" " * self.sent[body]
            self.sent[body] += 1
            self.numbers[spelled] = len(self.numbers)
            self.under_way[strand] = (spelled, identity_of(spelled))
            started.append(spelled)
        return started

    def settle(self, owner: psycopg.Connection[Any]) -> None:
        """What is a fact, a grant or a dead letter by now is not under way any more."""
        bodies, identities = zip(*self.under_way.values(), strict=True)
        orders, facts = zip(*identities, strict=True)
        stored = set(owner.execute(STORED, (list(orders), list(facts), list(facts))).fetchall())
        letters = {bytes(body) for (body,) in owner.execute(LETTERS, (list(bodies),)).fetchall()}
        self.under_way = {
            strand: (body, identity)
            for strand, (body, identity) in self.under_way.items()
            if identity not in stored and body not in letters
        }


def identity_of(body: bytes) -> Identity:
    try:
        event = decode(body)
    except Malformed:
        return NO_IDENTITY
    return event.order_id, event.fact


def overtaken(strands: Strands, owner: psycopg.Connection[Any]) -> set[bytes]:
    """Repeats that came, or came again, after a later event of their strand, and are conflicts for its sake alone.

    Of a fact that stands a repeat leaves no trace, so nothing tells when it was handled; its own event id is not recorded,
    and where another fact has that id by then, the conflict wins (rules 2.3). A worker that dies before it acknowledges
    does the same to a repeat that was handled in time.
    """
    facts = owner.execute("SELECT order_id, fact, source, event_id, digest FROM facts").fetchall()
    digests = {(order, fact): bytes(digest) for order, fact, _, _, digest in facts}
    holders = {(source, event_id): (order, fact) for order, fact, source, event_id, _ in facts}
    came: dict[tuple[str, str, Identity], int] = {}
    for body, number in strands.numbers.items():
        if identity_of(body) != NO_IDENTITY:
            event = decode(body)
            came.setdefault((event.source, event.id, identity_of(body)), number)
    found = set()
    for (letter,) in owner.execute("SELECT DISTINCT body FROM dead_letters WHERE reason = 'conflict'").fetchall():
        event, identity = decode(bytes(letter)), identity_of(bytes(letter))
        holder = holders.get((event.source, event.id), identity)
        later = strands.numbers[bytes(letter)] < came[event.source, event.id, holder]
        if digests.get(identity) == event.digest and holder != identity and later:
            found.add(bytes(letter))
    return found


def play_strands(killed: Killed, strands: Strands, kill_every: int) -> None:
    """Each event by any of the brokers until none is left; a worker dies after so many. The fleet runs already."""
    since = 0
    with psycopg.connect(killed.settings.need_database_url(), autocommit=True) as owner:
        while strands.left or strands.under_way:
            started = strands.next()
            for number, source in enumerate(killed.sources):
                killed.brokers.publish(source, started[number :: len(killed.sources)])
            since += len(started)
            if since >= kill_every:
                killed.kill()
                since = 0
            eventually(partial(_some_are_settled, killed, strands, owner, len(strands.under_way)), WITHIN_S)


def _some_are_settled(killed: Killed, strands: Strands, owner: psycopg.Connection[Any], before: int) -> bool:
    killed.fleet.running()
    strands.settle(owner)
    return len(strands.under_way) < before
