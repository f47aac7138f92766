"""Answers over SQS: to the queue whose URL a request names in its attribute `reply_to`, its correlation id with them.

Each queue is called by itself, several at a time, and one that is missing or refuses us holds up no other. It never decides
whether an address may be answered.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import ClientError, ParamValidationError

from incentive_fleet.brokers.aws.batches import in_tens
from incentive_fleet.brokers.aws.client import MISSING_QUEUE, Blame, available, blame, error_code, sqs_client
from incentive_fleet.brokers.aws.intake import Held
from incentive_fleet.brokers.messages import Answered, AnswerWanted, Delivery, Message
from incentive_fleet.errors import BrokerUnavailable, Malformed
from incentive_fleet.events.reasons import Reason
from incentive_fleet.events.times import read_time
from incentive_fleet.names import CORRELATION_ATTRIBUTE, EXPIRES_ATTRIBUTE, REPLY_ATTRIBUTE, TYPE_ATTRIBUTE
from incentive_fleet.settings import Settings

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

IN_FLIGHT: Final = 8  # calls at a time; the client spends its time waiting
SEND_S: Final = 5.0  # for a call; what takes longer is not waited for
ATTRIBUTE_BYTES: Final = 1_024  # of what an answer carries beside its body, far above a correlation id

Entry = Mapping[str, Any]


class SqsReplies:
    """See contract.py for the promises. It connects when it first answers."""

    def __init__(self, settings: Settings) -> None:
        settings.need_aws_region()
        self._settings = settings
        self._client: SQSClient | None = None
        self._pool = ThreadPoolExecutor(IN_FLIGHT, thread_name_prefix="sqs-reply")

    def asked(self, delivery: Delivery) -> AnswerWanted:
        """See contract.py."""
        address, expires = delivery.headers.get(REPLY_ATTRIBUTE, ""), delivery.headers.get(EXPIRES_ATTRIBUTE)
        held = delivery.receipt
        assert isinstance(held, Held)
        arrived_at = time.time() - (time.monotonic() - held.since)
        if expires is None:
            return AnswerWanted(address, arrived_at, None)
        try:
            return AnswerWanted(address, arrived_at, read_time(expires).timestamp())
        except Malformed as fault:
            detail = f"the attribute {EXPIRES_ATTRIBUTE} is {expires[:50]!r}: {fault.detail}"
            return AnswerWanted(address, arrived_at, None, Malformed(Reason(fault.reason), detail))

    def send(self, answers: Sequence[tuple[Delivery, Message]]) -> list[Answered]:
        """See contract.py."""
        client = self._connected()
        entries = [
            (delivery.headers[REPLY_ATTRIBUTE], _entry(delivery, message), len(message.body) + ATTRIBUTE_BYTES)
            for delivery, message in answers
        ]
        calls: dict[Future[dict[int, Answered]], dict[int, Entry]] = {
            self._pool.submit(_send, client, url, batch): batch for url, batch in in_tens(entries)
        }
        done, _ = wait(calls, SEND_S)
        fates, away = dict[int, Answered](), list[BrokerUnavailable]()
        for call in done:
            try:
                fates |= call.result()
            except BrokerUnavailable as error:
                away.append(error)
        if away and len(away) == len(calls):
            raise away[0]
        return [fates.get(position, Answered.UNCONFIRMED) for position in range(len(answers))]

    def _connected(self) -> SQSClient:
        if self._client is None:
            self._client = sqs_client(self._settings, connections=IN_FLIGHT)
        return self._client

    def close(self) -> None:
        """See contract.py."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        client, self._client = self._client, None
        if client is not None:
            client.close()


def _send(client: SQSClient, url: str, batch: Mapping[int, Entry]) -> dict[int, Answered]:
    """One call to one queue. Raises BrokerUnavailable where the service, and not the queue, is the matter."""
    try:
        with available():
            answer = _call(client, url, list(batch.values()))
    except ParamValidationError:  # a URL that is none
        return dict.fromkeys(batch, Answered.UNROUTABLE)
    if isinstance(answer, Answered):
        return dict.fromkeys(batch, answer)
    refused = {int(entry["Id"]) for entry in answer.get("Failed", ())}
    return {position: Answered.REFUSED if position in refused else Answered.SENT for position in batch}


def _call(client: SQSClient, url: str, entries: Sequence[Entry]) -> Mapping[str, Any] | Answered:
    try:
        return client.send_message_batch(QueueUrl=url, Entries=entries)  # type: ignore[arg-type]
    except ClientError as error:
        if error_code(error) in MISSING_QUEUE:
            return Answered.UNROUTABLE
        if blame(error) is Blame.SERVICE:
            raise
        return Answered.REFUSED


def _entry(delivery: Delivery, message: Message) -> Entry:
    held = delivery.receipt
    assert isinstance(held, Held)
    theirs: Mapping[str, Any] = held.message.get("MessageAttributes", {}).get(CORRELATION_ATTRIBUTE, {})
    correlation = {name: theirs[name] for name in ("DataType", "StringValue", "BinaryValue") if name in theirs}
    attributes = {CORRELATION_ATTRIBUTE: correlation} if correlation else {}
    if message.type:
        attributes[TYPE_ATTRIBUTE] = {"DataType": "String", "StringValue": message.type}
    return {"MessageBody": message.body.decode(), "MessageAttributes": attributes}
