"""The SNS publisher against an emulator, and against a service that fails as AWS documents it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any, Protocol
from urllib.parse import parse_qs
from xml.sax.saxutils import escape

import pytest

from incentive_fleet.brokers.aws.client import ENTRY_TRIES
from incentive_fleet.brokers.aws.publisher import SnsPublisher
from incentive_fleet.brokers.messages import Message
from incentive_fleet.errors import BrokerUnavailable, SettingsError
from incentive_fleet.settings import Settings
from tests.aws_clients import aws_client
from tests.http_listener import serving_http

REGION = "eu-central-1"
TYPE = "order-placed.v1"
ARN = f"arn:aws:sns:{REGION}:123456789012:somewhere"


def at(endpoint_url: str) -> Settings:
    return Settings(aws_region=REGION, aws_endpoint_url=endpoint_url)


class Emulator(Protocol):
    endpoint_url: str
    environment: Mapping[str, str]


@pytest.fixture
def queue(moto_server: Emulator, prefix: str) -> Iterator[tuple[Any, str]]:
    """An SQS queue with raw delivery from the topic `<prefix>-events`."""
    sns, sqs = (aws_client(service, moto_server.endpoint_url) for service in ("sns", "sqs"))
    topic = sns.create_topic(Name=f"{prefix}-events")["TopicArn"]
    url = sqs.create_queue(QueueName=prefix)["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn, Attributes={"RawMessageDelivery": "true"})
    yield sqs, url
    sns.delete_topic(TopicArn=topic)
    sqs.delete_queue(QueueUrl=url)
    sns.close()
    sqs.close()


@pytest.fixture
def publisher(moto_server: Emulator, queue: object, prefix: str) -> Iterator[SnsPublisher]:
    with SnsPublisher(at(moto_server.endpoint_url), f"{prefix}-events") as publisher:
        yield publisher


def drain(queue: tuple[Any, str]) -> list[Any]:
    sqs, url = queue
    arrived: list[Any] = []
    while got := sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, MessageAttributeNames=["All"]).get(
        "Messages"
    ):
        arrived += got
        sqs.delete_message_batch(
            QueueUrl=url, Entries=[{"Id": str(n), "ReceiptHandle": m["ReceiptHandle"]} for n, m in enumerate(got)]
        )
    return arrived


def test_every_message_arrives_with_its_type(publisher: SnsPublisher, queue: tuple[Any, str]) -> None:
    publisher.check()
    given = [Message(b'{"n": %d, "a": "\xc3\xa4"}' % number, TYPE, None) for number in range(43)]
    assert publisher.publish([*given, Message(b"no type", None, None)]) == []
    arrived = drain(queue)
    assert sorted(m["Body"].encode() for m in arrived) == sorted([*(m.body for m in given), b"no type"])
    types = [m.get("MessageAttributes", {}).get("type", {}).get("StringValue") for m in arrived]
    assert sorted(types, key=str) == [None, *[TYPE] * 43]


def test_what_can_never_be_sent_is_named_and_the_rest_arrives(publisher: SnsPublisher, queue: tuple[Any, str]) -> None:
    given = [b"1", bytes(b"x" * 262_144), b"\xff", b"2"]
    rejections = publisher.publish([Message(body, TYPE, None) for body in given])
    assert [(rejection.index, rejection.reason) for rejection in rejections] == [(1, "too-large"), (2, "not-text")]
    assert sorted(m["Body"] for m in drain(queue)) == ["1", "2"]


def test_a_missing_topic_is_an_error(moto_server: Emulator, prefix: str) -> None:
    for topic in (f"{prefix}-none", f"arn:aws:sns:{REGION}:123456789012:{prefix}-none"):
        with SnsPublisher(at(moto_server.endpoint_url), topic) as publisher:
            with pytest.raises(SettingsError, match=f"{prefix}-none"):
                publisher.check()
            with pytest.raises(SettingsError, match=f"{prefix}-none"):
                publisher.publish([Message(b"1", TYPE, None)])


def test_a_service_that_is_away_is_unavailable() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with SnsPublisher(at(url), ARN) as publisher, pytest.raises(BrokerUnavailable):
            publisher.publish([Message(b"1", TYPE, None)])


class FaultySns:
    """An SNS endpoint that answers as told: how often each message fails, and whose fault it is."""

    def __init__(self) -> None:
        self.fails: dict[str, int] = {}  # by message text: that many times more; by default never
        self.sender_fault = False
        self.refuses: set[str] = set()  # a call that holds one of these texts is refused whole
        self.status = 200
        self.calls: list[list[str]] = []
        self.lock = threading.Lock()

    def answer(self, form: dict[str, list[str]]) -> tuple[int, str]:
        action = form["Action"][0]
        if self.status != 200:
            return self.status, _error("InternalError", "Receiver")
        if action == "GetTopicAttributes":
            return 200, f"<{action}Response><{action}Result><Attributes/></{action}Result></{action}Response>"
        lead = "PublishBatchRequestEntries.member"
        entries: list[tuple[str, str]] = []
        while f"{lead}.{len(entries) + 1}.Id" in form:
            entry = f"{lead}.{len(entries) + 1}"
            entries.append((form[f"{entry}.Id"][0], form[f"{entry}.Message"][0]))
        with self.lock:
            self.calls.append([text for _, text in entries])
            if self.refuses & {text for _, text in entries}:
                return 400, _error("InvalidParameter", "Sender")
            return 200, self._batch(entries)

    def _batch(self, entries: list[tuple[str, str]]) -> str:
        good, bad = "", ""
        for id_, text in entries:
            left = self.fails.get(text, 0)
            self.fails[text] = left - 1
            if left > 0:
                fault = str(self.sender_fault).lower()
                bad += f"<member><Id>{id_}</Id><Code>Oops</Code><SenderFault>{fault}</SenderFault></member>"
            else:
                good += f"<member><Id>{escape(id_)}</Id><MessageId>m</MessageId></member>"
        inner = f"<Successful>{good}</Successful><Failed>{bad}</Failed>"
        return f"<PublishBatchResponse><PublishBatchResult>{inner}</PublishBatchResult></PublishBatchResponse>"


def _error(code: str, type_: str) -> str:
    return f"<ErrorResponse><Error><Type>{type_}</Type><Code>{code}</Code><Message>no</Message></Error></ErrorResponse>"


@contextmanager
def serving(faulty_sns: FaultySns) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            status, body = faulty_sns.answer(parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode()))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, format: str, *args: object) -> None:
            """Keep the test's output clean."""

    with serving_http(Handler) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def faulty_sns() -> FaultySns:
    return FaultySns()


