"""Traces by OTLP: from the event, the attribute or the header to the spans of its batch, its outcome, and `order` and `wallet`."""

from __future__ import annotations

import json
import signal
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pika
import psycopg
import pytest

from incentive_fleet import names
from incentive_fleet.brokers.memory import MemoryBroker, MemoryTransport
from incentive_fleet.consumers.consumer import Consumer
from incentive_fleet.consumers.core import Core
from incentive_fleet.embedded import sample_shop
from incentive_fleet.ledger.session import Session
from incentive_fleet.settings import Settings
from incentive_fleet.stopping import Stop
from incentive_fleet.tracing import Spans
from tests.aws_clients import aws_client
from tests.brokers_and_workers import Brokers, log_of, said, settings_of, start, start_worker
from tests.chaos.faults import CONSUME, Fleet
from tests.command import incentives
from tests.contract.brokers_under_test import eventually
from tests.otlp import Collector, attributes_of, collector
from tests.shop import open_shop

SHOP = sample_shop.Shop(3, seed=4)
PLACINGS = [json.loads(body) for _, body in sample_shop.events(SHOP) if b"order-placed" in body]
CHILDREN = {"receive", "decode", "lock", "decide", "write", "commit", "settle"}


def traceparent(number: int) -> str:
    return f"00-{number:032x}-{number:016x}-01"


def placing(name: str, **members: str) -> bytes:
    one = PLACINGS[0] | {"id": name, "subject": name} | members
    return json.dumps(one | {"data": one["data"] | {"order_id": name}}).encode()


def by_header(brokers: Brokers, body: bytes, trace: str) -> None:
    with brokers.channel() as channel:
        channel.confirm_delivery()
        exchange, properties = names.events_exchange(brokers.settings.prefix), pika.BasicProperties(delivery_mode=2)
        properties.headers = {"traceparent": trace}
        channel.basic_publish(exchange, "order-placed.v1", body, properties, mandatory=True)


def by_attribute(brokers: Brokers, body: bytes, trace: str) -> None:
    sns: Any = aws_client("sns", brokers.settings.aws_endpoint_url)
    topics = [one["TopicArn"] for one in sns.list_topics()["Topics"]]
    attributes = {"type": "order-placed.v1", "traceparent": trace}
    sns.publish(
        TopicArn=next(arn for arn in topics if arn.endswith(f":{names.events_topic(brokers.settings.prefix)}")),
        Message=body.decode(),
        MessageAttributes={name: {"DataType": "String", "StringValue": text} for name, text in attributes.items()},
    )
    sns.close()


def stored(url: str) -> dict[str, str | None]:
    with psycopg.connect(url) as connection:
        return dict(connection.execute("SELECT order_id, traceparent FROM facts").fetchall())


def outcomes(url: str) -> dict[str, Any]:
    with psycopg.connect(url) as connection:
        rows = connection.execute("SELECT order_id, body FROM outbox WHERE order_id <> ''").fetchall()
    return {order_id: json.loads(body).get("traceparent") for order_id, body in rows}


@pytest.fixture
def settings(database_url: str, rabbitmq: Any, localstack: Any) -> Settings:
    open_shop(database_url, SHOP)
    return settings_of(
        f"t{uuid.uuid4().hex[:8]}",
        rabbitmq_url=rabbitmq.url,
        aws_endpoint_url=localstack.endpoint_url,
        database_url=database_url,
    )


def ended(process: Any) -> int:
    process.send_signal(signal.SIGTERM)
    return int(process.wait(60))


def test_a_header_s_trace_is_stored_and_passed_on_whether_or_not_anybody_traces(database_url: str) -> None:
    open_shop(database_url, SHOP)
    with collector() as otlp:
        spans = Spans(Settings(otlp_endpoint=otlp.url))
        for number, traced in enumerate((spans, None), start=1):
            broker, session = MemoryBroker(), Session(database_url)
            broker.publish(placing(f"o-{number}"), "order-placed.v1", headers={"traceparent": traceparent(number)})
            broker.publish(placing(f"o-{number}"), "order-placed.v1")  # the same without a trace is a duplicate
            core = Core(session, (1.0,), lambda: datetime.now(UTC))
            Consumer("memory-1", MemoryTransport(broker), core, 1, 0.05, 1.0, Stop(), spans=traced).run(0.01)
            assert core.counts == {"applied": 1, "duplicate": 1}
        spans.close(10)
    assert stored(database_url) == outcomes(database_url) == {"o-1": traceparent(1), "o-2": traceparent(2)}
    assert [[link(one) for one in span.links] for span in batches(otlp)] == [[1], []]
    for batch in batches(otlp):
        assert {span.name for span in otlp.spans if span.parent_span_id == batch.span_id} >= CHILDREN - {
            "decide",
            "write",
        }


