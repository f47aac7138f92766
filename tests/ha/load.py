"""The publisher of the run: an order system that publishes a paced stream to RabbitMQ until it is told to stop.

What a broker did not confirm is published again, with the same id. It ends by itself when the stream does.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from itertools import islice

from incentive_fleet.brokers.messages import message_of
from incentive_fleet.brokers.rabbitmq import RABBITMQ
from incentive_fleet.brokers.registry import open_events
from incentive_fleet.errors import BrokerUnavailable
from incentive_fleet.settings import Settings

CHUNK = 20  # events published at a time
AGAIN_S = 0.2  # after a broker that was away, or refused


class Load:
    """Published and confirmed are `bodies`, in that order. `confirms` are the monotonic times of each chunk's confirm."""

    def __init__(self, settings: Settings, stream: Iterator[bytes], events_a_second: float) -> None:
        self._settings = settings
        self._stream = stream
        self._every_s = CHUNK / events_a_second
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._guarded, name="load", daemon=True)
        self.bodies: list[bytes] = []
        self.confirms: list[float] = []
        self.problems: list[BaseException] = []

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End after the chunk that is under way is confirmed."""
        self._over.set()
        self._thread.join(120)
        assert not self._thread.is_alive(), "the publisher did not end"

    def goes_on(self, since: float) -> bool:
        """Whether a chunk was confirmed after that time."""
        return bool(self.confirms) and self.confirms[-1] > since

    def check(self) -> None:
        if self.problems:
            raise self.problems[0]

    def _guarded(self) -> None:
        try:
            self._publish()
        except BaseException as error:
            self.problems.append(error)

    def _publish(self) -> None:
        with closing(open_events(self._settings, RABBITMQ)) as publisher:
            next_at = time.monotonic()
            while not self._over.is_set() and (chunk := list(islice(self._stream, CHUNK))):
                left = [message_of(body) for body in chunk]
                while left:
                    with suppress(BrokerUnavailable):
                        left = [left[refused.index] for refused in publisher.publish(left)]
                    if left:
                        threading.Event().wait(AGAIN_S)
                self.bodies += chunk
                self.confirms.append(time.monotonic())
                next_at = max(next_at + self._every_s, time.monotonic() - 1)  # a backlog of a second, no more
                self._over.wait(max(0.0, next_at - time.monotonic()))
