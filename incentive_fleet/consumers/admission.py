"""Whether an event may come where it came: a body is decoded, and its source is one that the queue takes.

The one place that asks INCENTIVES_ALLOWED_SOURCES, for consumers, `backfill`, quotes and whatever foretells what a consumer would
do. It catches mistakes, not forgers: a sender writes into `source` what it likes (docs/threat-model.md). No I/O; safe for all
threads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from incentive_fleet.allowed_sources import SourceList, read_allowed_sources
from incentive_fleet.brokers.registry import queue_types
from incentive_fleet.brokers.topology import QUEUES
from incentive_fleet.errors import Malformed
from incentive_fleet.events.codec import Event, decode
from incentive_fleet.events.document import shown
from incentive_fleet.events.reasons import Reason
from incentive_fleet.settings import Settings, variable


@dataclass(frozen=True, slots=True)
class Admission:
    """What the settings allow, by the brokers' names of queues and by the events' types."""

    of_queue: Mapping[str, SourceList]
    of_type: Mapping[str, SourceList]

    def check(self, source: str, type_: str, queue: str) -> None:
        """Raise Malformed (source-not-allowed) unless the queue takes an event's source, and so does its type's own queue.

        The second is what holds where there is no such queue (a file, a letter of an earlier prefix) and for an event that was
        sent to the queue of another type.
        """
        for allowed in (self.of_queue.get(queue), self.of_type.get(type_)):
            if allowed is not None and not allowed.holds(source):
                takes = f"the queue {allowed.queue} takes {allowed} alone"
                detail = f"source is {shown(source)}: {takes} ({variable('allowed_sources')})"
                raise Malformed(Reason.SOURCE_NOT_ALLOWED, detail)


def admission_of(settings: Settings) -> Admission | None:
    """None where every source is allowed."""
    if settings.allowed_sources is None:
        return None
    lists = read_allowed_sources(settings.allowed_sources)
    of_type = {type_: lists[word] for type_, word in QUEUES if word in lists}
    of_queue = {queue: of_type[type_] for queue, type_ in queue_types(settings).items() if type_ in of_type}
    return Admission(of_queue, of_type)


def admitted(body: bytes, queue: str, admission: Admission | None) -> Event:
    """The event in a body that came by that queue. Raises Malformed, as `decode` does and for its source."""
    event = decode(body)
    if admission is not None:
        admission.check(event.source, event.type, queue)
    return event
