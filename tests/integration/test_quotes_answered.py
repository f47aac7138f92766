"""`incentives answer-quotes` over real brokers: examples are answered, beside a backlog, through outages, until the stop."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pika
import pytest

from incentive_fleet.embedded.postgres import Postgres
from incentive_fleet.events.codec import encode_event
from incentive_fleet.ledger.session import Session
from tests.brokers_and_workers import Brokers, environment_of, said, start
from tests.contract.brokers_under_test import eventually
from tests.domain import NOON, placed, terms
from tests.parts import fresh_database
from tests.quoting import request_body
from tests.rabbitmq_queues import purge
from tests.running import refused_port
from tests.small_world import give, load

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
TYPE = "incentives-quote-requested.v1"


@pytest.fixture
def ledger(database_url: str) -> str:
    with closing(Session(database_url)) as session:
        load(session, terms("coupon", "w", code="WELCOME10", rate_bps=1_000), terms("grant", "gift"))
        give(session, "g", 300, customer_id="customer-1")
    return database_url


@contextmanager
def answering(brokers: Brokers, url: str, source: str, folder: Path, **more: str) -> Iterator[subprocess.Popen[bytes]]:
    """The command, and in the end its drain, which must be in order."""
    settings = brokers.settings.model_copy(update={"database_url": url})
    program = [sys.executable, "-m", "incentive_fleet.cli.main", "answer-quotes", "--from", source, "--format", "json"]
    log = {"log": folder / "log", "out": folder / "out"}
    process = start(program, settings, **log, INCENTIVES_LOG_FORMAT="json", **more)  # type: ignore[arg-type]
    try:
        yield process
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0, (folder / "log").read_text()
    finally:
        process.kill()
        process.wait()


def run_example(name: str, brokers: Brokers, *arguments: str) -> dict[str, Any]:
    env = environment_of(brokers.settings, PATIENCE_S="30")
    ran = subprocess.run(
        [sys.executable, EXAMPLES / name, *arguments],
        input=(EXAMPLES / "quote_request.json").read_text(encoding="utf-8"),
        check=False,
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.returncode == 0, ran.stderr
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


def test_the_examples_are_answered_on_both_brokers_beside_a_backlog_of_orders(
    brokers: Brokers, ledger: str, tmp_path: Path
) -> None:
    for source in brokers.queues:
        brokers.publish(
            source, [encode_event("/shop", f"{source}-{n}", placed(f"{source}-{n}"), NOON) for n in range(200)]
        )
    reply_queue = str(brokers.sqs.create_queue(QueueName=f"{brokers.settings.prefix}-checkout")["QueueUrl"])
    allowed = f"amq.rabbitmq.reply-to.*, {reply_queue}"
    port = refused_port()
    more = {"INCENTIVES_ALLOWED_REPLY_ADDRESSES": allowed, "INCENTIVES_HEALTH_PORT": str(port)}
    with answering(brokers, ledger, "all", tmp_path, **more):
        by_rabbitmq = run_example("quote_with_pika.py", brokers)
        by_sqs = run_example("quote_with_boto3.py", brokers, reply_queue)
        eventually(lambda: b'incentives_quotes_total{disposition="answered",source="sqs"} 1.0' in page(port, "metrics"))
        assert b'incentives_quote_seconds_count{source="rabbitmq"} 1.0' in page(port, "metrics")
        assert json.loads(page(port, "readyz"))["status"] == "ready"
    assert by_rabbitmq["coupons"][0]["discount"] == by_sqs["coupons"][0]["discount"] == 90
    assert by_rabbitmq["credit"] == {"requested": 500, "applied": 300, "shortfall": 200, "refusal": None}
    assert json.loads((tmp_path / "out").read_text())["counts"] == {"answered": 2}
    for source in brokers.queues:  # nobody has touched the orders
        assert brokers.left(source) == {brokers.queue_of(source, "order-placed.v1"): 200}
    with brokers.channel() as channel:
        purge(channel, [brokers.queue_of("rabbitmq", "order-placed.v1")])
    brokers.sqs.purge_queue(QueueUrl=brokers.url(brokers.queue_of("sqs", "order-placed.v1")))


def page(port: int, name: str) -> bytes:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/{name}", timeout=10) as answer:
            found: bytes = answer.read()
            return found
    except OSError:
        return b""


class Asker:
    """A checkout with a reply queue of its own."""

    def __init__(self, brokers: Brokers, channel: Any) -> None:
        self.channel, self.exchange = channel, f"{brokers.settings.prefix}.events"
        self.queue = channel.queue_declare("", exclusive=True).method.queue

    def ask(self, name: str, *, lives_ms: int | None = None, reply_to: str | None = None, body: bytes = b"") -> None:
        about = pika.BasicProperties(
            reply_to=reply_to or self.queue,
            correlation_id=name,
            expiration=None if lives_ms is None else str(lives_ms),
        )
        self.channel.basic_publish(self.exchange, TYPE, body or request_body(name), about)

    def answered(self) -> set[str]:
        found: set[str] = set()
        while (got := self.channel.basic_get(self.queue, auto_ack=True))[0] is not None:
            document = json.loads(got[2])
            assert got[1].correlation_id == document.get("subject", got[1].correlation_id)
            found.add(got[1].correlation_id)
        return found


@pytest.fixture
def own_url(own_postgres: Postgres, own_template: str) -> Iterator[str]:
    with fresh_database(own_postgres, own_template) as url:
        yield url


def test_it_outlives_its_database_and_hostile_requests_and_drains(
    brokers: Brokers, own_postgres: Postgres, own_url: str, tmp_path: Path
) -> None:
    with brokers.channel() as channel, answering(brokers, own_url, "rabbitmq", tmp_path):
        checkout, got = Asker(brokers, channel), set[str]()
        for number in range(20):
            checkout.ask(f"gone-{number}", reply_to=f"amq.gen-{uuid.uuid4().hex}")
            checkout.ask(f"hostile-{number}", body=os.urandom(200))
            checkout.ask(f"elsewhere-{number}", reply_to="invoices")
        checkout.ask("q1")
        eventually(lambda: "q1" in got.__ior__(checkout.answered()), 60)
        assert got == {"q1", *(f"hostile-{number}" for number in range(20))}
        own_postgres.stop()
        checkout.ask("too-late", lives_ms=200)
        over = time.monotonic() + 0.5  # by then it has come here and its time has run out, and Postgres may be back
        checkout.ask("patient")
        eventually(lambda: said(tmp_path / "log", "consuming paused") and time.monotonic() > over, 60)
        own_postgres.start()
        eventually(lambda: "patient" in got.__ior__(checkout.answered()), 60)
        assert "too-late" not in got
    assert {letter.reason for letter in brokers.letters("rabbitmq")} == {"reply-not-allowed"}
    counts = json.loads((tmp_path / "out").read_text())["counts"]
    assert (counts["answered"], counts["malformed"], counts["reply-unroutable"]) == (2, 20, 20)
    assert counts["dead-letter:reply-not-allowed"] == 20
    assert brokers.left("rabbitmq") == {}
