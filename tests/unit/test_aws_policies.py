"""Merging our statements into a policy: what AWS may write in several ways is one thing, and what is not ours is not touched."""

from __future__ import annotations

import json
from typing import Any

import pytest

from incentive_fleet.brokers.aws.encryption import Encryption, of_queue, of_topic
from incentive_fleet.brokers.aws.policies import (
    VERSION,
    differences,
    merged,
    refuse_plain_transport,
    topic_may_send,
)

QUEUE = "arn:aws:sqs:eu-central-1:123456789012:incentives-order-placed"
OURS = [
    topic_may_send(QUEUE, "arn:aws:sns:eu-central-1:123456789012:incentives-events"),
    refuse_plain_transport(QUEUE, "sqs:*"),
]
FOREIGN = {"Effect": "Deny", "Principal": "*", "Action": "sqs:PurgeQueue", "Resource": QUEUE}  # it has no Sid


def test_a_queue_without_a_policy_gets_ours_alone() -> None:
    for none in (None, ""):
        assert json.loads(merged(OURS, none)) == {"Version": VERSION, "Statement": OURS}
        assert len(differences(OURS, none)) == 2


@pytest.mark.parametrize("statement", [FOREIGN, [FOREIGN], [FOREIGN, FOREIGN]])
def test_statements_without_a_sid_stay(statement: Any) -> None:
    policy = json.dumps({"Version": "2008-10-17", "Id": "x", "Statement": statement})
    after = json.loads(merged(OURS, policy))
    kept = statement if isinstance(statement, list) else [statement]
    assert after == {"Version": "2008-10-17", "Id": "x", "Statement": [*kept, *OURS]}
    assert differences(OURS, json.dumps(after)) == {}
    assert json.loads(merged(OURS, json.dumps(after))) == after


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Action", ["sqs:*"]),
        ("Principal", {"AWS": "*"}),
        ("Principal", {"AWS": ["*"]}),
        ("Resource", [QUEUE]),
        ("Condition", {"Bool": {"aws:SecureTransport": False}}),
        ("Condition", {"Bool": {"aws:SecureTransport": ["false"]}}),
    ],
)
def test_one_statement_written_in_several_ways_is_no_difference(name: str, value: object) -> None:
    assert differences(OURS, json.dumps({"Statement": [OURS[0], OURS[1] | {name: value}]})) == {}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Effect", "Allow"),
        ("Action", ["sqs:*", "sqs:SendMessage"]),
        ("Principal", {"AWS": "arn:aws:iam::123456789012:root"}),
        ("Resource", "*"),
        ("Condition", {"Bool": {"aws:SecureTransport": "true"}}),
        ("NotAction", "sqs:SendMessage"),
    ],
)
def test_a_statement_of_ours_that_says_something_else_is_one(name: str, value: object) -> None:
    policy = json.dumps({"Statement": [OURS[0], OURS[1] | {name: value}]})
    assert list(differences(OURS, policy)) == ["Policy IncentivesRefusePlainTransport"]
    assert json.loads(merged(OURS, policy))["Statement"] == OURS


KEY = "arn:aws:kms:eu-central-1:123456789012:key/0f1e2d3c"


@pytest.mark.parametrize(
    ("key", "actual", "expected"),
    [
        (None, {}, Encryption({"SqsManagedSseEnabled": "true"})),
        (None, {"SqsManagedSseEnabled": "true"}, Encryption()),
        (None, {"KmsMasterKeyId": KEY, "SqsManagedSseEnabled": "false"}, Encryption()),
        ("0f1e2d3c", {"KmsMasterKeyId": KEY}, Encryption()),
        (KEY, {"KmsMasterKeyId": "0f1e2d3c"}, Encryption()),
        (KEY, {"SqsManagedSseEnabled": "true"}, Encryption({"KmsMasterKeyId": KEY})),
        (KEY, {"KmsMasterKeyId": "alias/other"}, Encryption(foreign={"KmsMasterKeyId": ("alias/other", KEY)})),
        (KEY, {"KmsMasterKeyId": "alias/aws/sqs"}, Encryption(foreign={"KmsMasterKeyId": ("alias/aws/sqs", KEY)})),
    ],
)
def test_what_encrypts_a_queue(key: str | None, actual: dict[str, str], expected: Encryption) -> None:
    assert of_queue(key, actual) == expected


def test_a_topic_has_a_key_or_is_left_alone() -> None:
    assert of_topic(None, {}) == Encryption()
    assert of_topic(None, {"KmsMasterKeyId": "alias/other"}) == Encryption()
    assert of_topic(KEY, {}) == Encryption({"KmsMasterKeyId": KEY})
    assert of_topic(KEY, {"KmsMasterKeyId": "alias/other"}).wanted == {}
