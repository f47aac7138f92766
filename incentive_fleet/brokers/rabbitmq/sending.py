"""Publishes copies of messages, a window at a time, so that none that the broker will not have holds up another.

A broker that refuses what it is sent closes the channel or the connection and does not say for which message. Then the
window is halved until the culprit stands alone, and that one goes without its sender's properties.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from incentive_fleet.brokers.budget import portions
from incentive_fleet.brokers.rabbitmq.confirms import Publication, Unconfirmed
from incentive_fleet.brokers.rabbitmq.copies import copy_of, room_in
from incentive_fleet.brokers.rabbitmq.link import Link
from incentive_fleet.brokers.rabbitmq.posting import publish
from incentive_fleet.brokers.rabbitmq.properties import Parts
from incentive_fleet.errors import BrokerUnavailable

log = logging.getLogger(__name__)

WINDOW: Final = 256  # publications awaiting their confirms at a time
WINDOW_BYTES: Final = 16 * 1024 * 1024  # ... and of their bodies, or one body: each is copied on its way out

Ours = Callable[[int], Mapping[str, str]]  # our headers, the most needed first, for so many bytes of room


@dataclass(frozen=True, slots=True)
class Copy:
    """A message to publish in another's place."""

    exchange: str
    routing_key: str
    body: bytes
    parts: Callable[[], Parts]  # the sender's properties
    ours: Ours
    least: Mapping[str, str]  # of ours, what it must never go without


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of copies, in the order given."""

    taken: list[bool]  # which are in a queue for certain
    error: BrokerUnavailable | None  # what kept the others from being tried, where that was it


def send(copies: Sequence[Copy], link_of: Callable[[], Link]) -> Sent:
    """Publish each copy and wait until each is confirmed or refused. `link_of` gives a link that is alive, without queues,
    or raises BrokerUnavailable; this raises nothing.
    """
    taken = [False] * len(copies)
    bare: set[int] = set()
    windows = list(portions(range(len(copies)), lambda at: len(copies[at].body), WINDOW_BYTES, WINDOW))
    windows.reverse()
    while windows:  # a window that the broker refuses is halved: twice as many as there are copies, at the most
        window = windows.pop()
        try:
            link = link_of()
            room = room_in(link.frame_max)
            took = publish(link, [_publication(copies[at], room, bare=at in bare) for at in window])
        except Unconfirmed as error:
            taken = _add(taken, window, error.taken)
            left = [at for at in window if not taken[at]]
            if not error.blamed or (len(left) == 1 and left[0] in bare):
                return Sent(taken, error)
            if len(left) == 1:
                log.warning("RabbitMQ refused a copy with its sender's properties: %s", error)
                bare.update(left)
            windows += [half for half in (left[len(left) // 2 :], left[: len(left) // 2]) if half]
            continue
        except BrokerUnavailable as error:
            return Sent(taken, error)
        taken = _add(taken, window, took)
        if not all(took):
            link.close("a queue refused")  # on 3.10 a channel that was opened while it had no leader refuses for good
    return Sent(taken, None)


def _add(taken: list[bool], window: Sequence[int], took: Sequence[bool]) -> list[bool]:
    for at, one in zip(window, took, strict=True):
        taken[at] = one
    return taken


def _publication(copy: Copy, room: int, *, bare: bool) -> Publication:
    try:
        properties = copy_of(Parts() if bare else copy.parts(), copy.least if bare else copy.ours(room), room)
    except Exception:  # a bug of ours concerns this copy alone, and none may stay away for it
        log.exception("a copy for %s goes without its sender's properties", copy.routing_key)
        properties = copy_of(Parts(), copy.least, room)
    return Publication(copy.exchange, copy.routing_key, properties, copy.body)
