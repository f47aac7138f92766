"""SQS as a transport: a queue a type of event, received ahead, settled ten at a time. Promises: contract.py.

It never creates a queue and never counts on a delete: one that fails after COMMIT is a duplicate later, so it is tried a
bounded number of times and then left, with a log line. Messages cannot be changed, so attempts are counted elsewhere.

A dead letter that SQS did not take leaves its message to come again when its visibility ends, and `settle` raises
BrokerUnavailable once it has carried out the rest.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from math import ceil
from typing import TYPE_CHECKING, Any, Final, assert_never

from incentive_fleet.brokers import message_headers
from incentive_fleet.brokers.aws import AWS
from incentive_fleet.brokers.aws.attributes import fit
from incentive_fleet.brokers.aws.batches import Batches, Entry, Receipt, Result
from incentive_fleet.brokers.aws.client import available, sqs_client
from incentive_fleet.brokers.aws.intake import HELD_MOST_S, Held, Intake
from incentive_fleet.brokers.aws.plan import SQS_MESSAGE_BYTES, sqs_queues
from incentive_fleet.brokers.budget import portions
from incentive_fleet.brokers.contract import Guarantees, OnTaken, nobody_asks
from incentive_fleet.brokers.messages import Ack, DeadLetter, Delivery, Disposition, Release, Retry
from incentive_fleet.brokers.topology import QueueNames, facts_of
from incentive_fleet.errors import BrokerUnavailable
from incentive_fleet.failpoints import failpoint
from incentive_fleet.settings import Settings
from incentive_fleet.stopping import Stop

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

log = logging.getLogger(__name__)

SEND_LETTERS: Final = 500  # dead letters under way at a time
SEND_BYTES: Final = 4 * SQS_MESSAGE_BYTES  # ... and of their bodies: each is copied more than once on its way out
WAITING: Final = (
    "ApproximateNumberOfMessages",
    "ApproximateNumberOfMessagesNotVisible",
    "ApproximateNumberOfMessagesDelayed",
)


class SqsTransport:
    """One consumer, of the queues of facts unless others are named. It connects at the first `receive`; `close` is for good."""

    guarantees = Guarantees(ordered=False, carries_failures=False, counts_deliveries=True, release_is_free=False)

    def __init__(
        self, settings: Settings, stop: Stop | None = None, queues: Sequence[QueueNames] | None = None
    ) -> None:
        settings.need_aws_region()
        self._stop = stop or Stop(settings.drain_s)
        self._settings = settings
        self._client: SQSClient | None = None
        self._urls: dict[str, str] = {}
        self._queues = facts_of(sqs_queues(settings)) if queues is None else queues
        self._dead_letters = {group.source: group.dead_letters for group in self._queues}
        self._intake: Intake | None = None
        self._batches: Batches | None = None
        self.skipped = 0  # settlements of what was no longer held

    @property
    def held_bytes(self) -> int:
        """See contract.py."""
        intake = self._intake
        return intake.held_bytes if intake is not None else 0

    def receive(self, max_deliveries: int, wait_s: float) -> list[Delivery]:
        """See contract.py."""
        intake, _ = self._connected()
        return [_delivery(held) for held in intake.take(max_deliveries, wait_s)]

    def _connected(self) -> tuple[Intake, Batches]:
        if self._intake is None or self._batches is None:
            threads = self._settings.sqs_pollers
            client = self._client = self._client or sqs_client(self._settings, connections=2 * threads + 1)
            names = self._queues
            with available():
                for queue in (name for group in names for name in (group.source, group.dead_letters)):
                    self._urls[queue] = client.get_queue_url(QueueName=queue)["QueueUrl"]
            self._batches = Batches(client, threads)
            sources = {group.source: self._urls[group.source] for group in names}
            self._intake = Intake(client, sources, self._settings, self._batches, self._stop)
            self._intake.start()
        return self._intake, self._batches

    def settle(self, dispositions: Sequence[tuple[Delivery, Disposition]], on_taken: OnTaken = nobody_asks) -> None:
        """See contract.py; also raises BrokerUnavailable where a dead letter was not taken by SQS."""
        intake, batches = self._connected()
        known = set(intake.drop([_held(delivery) for delivery, _ in dispositions]))
        delete: list[Held] = []
        hide: list[tuple[Held, int]] = []
        retries: list[tuple[Held, Delivery, Retry]] = []
        letters: list[tuple[Held, Delivery, DeadLetter]] = []
        for delivery, disposition in dispositions:
            held = _held(delivery)
            if held not in known or (held.lapsed and not isinstance(disposition, Ack)):
                self.skipped += 1
                continue
            match disposition:
                case Ack():
                    delete.append(held)  # also when it lapsed: if nobody received it since, that saves a duplicate
                case Retry(after_s):
                    hide.append((held, ceil(after_s)))
                    retries.append((held, delivery, disposition))
                case Release():
                    hide.append((held, 0))
                case DeadLetter():
                    letters.append((held, delivery, disposition))
                case _:
                    assert_never(disposition)
        sent: list[int] = []
        for portion in portions(range(len(letters)), lambda at: len(letters[at][1].body), SEND_BYTES, SEND_LETTERS):
            sent += [portion[at] for at in self._send([letters[at] for at in portion], batches)]
        if sent:
            failpoint("after-dead-letter")
        for at in sent:
            on_taken(*letters[at][1:])
        away = self._delete([*delete, *(letters[at][0] for at in sent)], batches)
        if away is None:
            away, hidden = self._hide(hide, batches)
            for held, delivery, disposition in retries:
                if held.receipt in hidden:
                    on_taken(delivery, disposition)
        if len(sent) < len(letters):
            away = f"{len(letters) - len(sent)} dead letters were not taken"
        if away:
            raise BrokerUnavailable(f"SQS: {away}")

    def _send(self, letters: Sequence[tuple[Held, Delivery, DeadLetter]], batches: Batches) -> list[int]:
        """The positions of those whose dead letter SQS has taken."""
        full = [
            self._letter(delivery, held, message_headers.of_dead_letter(delivery, why))
            for held, delivery, why in letters
        ]
        result = batches.send(full)
        # Refused for its attributes' sake, perhaps: what matters is the body and why it is there.
        bare = {
            position: self._letter(delivery, None, message_headers.least_of(delivery, why))
            for position, (_, delivery, why) in enumerate(letters)
            if position in result.refused
        }
        if bare:
            log.warning("SQS refused dead letters with full history: %s", sorted(set(result.refused.values())))
            second = batches.send(list(bare.values()))
            result.done |= {list(bare)[position] for position in second.done}
        return sorted(result.done)

    def _letter(self, delivery: Delivery, held: Held | None, ours: Mapping[str, str]) -> tuple[str, Entry, int]:
        theirs: Mapping[str, Any] = held.message.get("MessageAttributes", {}) if held is not None else {}
        entry, size, dropped = fit(delivery.body.decode(), theirs, ours)
        if dropped:
            log.warning("dead letter of message %s leaves out attributes %s", delivery.message_id, dropped)
        return self._urls[self._dead_letters[delivery.queue]], entry, size

    def _delete(self, done: Sequence[Held], batches: Batches) -> str | None:
        # One message handed out twice may come with one handle.
        result = batches.delete(list(dict.fromkeys(held.receipt for held in done)))
        return self._report("delete", result)

    def _hide(self, changes: Sequence[tuple[Held, int]], batches: Batches) -> tuple[str | None, set[Receipt]]:
        """Why SQS is away, if it is; and what is hidden for certain."""
        by_receipt = {held.receipt: min(seconds, HELD_MOST_S - held.age_s - 1) for held, seconds in changes}
        result = batches.change_visibility(list(by_receipt.items()))
        hidden = list(by_receipt)
        return self._report("change of visibility", result), {hidden[position] for position in result.done}

    def _report(self, what: str, result: Result) -> str | None:
        """Counts and logs what did not work; gives the reason when SQS is away."""
        self.skipped += len(result.refused)
        if result.failed:
            reasons = sorted(set(result.failed.values()))
            log.warning("SQS: %s of %d messages failed, they come again: %s", what, len(result.failed), reasons)
        return result.away

    def idle(self) -> bool:
        """See contract.py; SQS's counts are approximate and settle within seconds of the last change."""
        intake, _ = self._connected()
        if intake.holds_any:
            return False
        client = self._client
        assert client is not None
        with available():
            return all(
                int(count) == 0
                for group in self._queues
                for count in client.get_queue_attributes(
                    QueueUrl=self._urls[group.source],
                    AttributeNames=list(WAITING),
                )["Attributes"].values()
            )

    def close(self) -> None:
        """See contract.py; ends within the long poll and a few seconds."""
        intake, batches, client = self._intake, self._batches, self._client
        self._intake = self._batches = self._client = None
        if intake is not None and batches is not None:
            held = intake.stop()
            result = batches.change_visibility([(one.receipt, 0) for one in held])
            self._report("release", result)
            batches.close()
        if client is not None:
            client.close()


def _held(delivery: Delivery) -> Held:
    assert isinstance(delivery.receipt, Held)
    return delivery.receipt


def _delivery(held: Held) -> Delivery:
    message = held.message
    attributes = message.get("MessageAttributes", {})
    system = message.get("Attributes", {})
    return Delivery(
        body=held.body,
        queue=held.queue,
        transport=AWS.source,
        message_id=message["MessageId"],
        receive_count=int(system.get("ApproximateReceiveCount", 1)),
        receipt=held,
        headers={name: value["StringValue"] for name, value in attributes.items() if "StringValue" in value},
        sent_at=int(system["SentTimestamp"]) / 1_000 if "SentTimestamp" in system else None,
    )
