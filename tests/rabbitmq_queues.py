"""RabbitMQ's queues once nobody consumes: what a consumer held comes back a moment after its connection is over."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any, Final

WITHIN_S: Final = 15.0


def await_no_consumer(channel: Any, queues: Iterable[str]) -> None:
    """Wait until what they hold is ready again. Fails where somebody consumes for longer than 15 s."""
    deadline = time.monotonic() + WITHIN_S
    for queue in queues:
        while channel.queue_declare(queue, passive=True).method.consumer_count:
            assert time.monotonic() < deadline, f"{queue} is still consumed"
            time.sleep(0.02)


def purge(channel: Any, queues: Iterable[str]) -> None:
    """Leave nothing in them, once nobody consumes."""
    names = list(queues)
    await_no_consumer(channel, names)
    for queue in names:
        channel.queue_purge(queue)
