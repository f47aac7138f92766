"""A dead letter as it comes off a broker, and why it is there: by our consumer's word or by the broker's own. No I/O here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any, Final, Protocol

from incentive_fleet.consumers import history
from incentive_fleet.operators.dead_letters.letter import cause_of, storable

# Travels with a replayed message, "<dead letter's id>.<number of the replay>", and comes back with it should it fail.
REPLAY: Final = "fleet-replay"
OURS: Final = "fleet-"  # every header that we put on a message begins so; a replay starts without them

BROKER_REDRIVE: Final = "broker-redrive"  # SQS moved it: received too often
DELIVERY_LIMIT: Final = "delivery-limit"  # RabbitMQ moved it: delivered too often
UNEXPLAINED: Final = "unexplained"  # neither our consumer nor the broker said why: somebody put it there


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


@dataclass(frozen=True, slots=True)
class Why:
    """The reason code, a sentence, what groups with it, and the history of an unexpected error."""

    reason: str
    detail: str
    cause: str
    failure: dict[str, Any] | None


def why(arrival: Arrival) -> Why:
    """Who gave it up and why. The consumer's own headers win: a broker never removes them."""
    known = history.failure_in(arrival.headers)
    failure = None
    if known is not None:
        failure = asdict(known) | {"first_at": known.first_at.isoformat(), "last_at": known.last_at.isoformat()}
        failure = {name: storable(value) if isinstance(value, str) else value for name, value in failure.items()}
    reason = arrival.headers.get(history.REASON, "")
    detail = arrival.headers.get(history.DETAIL, "")
    if not reason:
        reason, detail = _by_broker(arrival)
    reason, detail = storable(reason), storable(detail)
    return Why(reason, detail, cause_of(reason, detail, failure), failure)


def _by_broker(arrival: Arrival) -> tuple[str, str]:
    queue, word = arrival.source_queue, arrival.moved_by_broker
    if arrival.transport == "sqs":
        return BROKER_REDRIVE, f"SQS moved it from {queue}: received more often than its redrive policy allows"
    if not word:
        return UNEXPLAINED, f"found in {arrival.dead_letter_queue} without a reason from a consumer or the broker"
    reason = DELIVERY_LIMIT if word == "delivery_limit" else f"broker-{word.replace('_', '-')}"
    return reason, f"RabbitMQ moved it from {queue}: {word}"


def replay_mark(headers: Mapping[str, str]) -> tuple[int, int] | None:
    """(dead letter's id, number of the replay) that the message carries; None when it carries none that we wrote."""
    number, _, nth = headers.get(REPLAY, "").partition(".")
    bound = 18  # digits that fit a bigint; anybody may publish a header of this name
    if number.isdecimal() and nth.isdecimal() and len(number) <= bound and len(nth) <= 9:
        return int(number), int(nth)
    return None


class DeadLetterQueues(Protocol):
    """The dead-letter queues of one broker, to be emptied. One thread owns it; all raise BrokerUnavailable."""

    def receive(self, most: int, wait_s: float) -> list[Arrival]:
        """Up to `most` copies as soon as there are any; they are held until `remove`, `close` or the broker's timeout."""

    def remove(self, arrivals: list[Arrival]) -> None:
        """These are safely kept elsewhere. A copy that could not be removed comes again, which is harmless."""

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
