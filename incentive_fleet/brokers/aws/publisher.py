"""Publishes to one SNS topic through boto3, ten messages a call, several calls at a time. It never creates a topic."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING

from incentive_fleet.brokers.aws.client import PAUSE_S, ContentRefused, available, sns_client, tries
from incentive_fleet.brokers.messages import Message, Rejection
from incentive_fleet.errors import SettingsError
from incentive_fleet.names import TYPE_ATTRIBUTE
from incentive_fleet.settings import Settings

if TYPE_CHECKING:
    from mypy_boto3_sns.type_defs import PublishBatchRequestEntryTypeDef as Entry

ENTRIES_A_CALL = 10  # SNS PublishBatch
DEFAULT_MAX_BYTES = 262_144  # a message and a call, attributes included; a topic's MaximumMessageSize raises both
IN_FLIGHT = 8  # calls at a time; the client spends its time waiting
TOPIC_PAGES = 1_000  # of 100 topics: the default quota of an account is 100,000 topics


class SnsPublisher:
    """See contract.py for the promises. `topic` is a name in the region or an ARN."""

    def __init__(self, settings: Settings, topic: str, *, in_flight: int = IN_FLIGHT, pause_s: float = PAUSE_S) -> None:
        """`pause_s` is the first pause before an entry that SNS failed itself is tried again."""
        self._topic = topic
        self._arn = topic if topic.startswith("arn:") else ""
        self._max_bytes = 0  # unknown until the topic was looked at
        self._in_flight = in_flight
        self._pause_s = pause_s
        self._client = sns_client(settings, connections=in_flight)
        self._pool = ThreadPoolExecutor(in_flight, thread_name_prefix="sns-publish")

    def check(self) -> None:
        """Raise SettingsError when the topic is missing or closed to us, BrokerUnavailable when SNS is away."""
        self._look_at_topic()

    def publish(self, messages: Sequence[Message]) -> list[Rejection]:
        """Publish each message and wait until SNS has stored or refused each; see contract.py."""
        if not self._max_bytes:
            self._look_at_topic()
        rejections: list[Rejection] = []
        calls = group(messages, self._max_bytes, rejections)
        # Several rounds rather than all at once, so that an outage ends after one round and not after every call.
        while round_ := list(islice(calls, self._in_flight * 4)):
            for refused in self._pool.map(self._call, round_):
                rejections += refused
        return sorted(rejections, key=lambda rejection: rejection.index)

    def close(self) -> None:
        """End the threads and close the connections."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._client.close()

    def __enter__(self) -> SnsPublisher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _look_at_topic(self) -> None:
        try:
            with available(self._topic):
                self._arn = self._arn or self._find_arn()
                attributes = self._client.get_topic_attributes(TopicArn=self._arn)["Attributes"]
        except ContentRefused as error:
            raise SettingsError(f"SNS cannot read the topic {self._topic!r}: {error}") from error
        self._max_bytes = int(attributes.get("MaximumMessageSize", DEFAULT_MAX_BYTES))  # absent unless somebody set it

    def _find_arn(self) -> str:
        pages = self._client.get_paginator("list_topics").paginate()
        for page in islice(pages, TOPIC_PAGES):
            for topic in page.get("Topics", []):
                if topic["TopicArn"].rpartition(":")[2] == self._topic:
                    return topic["TopicArn"]
        raise SettingsError(f"SNS has no topic {self._topic!r} in this region. Run `incentives topology apply`.")

    def _call(self, entries: list[Entry]) -> list[Rejection]:
        """Publish up to ten entries; the entries that SNS failed itself are tried again, a bounded number of times."""
        rejections: list[Rejection] = []
        for last in tries(self._pause_s):
            try:
                with available(self._topic):
                    response = self._client.publish_batch(TopicArn=self._arn, PublishBatchRequestEntries=entries)
            except ContentRefused as error:
                if len(entries) == 1:
                    return [Rejection(int(entries[0]["Id"]), "refused", f"SNS: {error}")]
                return rejections + [rejection for entry in entries for rejection in self._call([entry])]
            again = set()
            for failed in response.get("Failed", []):
                if failed["SenderFault"] or last:
                    reason = "refused" if failed["SenderFault"] else "unavailable"
                    detail = f"SNS: {failed['Code']}: {failed.get('Message', '')}"
                    rejections.append(Rejection(int(failed["Id"]), reason, detail))
                else:
                    again.add(failed["Id"])
            entries = [entry for entry in entries if entry["Id"] in again]
            if not entries:
                break
        return rejections


def group(messages: Sequence[Message], max_bytes: int, rejections: list[Rejection]) -> Iterator[list[Entry]]:
    """Group messages into calls by the API's limits; what can never be sent is added to `rejections` instead."""
    call: list[Entry] = []
    size = 0
    for index, message in enumerate(messages):
        entry = _entry(index, message)
        attribute = len(TYPE_ATTRIBUTE) + len("String") + len(message.type.encode()) if message.type else 0
        bytes_ = len(message.body) + attribute
        if isinstance(entry, Rejection):
            rejections.append(entry)
            continue
        if bytes_ > max_bytes:
            detail = f"{bytes_} bytes with its attribute; the topic takes {max_bytes}"
            rejections.append(Rejection(index, "too-large", detail))
            continue
        if len(call) == ENTRIES_A_CALL or size + bytes_ > max_bytes:
            yield call
            call, size = [], 0
        call.append(entry)
        size += bytes_
    if call:
        yield call


def _entry(index: int, message: Message) -> Entry | Rejection:
    try:
        text = message.body.decode()
    except UnicodeDecodeError as error:
        return Rejection(index, "not-text", f"SNS takes UTF-8 text only: {error}")
    entry: Entry = {"Id": str(index), "Message": text}
    if message.type:
        entry["MessageAttributes"] = {TYPE_ATTRIBUTE: {"DataType": "String", "StringValue": message.type}}
    return entry
