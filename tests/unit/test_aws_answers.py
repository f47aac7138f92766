"""Another service where SNS and SQS should be, such as a proxy with its login page: an answer that is none is a broker away."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler

import pytest

from incentive_fleet.brokers.aws.client import available, sns_client, sqs_client
from incentive_fleet.embedded.aws import CREDENTIALS
from incentive_fleet.errors import BrokerUnavailable
from incentive_fleet.settings import Settings
from tests.http_listener import serving_http

PAGE = b"<html><body>Log in<br></body></html>"
OTHER_XML = b"<?xml version='1.0'?><ListBucketsResponse xmlns='x'><Buckets/></ListBucketsResponse>"


@contextmanager
def answering(status: int, body: bytes) -> Iterator[str]:
    """A server that gives everybody this answer; its address."""

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """It tells nobody."""

    with serving_http(Answer) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.mark.parametrize("status", [200, 404, 503])
@pytest.mark.parametrize("body", [PAGE, OTHER_XML, b"\xff\x00", b"not json"])
def test_an_answer_of_another_service_is_a_broker_that_is_away(
    status: int, body: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    with answering(status, body) as address:
        settings = Settings(aws_endpoint_url=address, aws_region="eu-central-1")
        for call in (sns_client(settings).list_topics, sqs_client(settings).list_queues):
            with pytest.raises(BrokerUnavailable, match="SNS/SQS: "), available():
                call()


def test_a_bug_of_ours_stays_one() -> None:
    with pytest.raises(KeyError), available():
        _ = dict[str, str]()["QueueUrl"]