def test_a_trace_leads_from_the_sender_to_the_batch_the_ledger_and_the_outcome(
    settings: Settings, tmp_path: Path
) -> None:
    brokers = Brokers(settings)
    brokers.apply()
    with collector() as otlp:
        traced = settings.model_copy(update={"otlp_endpoint": otlp.url})
        worker = start_worker("sqs,rabbitmq", traced, log=tmp_path / "log")
        try:
            brokers.publish("rabbitmq", [placing("o-event", traceparent=traceparent(1)), placing("o-none")])
            by_header(brokers, placing("o-header"), traceparent(2))
            by_attribute(brokers, placing("o-attribute"), traceparent(3))
            by_header(brokers, placing("o-both", traceparent=traceparent(4)), traceparent(5))
            by_header(brokers, placing("o-bad"), "00-no-trace-01")
            eventually(lambda: len(stored(settings.need_database_url())) == 6, 60)
            # The same events by another way and with another trace, or none: nothing but duplicates.
            by_attribute(brokers, placing("o-header"), traceparent(6))
            brokers.publish("rabbitmq", [placing("o-attribute"), placing("o-event")])
            eventually(
                lambda: {link(one) for span in batches(otlp) for one in span.links} >= set(range(1, 5)) | {6}, 60
            )
            eventually(
                lambda: sum(attributes_of(one)["messaging.batch.message_count"] for one in batches(otlp)) == 9, 60
            )
            assert ended(worker) == 128 + signal.SIGTERM
        finally:
            if worker.poll() is None:
                worker.kill()
                worker.wait()
            brokers.close()
        check_spans(otlp)
    wanted = {"o-event": 1, "o-none": None, "o-header": 2, "o-attribute": 3, "o-both": 4, "o-bad": None}
    expected = {order: traceparent(number) if number else None for order, number in wanted.items()}
    assert stored(settings.need_database_url()) == expected
    assert outcomes(settings.need_database_url()) == expected
    assert not [line for line in log_of(tmp_path / "log") if line["level"] != "info"]
    check_commands(settings)


def batches(otlp: Collector) -> list[Any]:
    return [span for span in otlp.spans if span.name == "process batch"]


def value_of(point: Any) -> float:
    return float(getattr(point, point.WhichOneof("value")))


def link(one: Any) -> int:
    return int.from_bytes(one.trace_id)


def check_spans(otlp: Collector) -> None:
    for batch in batches(otlp):
        told = attributes_of(batch)
        assert told["messaging.system"] in {"rabbitmq", "aws_sqs"}
        assert told["messaging.operation.type"] == "process"
        below = [span for span in otlp.spans if span.parent_span_id == batch.span_id]
        assert {span.name for span in below} == CHILDREN
        for span in below:
            assert batch.start_time_unix_nano <= span.start_time_unix_nano <= span.end_time_unix_nano
            assert span.end_time_unix_nano <= batch.end_time_unix_nano
            assert span.trace_id == batch.trace_id
    assert {attributes_of(batch)["messaging.system"] for batch in batches(otlp)} == {"rabbitmq", "aws_sqs"}
    assert all(resource["service.name"] == "incentives" for resource in otlp.resources)


def run_command(settings: Settings, *words: str) -> str:
    return incentives(*words, env={"INCENTIVES_DATABASE_URL": settings.need_database_url()}).out


def check_commands(settings: Settings) -> None:
    order = json.loads(run_command(settings, "order", "o-header", "--format", "json"))
    assert order["facts"][0]["trace_id"] == f"{2:032x}"
    assert {transfer["trace_id"] for transfer in order["transfers"]} <= {f"{2:032x}"}
    assert f"{2:032x}" in run_command(settings, "order", "o-header")
    wallet = json.loads(run_command(settings, "wallet", order["customer_id"], "--format", "json"))
    known = {line["trace_id"] for one in wallet["wallets"] for line in one["transfers"]}
    assert known <= {None, *(f"{number:032x}" for number in range(1, 5))}
    assert "trace_id" not in run_command(settings, "order", "o-none")


def test_metrics_are_pushed_with_the_names_of_the_page_and_a_collector_that_is_away_is_said_once(
    settings: Settings, tmp_path: Path
) -> None:
    alone = settings.model_copy(update={"aws_region": None, "aws_endpoint_url": None})
    brokers = Brokers(alone)
    brokers.apply()
    command = [*CONSUME[: CONSUME.index("all")], "rabbitmq"]
    try:
        with collector() as otlp:
            fleet = Fleet(alone.model_copy(update={"otlp_endpoint": otlp.url}), tmp_path / "log")
            fleet.process = start(command, fleet.settings, fleet.log)
            brokers.publish("rabbitmq", [placing("o-1")])
            eventually(lambda: "o-1" in stored(alone.need_database_url()), 60)
            eventually(lambda: bool(batches(otlp)), 60)
            assert fleet.end(signal.SIGTERM) == 0
        found = {metric.name: metric for metric in otlp.metrics}  # the last push is of the end
        events = found["incentives_events_total"].sum
        assert events.is_monotonic
        assert [(attributes_of(one), value_of(one)) for one in events.data_points] == [({"outcome": "applied"}, 1)]
        phases = found["incentives_batch_phase_seconds"]
        assert phases.unit == "s"
        assert {attributes_of(one)["phase"] for one in phases.histogram.data_points} == CHILDREN
        assert all(sum(one.bucket_counts) == one.count > 0 for one in phases.histogram.data_points)
        assert all(len(one.bucket_counts) == len(one.explicit_bounds) + 1 for one in phases.histogram.data_points)
        assert value_of(found["incentives_workers_wanted"].gauge.data_points[0]) == 1
        away = Fleet(fleet.settings, tmp_path / "away")  # nobody listens there any more
        away.process = start(command, away.settings, away.log)
        for number in (2, 3):
            brokers.publish("rabbitmq", [placing(f"o-{number}")])
            eventually(lambda number=number: f"o-{number}" in stored(alone.need_database_url()), 60)  # type: ignore[misc]
            eventually(lambda: bool(said(away.log, "traces cannot be sent and are dropped")), 60)
        assert away.end(signal.SIGTERM) == 0
        assert len(said(away.log, "traces cannot be sent and are dropped")) == 1
        assert all(line["log.logger"].startswith("incentive_fleet") for line in log_of(away.log))
    finally:
        brokers.close()
