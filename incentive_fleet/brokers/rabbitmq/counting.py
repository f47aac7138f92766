"""How many messages lie ready in queues, over a link that is there for something else. It declares nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from incentive_fleet.brokers.rabbitmq.link import OPEN_S, Link


def ready(link: Link, queues: Sequence[str]) -> list[int]:
    """How many messages each queue holds ready. Raises BrokerUnavailable, also for a queue that is missing."""
    counts: list[int] = []

    def on_answer(frame: Any) -> None:
        counts.append(frame.method.message_count)
        if len(counts) == len(queues):
            link.answered()

    def count() -> None:
        for queue in queues:
            link.channel.queue_declare(queue, passive=True, callback=on_answer)

    link.ask(count, OPEN_S, "count of a queue")
    return counts
