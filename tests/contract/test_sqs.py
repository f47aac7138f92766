"""What is true of the SQS adapter alone."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import pytest

from incentive_fleet.brokers import message_headers
from incentive_fleet.brokers.aws import attributes as sqs_letters
from incentive_fleet.brokers.aws.client import ENTRY_TRIES
from incentive_fleet.brokers.aws.transport import SqsTransport
from incentive_fleet.brokers.messages import Ack, DeadLetter
from incentive_fleet.errors import BrokerUnavailable
from tests.contract.brokers_under_test import SqsUnderTest, collect, eventually
from tests.contract.test_transport import bodies


@contextmanager
def hooked(transport: SqsTransport, event: str, hook: Any) -> Iterator[None]:
    """Have botocore call `hook` around a call that really goes out."""
    transport.receive(1, 0.01)
    client: Any = transport._client
    client.meta.events.register(event, hook)
    yield
    client.meta.events.unregister(event, hook)


def test_the_same_message_twice_in_one_receive_is_deleted_once(sqs_under_test: SqsUnderTest) -> None:
    deleted: list[str] = []

    def twice(parsed: Any, **_: object) -> None:
        parsed["Messages"] = [*parsed.get("Messages", []), *parsed.get("Messages", [])]

    def count(params: Any, **_: object) -> None:
        deleted.extend(entry["ReceiptHandle"] for entry in json.loads(params["body"])["Entries"])

    transport = sqs_under_test.open()
    with hooked(transport, "after-call.sqs.ReceiveMessage", twice):
        sqs_under_test.send(*bodies(3))
        deliveries = collect(transport, 6)
    with hooked(transport, "before-call.sqs.DeleteMessageBatch", count):
        transport.settle([(delivery, Ack()) for delivery in deliveries])
    assert len({delivery.message_id for delivery in deliveries}) == 3
    assert len(deleted) == len(set(deleted)) == 3
    eventually(transport.idle)


def test_a_failed_delete_after_commit_is_a_duplicate_not_an_error(sqs_under_test: SqsUnderTest) -> None:
    calls: list[int] = []

    def fail(parsed: Any, **_: object) -> None:
        calls.append(len(parsed["Successful"]))
        parsed["Failed"] = [
            {"Id": entry["Id"], "SenderFault": False, "Code": "InternalError"} for entry in parsed.pop("Successful")
        ]
        parsed["Successful"] = []

    sqs_under_test.send(*bodies(4))
    transport = sqs_under_test.open()
    deliveries = collect(transport, 4)
    with hooked(transport, "after-call.sqs.DeleteMessageBatch", fail):
        transport.settle([(delivery, Ack()) for delivery in deliveries])
    assert calls == [4] * ENTRY_TRIES  # tried a bounded number of times, then left
    eventually(transport.idle)


def test_entries_that_fail_are_tried_again_and_no_others(sqs_under_test: SqsUnderTest) -> None:
    sizes: list[int] = []

    def fail_first(parsed: Any, **_: object) -> None:
        sizes.append(len(parsed["Successful"]))
        if len(sizes) == 1:
            entry = parsed["Successful"].pop()
            parsed["Failed"] = [{"Id": entry["Id"], "SenderFault": False, "Code": "InternalError"}]

    sqs_under_test.send(*bodies(5))
    transport = sqs_under_test.open()
    deliveries = collect(transport, 5)
    with hooked(transport, "after-call.sqs.DeleteMessageBatch", fail_first):
        transport.settle([(delivery, Ack()) for delivery in deliveries])
    assert sizes == [5, 1]
    eventually(transport.idle)


def test_visibility_is_extended_while_a_batch_runs(sqs_under_test: SqsUnderTest) -> None:
    extended: Counter[str] = Counter()

    def count(params: Any, **_: object) -> None:
        extended.update(entry["ReceiptHandle"] for entry in json.loads(params["body"])["Entries"])

    sqs_under_test.send(*bodies(12))
    transport = sqs_under_test.open(sqs_visibility_s=8)  # extended after 4 s, which a busy machine manages
    deliveries = collect(transport, 12)
    with hooked(transport, "before-call.sqs.ChangeMessageVisibilityBatch", count):
        eventually(lambda: len(extended) == 12 and min(extended.values()) >= 2, 30)
    transport.settle([(delivery, Ack()) for delivery in deliveries])
    eventually(transport.idle)
    assert transport.skipped == 0
    assert all(delivery.receive_count == 1 for delivery in deliveries)


def test_deletes_go_ten_a_call(sqs_under_test: SqsUnderTest) -> None:
    calls: list[int] = []

    def count(params: Any, **_: object) -> None:
        calls.append(len(json.loads(params["body"])["Entries"]))

    sqs_under_test.send(*bodies(95))
    transport = sqs_under_test.open(sqs_visibility_s=30)
    deliveries = collect(transport, 95)
    with hooked(transport, "before-call.sqs.DeleteMessageBatch", count):
        transport.settle([(delivery, Ack()) for delivery in deliveries])
    assert sorted(calls) == [5] + [10] * 9


def test_a_dead_letter_that_is_not_taken_leaves_its_message(sqs_under_test: SqsUnderTest) -> None:
    def refuse(parsed: Any, **_: object) -> None:
        parsed["Failed"] = [{"Id": entry["Id"], "SenderFault": False, "Code": "x"} for entry in parsed["Successful"]]
        parsed["Successful"] = []

    sqs_under_test.send(b"poison")
    transport = sqs_under_test.open()
    [first] = collect(transport, 1)
    with (
        hooked(transport, "after-call.sqs.SendMessageBatch", refuse),
        pytest.raises(BrokerUnavailable, match="dead letters"),
    ):
        transport.settle([(first, DeadLetter("conflict", "no"))])
    [second] = collect(transport, 1)
    assert second.body == b"poison"
    transport.settle([(second, DeadLetter("conflict", "no"))])
    eventually(transport.idle)


def test_the_buffer_is_bounded(sqs_under_test: SqsUnderTest) -> None:
    sqs_under_test.send(*bodies(80))
    transport = sqs_under_test.open(batch_size=20, sqs_pollers=2, sqs_visibility_s=30)
    [first] = collect(transport, 1)
    hidden: Final = "ApproximateNumberOfMessagesNotVisible"
    url = sqs_under_test.url(first.queue)
    assert transport.receive(1, 1)
    attributes = sqs_under_test.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=[hidden])["Attributes"]
    assert int(attributes[hidden]) <= 2 + 20
    assert len(collect(transport, 78)) == 78


def test_a_queue_that_is_missing_is_named(sqs_under_test: SqsUnderTest) -> None:
    transport = sqs_under_test.open(prefix="nobody-made-this")
    with pytest.raises(BrokerUnavailable, match="queue"):
        transport.receive(1, 1)


def test_a_dead_letter_fits_into_an_sqs_message_and_keeps_what_matters() -> None:
    theirs = {f"a{number}": {"DataType": "String", "StringValue": "x"} for number in range(10)}
    theirs["type"] = {"DataType": "String", "StringValue": "order-placed.v1"}
    ours = {
        message_headers.REASON: "r",
        message_headers.SOURCE_QUEUE: "q",
        message_headers.DETAIL: "d\x00",
        message_headers.FAILURE: "f" * 500,
    }
    entry, size, dropped = sqs_letters.fit("body", theirs, ours)
    kept = entry["MessageAttributes"]
    assert list(kept)[:5] == [
        message_headers.REASON,
        message_headers.SOURCE_QUEUE,
        "type",
        message_headers.DETAIL,
        message_headers.FAILURE,
    ]
    assert len(kept) == 10
    assert dropped == ["a4", "a5", "a6", "a7", "a8", "a9"]
    assert kept[message_headers.LEFT_OUT]["StringValue"] == "a4, a5, a6, a7, a8, a9"
    assert kept[message_headers.DETAIL]["StringValue"] == "d\ufffd"
    assert size < 1_000
    small, size, dropped = sqs_letters.fit("b" * 900, theirs, ours, limit=1_000)
    assert size <= 1_000
    assert message_headers.FAILURE in dropped
    assert message_headers.REASON in small["MessageAttributes"]
    assert sqs_letters.fit("b" * 1_000, theirs, ours, limit=1_000)[0]["MessageAttributes"] == {}
    # What says that something is missing never takes the place of what says why.
    tight = sqs_letters.fit("b" * 940, theirs, ours, limit=1_000)[0]["MessageAttributes"]
    assert list(tight)[:2] == [message_headers.REASON, message_headers.SOURCE_QUEUE]
    assert message_headers.LEFT_OUT not in tight
