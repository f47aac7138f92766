"""What is no event is named in the detail: somebody looks at a dead letter and sees what was set up wrongly."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from incentive_fleet.brokers.messages import DeadLetter, Delivery
from incentive_fleet.consumers.core import Core
from incentive_fleet.errors import Malformed
from incentive_fleet.events.codec import decode
from incentive_fleet.events.models import QUOTE_TYPE, TYPES, QuoteRequested
from incentive_fleet.events.reasons import Reason
from incentive_fleet.ledger.session import Session
from tests.event_bodies import ALL, ORDER, encoded, wrapped

CONFIRMATION = {
    "Type": "SubscriptionConfirmation",
    "MessageId": "165545c9-2a5c-472c-8df2-7ff2be2b3b1b",
    "Token": "2336412f37",
    "TopicArn": "arn:aws:sns:eu-central-1:123456789012:incentives-events",
    "Message": "You have chosen to subscribe to the topic.",
    "SubscribeURL": "https://sns.eu-central-1.amazonaws.com/?Action=ConfirmSubscription",
    "Timestamp": "2026-03-01T10:00:01.123Z",
}
POINTER = {"s3BucketName": "bodies", "s3Key": "9f1c"}
FOREIGN: list[tuple[str, Any, str]] = [
    ("a subscription confirmation", CONFIRMATION, "an SNS subscription confirmation"),
    ("its other end", CONFIRMATION | {"Type": "UnsubscribeConfirmation"}, "an SNS unsubscribe confirmation"),
    (
        "EventBridge",
        {"version": "0", "id": "6a7e", "detail-type": "Order", "source": "shop", "account": "1", "detail": ORDER},
        "an EventBridge event",
    ),
    ("a pointer", ["software.amazon.payloadoffloading.PayloadS3Pointer", POINTER], "an S3 pointer"),
    ("an older pointer", ["com.amazon.sqs.javamessaging.MessageS3Pointer", POINTER], "an S3 pointer"),
    ("a pointer of .NET", {"S3BucketName": "bodies", "S3Key": "9f1c"}, "an S3 pointer"),
    ("S3", {"Records": [{"eventVersion": "2.1", "eventSource": "aws:s3", "s3": {}}]}, "an S3 event notification"),
    ("S3's test", {"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "b"}, "a test event of S3"),
    ("DynamoDB", {"Records": [{"eventSource": "aws:dynamodb"}]}, "a list of records of 'aws:dynamodb'"),
    ("SNS for Lambda", {"Records": [{"EventSource": "aws:sns", "Sns": {}}]}, "a list of records of 'aws:sns'"),
    ("an alarm", {"AlarmName": "a", "NewStateValue": "ALARM"}, "a CloudWatch alarm"),
    ("a batch", [ORDER, ORDER], "a batch of CloudEvents"),
    ("MassTransit", {"messageId": "1", "messageType": ["urn:message:Order"], "message": {}}, "a MassTransit envelope"),
    ("Event Grid", [{"eventType": "a", "eventTime": "b", "dataVersion": "1", "data": {}}], "an Event Grid event"),
    ("SNS in SNS", json.loads(wrapped(encoded(ORDER))), "an SNS notification inside another"),
    *((f"{name} in binary mode", document["data"], "a CloudEvent in binary mode") for name, document in ALL.items()),
]
FOREIGN += [
    (f"{name} in binary mode, {lost} lost", {k: v for k, v in document["data"].items() if k != lost}, document["type"])
    for name, document in ALL.items()
    for lost in document["data"]
    if lost != "order_id"
]
# As most senders write it: the fields alone that it must have.
FOREIGN += [
    (f"{type_} in binary mode, bare", dict.fromkeys(needed, "x"), f"the data of {type_} without")
    for type_, model in {**TYPES, QUOTE_TYPE: QuoteRequested}.items()
    for needed in [[name for name, field in model.model_fields.items() if field.is_required()]]
]
IDS = [case[0] for case in FOREIGN]


def refusal(body: bytes) -> Malformed:
    """Of a body that is no event."""
    with pytest.raises(Malformed) as caught:
        decode(body)
    return caught.value


@pytest.mark.parametrize(
    ("document", "named"), [case[1:] for case in FOREIGN if case[0] != "SNS in SNS"], ids=lambda v: ""
)
def test_what_is_no_event_is_named(document: Any, named: str) -> None:
    found = refusal(encoded(document))
    assert found.reason == Reason.NOT_A_CLOUD_EVENT
    assert named in found.detail
    assert len(found.detail) <= 400


@pytest.mark.parametrize(("document", "named"), [case[1:] for case in FOREIGN], ids=IDS)
def test_so_it_is_inside_an_sns_notification(document: Any, named: str) -> None:
    assert named in refusal(wrapped(encoded(document))).detail


def test_a_confirmation_shows_neither_token_nor_address() -> None:
    assert CONFIRMATION["Token"] not in (detail := refusal(encoded(CONFIRMATION)).detail)
    assert "https" not in detail


@pytest.mark.parametrize(
    "document",
    [
        *({}, [], [1], [[]], {"Type": 7}, {"Type": []}, {"Records": []}, {"Records": [1]}, {"Records": {}}, "x", 1),
        *({"order_id": "o"}, {"order_id": "o", "name": "x"}),
        {name: ORDER[name] for name in ("id", "source", "type", "data")},
    ],
)
def test_what_nobody_knows_is_said_to_be_no_event_and_no_more(document: object) -> None:
    assert refusal(encoded(document)).detail in ("specversion is missing", "the document is not an object")


@pytest.mark.parametrize("header", ["ce-type", "ce_type", "Ce-Type", "cloudEvents:type", "cloudEvents_type"])
@pytest.mark.parametrize("body", [encoded(ORDER["data"]), b"", b"\xff\x00", b"<order/>", b"{}"])
def test_headers_of_binary_mode_are_told_whatever_the_body_is(header: str, body: bytes) -> None:
    outcome = judged(body, {header: "order-placed.v1"})
    assert isinstance(outcome, DeadLetter)
    assert f"its header {header} of 'order-placed.v1'" in outcome.detail
    assert "binary mode" in outcome.detail


def test_headers_say_nothing_of_a_body_that_is_a_cloud_event() -> None:
    outcome = judged(encoded(ORDER | {"id": ""}), {"ce-type": "order-placed.v1"})
    assert isinstance(outcome, DeadLetter)
    assert "binary mode" not in outcome.detail


def judged(body: bytes, headers: dict[str, str]) -> object:
    """What the core says of a message that no database is needed for."""
    core = Core(Session("postgresql:///nowhere"), (), clock=lambda: datetime(2026, 3, 1, tzinfo=UTC))
    delivery = Delivery(body, "incentives.order-placed", "memory", "m-1", 1, None, headers)
    ((_, outcome),) = core.process([delivery], carries_failures=True)
    return outcome
