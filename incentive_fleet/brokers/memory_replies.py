"""Answers inside the process, for tests of what answers quotes: a request's headers say where to. Promises: contract.py."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from typing import Final

from incentive_fleet.brokers.memory import MemoryBroker
from incentive_fleet.brokers.messages import Answered, AnswerWanted, Delivery, Message
from incentive_fleet.errors import BrokerUnavailable, Malformed
from incentive_fleet.events.times import read_time
from incentive_fleet.names import CORRELATION_ATTRIBUTE, EXPIRES_ATTRIBUTE, REPLY_ATTRIBUTE

CAPACITY: Final = 1_000  # answers in one queue; a full one refuses


class MemoryReplies:
    """`queues` are those that there are: correlation ids and answers by the address."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker
        self.queues: dict[str, deque[tuple[str, Message]]] = {}

    def asked(self, delivery: Delivery) -> AnswerWanted:
        """See contract.py."""
        address, expires = delivery.headers.get(REPLY_ATTRIBUTE, ""), delivery.headers.get(EXPIRES_ATTRIBUTE)
        try:
            return AnswerWanted(address, time.time(), None if expires is None else read_time(expires).timestamp())
        except Malformed as fault:
            return AnswerWanted(address, time.time(), None, fault)

    def send(self, answers: Sequence[tuple[Delivery, Message]]) -> list[Answered]:
        """See contract.py."""
        if self._broker.away:
            raise BrokerUnavailable("memory broker: away")
        return [self._send(delivery, message) for delivery, message in answers]

    def _send(self, delivery: Delivery, message: Message) -> Answered:
        queue = self.queues.get(delivery.headers[REPLY_ATTRIBUTE])
        if queue is None:
            return Answered.UNROUTABLE
        if len(queue) >= CAPACITY:
            return Answered.REFUSED
        queue.append((delivery.headers.get(CORRELATION_ATTRIBUTE, ""), message))
        return Answered.SENT

    def close(self) -> None:
        """See contract.py."""
