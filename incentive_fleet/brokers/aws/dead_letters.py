"""The SQS side of dead letters: receives from the dead-letter queues, deletes what is kept, sends to source queues.

It never decides what a letter means and never creates a queue.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from math import ceil
from typing import TYPE_CHECKING, Any, Final, cast

from botocore.exceptions import ClientError, ParamValidationError

from incentive_fleet.brokers.aws import AWS
from incentive_fleet.brokers.aws.attributes import fit
from incentive_fleet.brokers.aws.batches import ENTRIES, Batches, Receipt
from incentive_fleet.brokers.aws.client import (
    MISSING_QUEUE,
    Blame,
    ContentRefused,
    available,
    blame,
    error_code,
    sqs_client,
)
from incentive_fleet.brokers.aws.plan import SQS_MESSAGE_BYTES, sqs_queues
from incentive_fleet.brokers.budget import Budget, Forecast
from incentive_fleet.brokers.message_headers import OURS, REPLAY
from incentive_fleet.brokers.messages import BROKER_REDRIVE, Arrival, Moved, Outgoing
from incentive_fleet.errors import BrokerUnavailable
from incentive_fleet.names import TYPE_ATTRIBUTE
from incentive_fleet.settings import Settings
from incentive_fleet.stopping import SLICE_S, Stop

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

log = logging.getLogger(__name__)

COUNTS: Final = (
    "ApproximateNumberOfMessages",
    "ApproximateNumberOfMessagesNotVisible",
    "ApproximateNumberOfMessagesDelayed",
)
# Above this an SQS message may have no room for a reason and the name of a queue, which is up to 80 characters.
NO_ROOM_BYTES: Final = SQS_MESSAGE_BYTES - 400
MOVED: Final = "SQS moved it from {}: received more often than its redrive policy allows"
POLL_MOST_S: Final = 5  # a poll that a stop cuts off may take letters with it, so it is waited for


class SqsDeadLetters:
    """See contract.py. It connects at the first `receive`."""

    def __init__(self, settings: Settings, stop: Stop | None = None) -> None:
        self._settings = settings
        self._stop = stop or Stop(settings.drain_s)
        self._client: SQSClient | None = None
        self._batches: Batches | None = None
        self._urls: dict[str, str] = {}  # of the dead-letter queues
        self._sources = {group.dead_letters: group.source for group in sqs_queues(settings)}
        self._held: set[Receipt] = set()
        self._budget = Budget(settings.held_bytes_max, settings.event_bytes_max)
        self._forecast = Forecast(self._budget, SQS_MESSAGE_BYTES)
        self._flowing = False  # whether the last receive gave any
        self._pool = ThreadPoolExecutor(len(self._sources), thread_name_prefix="sqs-letters")

    def _connected(self) -> tuple[SQSClient, Batches]:
        if self._client is None or self._batches is None:
            client = sqs_client(self._settings)
            with available():
                self._urls = {name: client.get_queue_url(QueueName=name)["QueueUrl"] for name in self._sources}
            self._client, self._batches = client, Batches(client, 2)
        return self._client, self._batches

    def receive(self, most: int, wait_s: float) -> list[Arrival]:
        """Asks all queues at once, up to ten copies each, fewer where large ones are to be expected."""
        client, _ = self._connected()
        if self._budget.full:
            return []
        room = (self._budget.most - self._budget.held) // len(self._sources)
        each = self._forecast.fitting(room, min(most, ENTRIES))
        # While letters come, nobody waits for a queue that has none; otherwise at least a second, for a poll of 0 asks
        # only some of SQS's servers.
        poll_s = 0 if self._flowing else max(1, min(ceil(wait_s), POLL_MOST_S))
        asked = [self._pool.submit(self._receive, client, queue, each, poll_s) for queue in self._sources]
        while wait(asked, SLICE_S).not_done:
            if self._stop.left_to_finish_s() <= 0:
                raise BrokerUnavailable("SQS: no answer to a receive before the drain was over")
        arrivals = [arrival for received in asked for arrival in received.result()]
        self._flowing = bool(arrivals)
        self._forecast.learn([len(arrival.body) for arrival in arrivals])
        for arrival in arrivals:
            self._budget.take(len(arrival.body))
        return arrivals

    def _receive(self, client: SQSClient, queue: str, most: int, wait_s: int) -> list[Arrival]:
        with available():
            answer = client.receive_message(
                QueueUrl=self._urls[queue],
                MaxNumberOfMessages=most,
                WaitTimeSeconds=wait_s,
                VisibilityTimeout=self._settings.sqs_visibility_s,
                MessageSystemAttributeNames=["All"],
                MessageAttributeNames=["All"],
            )
        return [self._arrival(queue, message) for message in answer.get("Messages", ())]

    def _arrival(self, queue: str, message: Mapping[str, Any]) -> Arrival:
        receipt = Receipt(self._urls[queue], message["ReceiptHandle"])
        self._held.add(receipt)
        attributes: Mapping[str, Mapping[str, Any]] = message.get("MessageAttributes", {})
        system: Mapping[str, str] = message.get("Attributes", {})
        body = message["Body"].encode()
        moved = moved_by_sqs(self._sources[queue], body, system)
        return Arrival(
            transport=AWS.source,
            source_queue=self._sources[queue],
            dead_letter_queue=queue,
            body=body,
            headers={name: _shown(value) for name, value in attributes.items()},
            envelope={"attributes": {name: _kept(value) for name, value in attributes.items()}},
            name=message["MessageId"],
            certain=True,
            receive_count=int(system.get("ApproximateReceiveCount", 1)),
            moved_by_broker=moved,
            receipt=receipt,
            crowded=moved is None,
        )

    def remove(self, arrivals: list[Arrival]) -> None:
        """Delete them; what SQS refuses to delete is logged and comes again."""
        _, batches = self._connected()
        receipts = [cast(Receipt, arrival.receipt) for arrival in arrivals]
        result = batches.delete(receipts)
        self._held.difference_update(receipts)
        left = {**result.refused, **result.failed}
        if left:
            log.warning("SQS kept %d collected dead letters: %s", len(left), sorted(set(left.values())))

    def let_go(self, arrivals: list[Arrival]) -> None:
        """See contract.py."""
        self._budget.give_back(len(arrival.body) for arrival in arrivals)

    def empty(self) -> bool:
        """SQS's counts are approximate and settle within seconds of the last change."""
        client, _ = self._connected()
        with available():
            return all(
                int(count) == 0
                for url in self._urls.values()
                for count in client.get_queue_attributes(QueueUrl=url, AttributeNames=list(COUNTS))[
                    "Attributes"
                ].values()
            )

    def close(self) -> None:
        """What was received and not kept is visible to others at once."""
        client, batches, held = self._client, self._batches, list(self._held)
        self._client = self._batches = None
        self._held.clear()
        if batches is not None:
            if held:
                batches.change_visibility([(receipt, 0) for receipt in held])
            batches.close()
        if client is not None:
            client.close()
        self._pool.shutdown(wait=False, cancel_futures=True)


