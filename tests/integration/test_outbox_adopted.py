"""The outbox that an order system adopts, in the order system's own database; and the examples, run as people run them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

import pytest
from sqlalchemy import Engine, MetaData, Table, create_engine, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from incentive_fleet.brokers.rabbitmq.publisher import RabbitMQPublisher
from incentive_fleet.embedded.rabbitmq import RabbitMQ
from incentive_fleet.errors import BrokerUnavailable, Malformed
from incentive_fleet.events.codec import decode
from incentive_fleet.events.models import DeliveryCompleted, EventData, Line, OrderPlaced
from incentive_fleet.names import events_exchange, events_topic
from incentive_fleet.producers.adopted_outbox import (
    add_event,
    forget_published,
    outbox_table,
    publish_again,
    relay_adopted,
)
from tests.aws_clients import aws_client

NOW = datetime(2025, 1, 2, tzinfo=UTC)
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


class Emulator(Protocol):
    endpoint_url: str
    environment: Mapping[str, str]


@pytest.fixture(params=["postgres", "sqlite"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    if request.param == "sqlite":
        engine = create_engine(f"sqlite:///{tmp_path / 'shop.db'}")
    else:
        engine = create_engine(sqlalchemy_url(request.getfixturevalue("database_url")))
    yield engine
    engine.dispose()


@pytest.fixture
def outbox(engine: Engine) -> Table:
    metadata = MetaData()
    table = outbox_table(metadata)
    metadata.create_all(engine)
    return table


@pytest.fixture
def queue(channel: Any, prefix: str) -> Iterator[str]:
    """A queue bound to `<prefix>.events` for placed orders alone."""
    exchange = events_exchange(prefix)
    channel.exchange_declare(exchange, "topic", durable=True, auto_delete=False)
    channel.queue_declare(exchange, durable=True, auto_delete=False)
    channel.queue_bind(exchange, exchange, "order-placed.v1")
    yield exchange
    channel.queue_delete(exchange)
    channel.exchange_delete(exchange)


@pytest.fixture
def publisher(rabbitmq: RabbitMQ, queue: str) -> Iterator[RabbitMQPublisher]:
    with RabbitMQPublisher(rabbitmq.url, queue) as publisher:
        yield publisher


@pytest.fixture
def arrived(channel: Any, queue: str) -> Callable[[], list[bytes]]:
    def bodies() -> list[bytes]:
        got = iter(lambda: channel.basic_get(queue, no_ack=True), None)
        return [message.body.encode() if isinstance(message.body, str) else message.body for message in got]

    return bodies


def sqlalchemy_url(database_url: str) -> str:
    return database_url.replace("postgresql://", "postgresql+psycopg://", 1)


def placed(order_id: str) -> OrderPlaced:
    line = Line(line_id="1", sku="tea", quantity=1, unit_price=100)
    return OrderPlaced(order_id=order_id, customer_id="c", currency="EUR", placed_at=NOW, lines=(line,))


def add(engine: Engine, outbox: Table, *events: EventData) -> list[str]:
    with engine.begin() as connection:
        return [add_event(connection, outbox, event, source="/shop", time=NOW) for event in events]


def test_an_event_lives_and_dies_with_the_callers_transaction(
    engine: Engine, outbox: Table, publisher: RabbitMQPublisher, arrived: Callable[[], list[bytes]]
) -> None:
    with engine.connect() as connection:
        add_event(connection, outbox, placed("rolled back"), source="/shop", time=NOW)
        connection.rollback()
    with Session(engine) as session:
        id_ = add_event(session, outbox, placed("kept"), source="/shop", time=NOW)
        session.commit()
    assert relay_adopted(engine, outbox, publisher).published == 1
    assert relay_adopted(engine, outbox, publisher).published == 0
    (event,) = map(decode, arrived())
    assert (event.id, event.data) == (id_, placed("kept"))


def test_a_wrong_event_is_refused_where_it_is_written(engine: Engine, outbox: Table) -> None:
    wrong = placed("o").model_copy(update={"currency": "XXX"})
    with engine.begin() as connection, pytest.raises(Malformed, match=r"data\.currency"):
        add_event(connection, outbox, wrong, source="/shop", time=NOW)


def test_an_id_is_taken_once(engine: Engine, outbox: Table) -> None:
    with engine.connect() as connection:
        add_event(connection, outbox, placed("1"), source="/shop", time=NOW, id="same")
        with pytest.raises(IntegrityError):
            add_event(connection, outbox, placed("2"), source="/shop", time=NOW, id="same")


def test_a_broker_that_is_away_leaves_the_events_unpublished(
    engine: Engine, outbox: Table, publisher: RabbitMQPublisher, arrived: Callable[[], list[bytes]]
) -> None:
    add(engine, outbox, placed("1"))
    with pytest.raises(BrokerUnavailable):
        relay_adopted(engine, outbox, RabbitMQPublisher("amqp://127.0.0.1:1//", "nowhere"))
    assert relay_adopted(engine, outbox, publisher).published == 1
    assert len(arrived()) == 1


def test_a_refused_event_is_named_kept_and_does_not_block_the_others(
    engine: Engine, outbox: Table, publisher: RabbitMQPublisher, arrived: Callable[[], list[bytes]]
) -> None:
    delivery = DeliveryCompleted(delivery_id="d", order_id="1", delivered_at=NOW)  # no queue takes deliveries here
    (lost, kept) = add(engine, outbox, delivery, placed("1"))
    first = relay_adopted(engine, outbox, publisher, batch_size=1)
    assert [(event.event_id, event.reason) for event in first.refused] == [(lost, "unroutable")]
    assert relay_adopted(engine, outbox, publisher, batch_size=1).published == 1
    assert [decode(body).id for body in arrived()] == [kept]
    with engine.connect() as connection:
        row = connection.execute(select(outbox).where(outbox.c.published_at.is_(None))).one()
    assert (row.event_id, row.refusals) == (lost, 1)
    assert "unroutable" in row.last_refusal


def test_published_events_can_be_forgotten_and_no_others(
    engine: Engine, outbox: Table, publisher: RabbitMQPublisher
) -> None:
    add(engine, outbox, placed("1"))
    relay_adopted(engine, outbox, publisher)
    (later,) = add(engine, outbox, placed("2"))
    with engine.begin() as connection:
        forget_published(connection, outbox, datetime.now(UTC) + timedelta(days=1))
        assert connection.execute(select(outbox.c.event_id)).scalars().all() == [later]


def test_what_was_published_since_a_time_is_published_again_with_the_same_ids(
    engine: Engine, outbox: Table, publisher: RabbitMQPublisher, arrived: Callable[[], list[bytes]]
) -> None:
    ids = add(engine, outbox, placed("1"), placed("2"))
    relay_adopted(engine, outbox, publisher)
    first = arrived()
    with engine.begin() as connection:
        assert publish_again(connection, outbox, datetime.now(UTC) + timedelta(days=1)) == 0
        assert publish_again(connection, outbox, datetime.now(UTC) - timedelta(days=1)) == 2
    assert relay_adopted(engine, outbox, publisher).published == 2
    assert arrived() == first
    assert [decode(body).id for body in first] == ids


def test_two_relays_on_postgres_publish_each_event_once(
    database_url: str, rabbitmq: RabbitMQ, queue: str, arrived: Callable[[], list[bytes]]
) -> None:
    engine = create_engine(sqlalchemy_url(database_url))
    metadata = MetaData(schema="public")
    outbox = outbox_table(metadata, "shop_outbox")
    metadata.create_all(engine)
    ids = add(engine, outbox, *(placed(str(number)) for number in range(200)))

    def relay(_: int) -> int:
        published = 0
        with RabbitMQPublisher(rabbitmq.url, queue) as publisher:
            while unpublished(engine, outbox):
                published += relay_adopted(engine, outbox, publisher, batch_size=5).published
        return published

    with ThreadPoolExecutor(2) as threads:
        assert sum(threads.map(relay, range(2))) == 200
    engine.dispose()
    assert Counter(decode(body).id for body in arrived()) == Counter(ids)


def unpublished(engine: Engine, outbox: Table) -> int:
    with engine.connect() as connection:
        count = select(func.count()).select_from(outbox).where(outbox.c.published_at.is_(None))
        return connection.execute(count).scalar_one()


def run_example(name: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", str(EXAMPLES / name), *arguments]
    return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)


def test_the_example_of_kombu_publishes_a_valid_order(
    rabbitmq: RabbitMQ, prefix: str, arrived: Callable[[], list[bytes]]
) -> None:
    where = {"INCENTIVES_RABBITMQ_URL": rabbitmq.url, "INCENTIVES_PREFIX": prefix}
    done = run_example("publish_with_kombu.py", "order-1", **where)
    assert (done.returncode, done.stderr) == (0, "")
    assert [decode(body).order_id for body in arrived()] == ["order-1"]


def test_the_example_of_kombu_says_when_no_queue_took_the_order(
    rabbitmq: RabbitMQ, prefix: str, channel: Any, queue: str
) -> None:
    where = {"INCENTIVES_RABBITMQ_URL": rabbitmq.url, "INCENTIVES_PREFIX": prefix}
    channel.queue_delete(queue)
    done = run_example("publish_with_kombu.py", "order-1", **where)
    assert done.returncode == 1
    assert "No queue took order-1" in done.stderr


def test_the_example_of_kombu_fails_when_the_exchange_is_missing(rabbitmq: RabbitMQ, prefix: str) -> None:
    done = run_example("publish_with_kombu.py", INCENTIVES_RABBITMQ_URL=rabbitmq.url, INCENTIVES_PREFIX=prefix)
    assert done.returncode == 1
    assert "NOT_FOUND" in done.stderr


@pytest.fixture
def sqs_queue(moto_server: Emulator, prefix: str) -> Iterator[Callable[[], list[str]]]:
    """Bodies that came to an SQS queue behind `<prefix>-events` with a filter on placed orders."""
    sns, sqs = (aws_client(service, moto_server.endpoint_url) for service in ("sns", "sqs"))
    topic = sns.create_topic(Name=events_topic(prefix))["TopicArn"]
    url = sqs.create_queue(QueueName=prefix)["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    attributes = {"RawMessageDelivery": "true", "FilterPolicy": json.dumps({"type": ["order-placed.v1"]})}
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn, Attributes=attributes)
    yield lambda: [
        message["Body"] for message in sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", [])
    ]
    sns.close()
    sqs.close()


def test_the_example_of_boto3_publishes_a_valid_order_with_its_type(
    moto_server: Emulator, prefix: str, sqs_queue: Callable[[], list[str]]
) -> None:
    done = run_example("publish_with_boto3.py", "order-1", **moto_server.environment, INCENTIVES_PREFIX=prefix)
    assert (done.returncode, done.stderr) == (0, "")
    assert [decode(body.encode()).order_id for body in sqs_queue()] == ["order-1"]


def test_the_example_of_boto3_says_when_the_topic_is_missing(moto_server: Emulator, prefix: str) -> None:
    done = run_example("publish_with_boto3.py", **moto_server.environment, INCENTIVES_PREFIX=f"{prefix}-none")
    assert done.returncode == 1
    assert f"{prefix}-none-events" in done.stderr


def test_the_example_shop_publishes_its_orders_to_rabbitmq(
    database_url: str, rabbitmq: RabbitMQ, prefix: str, arrived: Callable[[], list[bytes]]
) -> None:
    done = run_example(
        "order_system.py",
        "--orders=3",
        SHOP_DATABASE_URL=sqlalchemy_url(database_url),
        INCENTIVES_RABBITMQ_URL=rabbitmq.url,
        INCENTIVES_PREFIX=prefix,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert [f"placed {decode(body).order_id}" for body in arrived()] == done.stdout.splitlines()[:3]
    assert done.stdout.splitlines()[3] == "published 3 events to rabbitmq, 0 refused"


def test_the_example_shop_publishes_its_orders_to_sns(
    moto_server: Emulator, prefix: str, tmp_path: Path, sqs_queue: Callable[[], list[str]]
) -> None:
    done = run_example(
        "order_system.py",
        "--to=sns",
        SHOP_DATABASE_URL=f"sqlite:///{tmp_path / 'shop.db'}",
        INCENTIVES_PREFIX=prefix,
        **moto_server.environment,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert len(sqs_queue()) == 3
