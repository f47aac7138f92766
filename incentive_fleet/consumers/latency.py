"""How old events are: when they come, and when they are committed. It reads no clock of its own.

A message's age counts from when the broker or its publisher says that it was published; where neither says, from the
event's own `time`, which a publisher that is behind, or plays a history, sets long before.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

from incentive_fleet.brokers.messages import Delivery
from incentive_fleet.events.codec import Event
from incentive_fleet.measuring import Tally

LATENCY: Final = "incentives_publish_to_commit_seconds"
RECEIVED_AGE: Final = "incentives_last_received_age_seconds"


def tell_latencies(tally: Tally, handled: Iterable[tuple[Delivery, Event]], committed_at: float) -> None:
    """Observe the time from publishing to COMMIT; `clock` says whose word the beginning is."""
    by_message: defaultdict[str, list[float]] = defaultdict(list)
    by_event: defaultdict[str, list[float]] = defaultdict(list)
    for delivery, event in handled:
        if delivery.sent_at is not None:
            by_message[delivery.transport].append(committed_at - delivery.sent_at)
        elif (age_s := _age(event.time, committed_at)) is not None:
            by_event[delivery.transport].append(age_s)
    for clock, ages in (("message", by_message), ("event", by_event)):
        for transport, values in ages.items():
            tally.observe_all(LATENCY, transport, clock, values=values)


def _age(time: str, now: float) -> float | None:
    try:
        return now - datetime.fromisoformat(time).timestamp()
    except (ValueError, OverflowError):  # RFC 3339 allows a leap second, which Python's calendar has not
        return None


def tell_received(tally: Tally, deliveries: Sequence[Delivery], now: float) -> None:
    """Note, by queue, how old the message was that came last; an age is kept until the next message comes."""
    for delivery in {delivery.queue: delivery for delivery in deliveries}.values():
        if delivery.sent_at is not None:
            age_s = max(0.0, now - delivery.sent_at)
            tally.level(RECEIVED_AGE, delivery.transport, delivery.queue, now=age_s)


def tell_empty(tally: Tally) -> None:
    """Nothing waits: no message is old."""
    for key in [key for key in tally.levels if key[0] == RECEIVED_AGE]:
        tally.levels[key] = 0.0