@pytest.fixture
def publisher_to_faulty(faulty_sns: FaultySns) -> Iterator[SnsPublisher]:
    with serving(faulty_sns) as url, SnsPublisher(at(url), ARN, pause_s=0.001) as publisher:
        yield publisher


def given(*texts: str) -> list[Message]:
    return [Message(text.encode(), TYPE, None) for text in texts]


def test_an_entry_that_the_service_failed_is_tried_again_alone(
    faulty_sns: FaultySns, publisher_to_faulty: SnsPublisher
) -> None:
    faulty_sns.fails = {"b": 2}
    assert publisher_to_faulty.publish(given("a", "b", "c")) == []
    assert faulty_sns.calls == [["a", "b", "c"], ["b"], ["b"]]


def test_an_entry_that_the_service_keeps_failing_is_named_after_bounded_tries(
    faulty_sns: FaultySns, publisher_to_faulty: SnsPublisher
) -> None:
    faulty_sns.fails = {"b": 100}
    rejections = publisher_to_faulty.publish(given("a", "b"))
    assert [(rejection.index, rejection.reason) for rejection in rejections] == [(1, "unavailable")]
    assert len(faulty_sns.calls) == ENTRY_TRIES


def test_an_entry_at_fault_itself_is_not_tried_again(faulty_sns: FaultySns, publisher_to_faulty: SnsPublisher) -> None:
    faulty_sns.fails, faulty_sns.sender_fault = {"a": 100}, True
    rejections = publisher_to_faulty.publish(given("a", "b"))
    assert [(rejection.index, rejection.reason) for rejection in rejections] == [(0, "refused")]
    assert "Oops" in rejections[0].detail
    assert len(faulty_sns.calls) == 1


def test_a_call_refused_for_one_entry_is_made_again_entry_by_entry(
    faulty_sns: FaultySns, publisher_to_faulty: SnsPublisher
) -> None:
    faulty_sns.refuses = {"b"}
    rejections = publisher_to_faulty.publish(given("a", "b", "c"))
    assert [(rejection.index, rejection.reason) for rejection in rejections] == [(1, "refused")]
    assert faulty_sns.calls == [["a", "b", "c"], ["a"], ["b"], ["c"]]


def test_an_internal_error_is_unavailable(faulty_sns: FaultySns, publisher_to_faulty: SnsPublisher) -> None:
    publisher_to_faulty.check()
    faulty_sns.status = 500
    with pytest.raises(BrokerUnavailable):
        publisher_to_faulty.publish(given("a"))
