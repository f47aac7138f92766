"""Dead-letter queues as every adapter offers them: letters to empty out, messages to send back. No I/O here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final, Protocol

# Travels with a replayed message, "<dead letter's id>.<number of the replay>", and comes back with it should it fail.
REPLAY: Final = "fleet-replay"
OURS: Final = "fleet-"  # every header that we put on a message begins so; a replay starts without them


@dataclass(frozen=True, slots=True)
class Arrival:
    """One copy of a dead letter, received and still held."""

    transport: str
    source_queue: str
    dead_letter_queue: str
    body: bytes
    headers: Mapping[str, str]
    envelope: Mapping[str, Any]  # JSON: what it takes to send the message again as it was
    name: str  # the broker's name of this copy; equal for every delivery of it
    certain: bool  # equal names are the same copy (SQS); otherwise only when it is also delivered again (RabbitMQ)
    receive_count: int
    moved_by_broker: str  # the broker's own word for why it moved it; "" when it did not
    receipt: object

    @property
    def body_sha256(self) -> bytes:
        return sha256(self.body).digest()


class DeadLetterQueues(Protocol):
    """The dead-letter queues of one broker, to be emptied. One thread owns it; all raise BrokerUnavailable."""

    def receive(self, most: int, wait_s: float) -> list[Arrival]:
        """Up to `most` copies, and no more than the budget has room for beside what was not let go, as soon as there are
        any; they are held until `remove`, `close` or the broker's timeout."""

    def remove(self, arrivals: list[Arrival]) -> None:
        """These are safely kept elsewhere. A copy that could not be removed comes again, which is harmless."""

    def let_go(self, arrivals: list[Arrival]) -> None:
        """These are in memory no longer, removed or not; the room that they took is for others to come."""

    def empty(self) -> bool:
        """Whether the broker counts nothing ready and nothing held by anybody, as far as it can tell."""

    def close(self) -> None:
        """Give back what is held. Harmless when called twice."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message to be sent to the queue that it came from."""

    source_queue: str
    body: bytes
    envelope: Mapping[str, Any]
    mark: str  # the value of REPLAY
    type: str | None  # the `type` of an edited body, to be put in place of the old one; None leaves it


class Sender(Protocol):
    """Sends to source queues of one broker. One thread owns it."""

    def send(self, messages: list[Outgoing]) -> list[str]:
        """For each message "" when the broker has taken it for certain, else why not. Raises BrokerUnavailable."""

    def close(self) -> None:
        """Harmless when called twice."""