class SqsSender:
    """See contract.py."""

    def __init__(self, settings: Settings) -> None:
        self._client = sqs_client(settings)
        self._batches = Batches(self._client, 2)
        self._urls: dict[str, str] = {}

    def send(self, messages: list[Outgoing]) -> list[str]:
        """Ten at a time. What failed may have arrived all the same; then it arrives twice, which is harmless."""
        entries, positions = [], []
        problems: dict[int, str] = {}
        for position, message in enumerate(messages):
            try:
                entries.append((self._url(message.source_queue), *_entry(message)))
            except UnicodeDecodeError as error:  # it came from a broker that takes bytes
                problems[position] = f"SQS takes text alone, and the body is no UTF-8 at byte {error.start}"
            except ContentRefused:
                problems[position] = f"SQS has no queue {message.source_queue!r}"
            else:
                positions.append(position)
        result = self._batches.send(entries)
        problems |= {positions[at]: problem for at, problem in {**result.refused, **result.failed}.items()}
        return [problems.get(position, "") for position in range(len(messages))]

    def _url(self, queue: str) -> str:
        """Raises BrokerUnavailable, and ContentRefused for a name that no queue has or can have: that is its letter's matter."""
        if queue not in self._urls:
            with available():
                try:
                    self._urls[queue] = self._client.get_queue_url(QueueName=queue)["QueueUrl"]
                except ParamValidationError as error:
                    raise ContentRefused(str(error)) from None
                except ClientError as error:
                    if error_code(error) in MISSING_QUEUE or blame(error) is Blame.CONTENT:
                        raise ContentRefused(str(error)) from None
                    raise
        return self._urls[queue]

    def close(self) -> None:
        """See contract.py."""
        self._batches.close()
        self._client.close()


def moved_by_sqs(source_queue: str, body: bytes, system: Mapping[str, str]) -> Moved | None:
    """SQS' redrive policy, where no reason of ours is beside the body; None where there was no room for one.

    Not all that offer SQS name the queue that a redrive policy moved a message from.
    """
    if "DeadLetterQueueSourceArn" not in system and len(body) > NO_ROOM_BYTES:
        return None
    return Moved(BROKER_REDRIVE, MOVED.format(source_queue))


def _entry(message: Outgoing) -> tuple[dict[str, Any], int]:
    """The message for a send, and its size in bytes."""
    text, mark = message.body.decode(), {REPLAY: message.mark}
    try:
        entry, size, dropped = fit(text, _attributes(message), mark)
    except (AttributeError, KeyError, TypeError, ValueError):  # an envelope from a file may hold anything
        log.warning("replay %s goes without its sender's attributes, which are none", message.mark)
        entry, size, dropped = fit(text, {}, mark)
    if dropped:
        log.warning("replay %s leaves out attributes %s", message.mark, dropped)
    return entry, size


def _attributes(message: Outgoing) -> dict[str, Any]:
    kept: Mapping[str, Mapping[str, str]] = message.envelope.get("attributes", {})
    if not message.envelope and message.type is not None:  # it came from another broker
        kept = {TYPE_ATTRIBUTE: {"type": "String", "text": message.type}}
    sent: dict[str, Any] = {}
    for name, value in kept.items():
        if name.startswith(OURS):
            continue
        if name == TYPE_ATTRIBUTE and message.type is not None:
            sent[name] = {"DataType": "String", "StringValue": message.type}
        elif "base64" in value:
            sent[name] = {"DataType": str(value["type"]), "BinaryValue": base64.b64decode(value["base64"])}
        else:
            sent[name] = {"DataType": str(value["type"]), "StringValue": str(value["text"])}
    return sent


def _kept(value: Mapping[str, Any]) -> dict[str, object]:
    if "BinaryValue" in value:
        return {"type": value["DataType"], "base64": base64.b64encode(value["BinaryValue"]).decode()}
    return {"type": value["DataType"], "text": value.get("StringValue", "")}


def _shown(value: Mapping[str, Any]) -> str:
    return str(value["StringValue"]) if "StringValue" in value else bytes(value.get("BinaryValue", b"")).hex()
