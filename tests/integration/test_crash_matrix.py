"""The crash matrix: a process that dies at any named step, on either broker, loses nothing and doubles nothing.

The dying process is a real worker or relay, killed by SIGKILL at the step that the test names; a second one, started
after its death, finishes. Nobody sleeps: steps are reached, and the second process ends by itself once all is quiet.
"""

from __future__ import annotations

import json
import signal
import sys
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import psycopg
import pytest

from incentive_fleet.brokers.aws.client import sns_client
from incentive_fleet.embedded import sample_shop
from incentive_fleet.embedded.postgres import Postgres
from incentive_fleet.ledger.connection import connect
from incentive_fleet.names import outcomes_exchange, outcomes_topic
from incentive_fleet.producers.relay import unpublished
from incentive_fleet.settings import Settings
from tests.brokers_and_workers import SOURCES, Brokers, Source, start, start_worker
from tests.parts import fresh_database
from tests.shop import balances, calm_balances, faults, open_shop

BROKER_SETTINGS = {"sqs_visibility_s": 1}

SHOP = sample_shop.Shop(12, seed=11, refunds=0.3, groceries=0.7)
EVENTS = list(sample_shop.events(SHOP))
POISON = [entry for entry in sample_shop.poison(SHOP) if entry[0] != "conflict"]
BATCH = 10
# Where a worker dies, and the how many-eth time it gets there: the second, so that a batch is done and others are not.
STEPS = [
    "after-receive:2",
    "after-decode:2",
    "after-claim:2",
    "before-commit:2",
    "after-commit:2",
    "between-settles",
    "after-dead-letter",
]
IDLE_S = 0.2


@pytest.fixture(scope="module")
def calm(postgres: Postgres, database_template: str) -> dict[str, int]:
    """The balances that a run without any fault ends in."""
    with fresh_database(postgres, database_template) as url:
        open_shop(url, SHOP)
        return calm_balances(url, [body for _, body in EVENTS])


@pytest.fixture
def settings(brokers: Brokers, database_url: str) -> Settings:
    return brokers.settings.model_copy(update={"database_url": database_url, "batch_size": BATCH})


def publish_all(brokers: Brokers, source: Source) -> None:
    brokers.publish(source, [body for _, body in EVENTS])
    for _, type_, body in POISON:
        brokers.publish(source, [body], type_)


def finish(source: str, settings: Settings) -> None:
    """A second worker, until nothing is left."""
    assert start_worker(source, settings, until_idle_s=IDLE_S).wait(60) == 0


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("source", SOURCES)
def test_a_worker_that_dies_loses_nothing_and_doubles_nothing(
    source: Source, step: str, brokers: Brokers, settings: Settings, calm: dict[str, int]
) -> None:
    assert settings.database_url
    open_shop(settings.database_url, SHOP)
    publish_all(brokers, source)
    dying = start_worker(source, settings, until_idle_s=5, INCENTIVES_TEST_FAULT=step)
    assert dying.wait(60) == -signal.SIGKILL, f"the worker never reached {step}"
    finish(source, settings)
    assert balances(settings.database_url) == calm
    assert faults(settings.database_url) == {}
    assert brokers.left(source) == {}
    letters = brokers.letters(source)
    assert {(letter.reason, letter.body) for letter in letters} == {(reason, body) for reason, _, body in POISON}
    # Published, then dead before the acknowledgement: the only step that may leave a copy, and the collector drops it.
    assert len(letters) == len(POISON) or step == "after-dead-letter"


@pytest.mark.parametrize("step", ["relay-before-publish", "relay-after-publish"])
@pytest.mark.parametrize("source", SOURCES)
def test_a_relay_that_dies_loses_no_outcome(source: Source, step: str, brokers: Brokers, settings: Settings) -> None:
    assert settings.database_url
    open_shop(settings.database_url, SHOP)
    calm_balances(settings.database_url, [body for _, body in EVENTS])
    with psycopg.connect(settings.database_url, autocommit=True) as owner:
        other = "rabbitmq" if source == "sqs" else "sns"
        owner.execute("DELETE FROM outbox_unpublished WHERE destination = %s", (other,))
        owner.execute("DELETE FROM destinations WHERE destination = %s", (other,))
        written = {json.loads(str(row[0]))["id"] for row in owner.execute("SELECT body FROM outbox")}
        told = owner.execute("SELECT count(*) FROM outbox WHERE order_id <> ''").fetchone()  # the rest are notices
    assert told == (len(EVENTS),)
    only = {"aws_endpoint_url": None, "aws_region": None} if source == "rabbitmq" else {"rabbitmq_url": None}
    settings = settings.model_copy(update=only)
    command = [sys.executable, "-m", "incentive_fleet.cli.main", "relay", "--until-idle", "0.2"]
    with receiver(brokers, source) as receive:
        without: dict[str, str] = {"AWS_REGION": "", "AWS_DEFAULT_REGION": ""} if source == "rabbitmq" else {}
        dying = start(command, settings, None, None, INCENTIVES_TEST_FAULT=f"{step}:2", **without)
        assert dying.wait(60) == -signal.SIGKILL
        assert start(command, settings, None, None, **without).wait(60) == 0
        with closing(connect(settings.need_database_url())) as connection:
            assert unpublished(connection) == {}
        received = receive()
    assert set(received) == written
    # Only what was published and not yet marked may come twice, under the same id.
    assert len(received) - len(written) == (BATCH if step == "relay-after-publish" else 0)


def dlq(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "incentive_fleet.cli.main", "dlq", *arguments]


def kept(url: str) -> dict[tuple[str, bytes], str]:
    """(reason, body) of the letters that were collected, and their status."""
    with psycopg.connect(url) as owner:
        rows = owner.execute("SELECT reason, body, status FROM dead_letters").fetchall()
    assert len({(reason, body) for reason, body, _ in rows}) == len(rows)
    return {(str(reason), bytes(body)): str(status) for reason, body, status in rows}


@pytest.mark.parametrize("step", ["collector-after-receive", "collector-after-commit"])
@pytest.mark.parametrize("source", SOURCES)
def test_a_collector_that_dies_keeps_each_dead_letter_once(
    source: Source, step: str, brokers: Brokers, settings: Settings
) -> None:
    assert settings.database_url
    for _, type_, body in POISON:
        brokers.publish(source, [body], type_)
    finish(source, settings)
    command = dlq("collect", "--from", source, "--until-idle", str(IDLE_S))
    assert start(command, settings, INCENTIVES_TEST_FAULT=step).wait(60) == -signal.SIGKILL
    assert start(command, settings).wait(60) == 0
    assert kept(settings.database_url) == {(reason, body): "open" for reason, _, body in POISON}
    assert brokers.letters(source) == []


@pytest.mark.parametrize("step", ["replay-after-claim", "replay-after-send"])
@pytest.mark.parametrize("source", SOURCES)
def test_a_replay_that_dies_sends_each_letter_once_in_effect(
    source: Source, step: str, brokers: Brokers, settings: Settings, calm: dict[str, int]
) -> None:
    assert settings.database_url
    open_shop(settings.database_url, SHOP)
    brokers.bury(source, [body for _, body in EVENTS])
    collect = dlq("collect", "--from", source, "--until-idle", str(IDLE_S))
    assert start(collect, settings).wait(60) == 0
    command = dlq("replay", "--all", "--yes", "--actor", "ann")
    dying = start([*command, "--rate", str(BATCH)], settings, INCENTIVES_TEST_FAULT=step)
    assert dying.wait(60) == -signal.SIGKILL
    statuses = Counter(kept(settings.database_url).values())
    assert statuses == {"replaying": BATCH, "open": len(EVENTS) - BATCH}, "it died amid its work"
    assert start(command, settings).wait(60) == 0
    assert set(kept(settings.database_url).values()) == {"replayed"}
    finish(source, settings)
    assert balances(settings.database_url) == calm
    assert faults(settings.database_url) == {}
    assert brokers.left(source) == {}
    assert brokers.letters(source) == []


@contextmanager
def receiver(brokers: Brokers, source: Source) -> Iterator[Callable[[], list[str]]]:
    """A queue that takes every outcome while the body runs; called, it gives the ids that came."""
    name = f"{brokers.settings.prefix}-{uuid.uuid4().hex[:8]}"
    if source == "rabbitmq":
        with brokers.channel() as channel:
            channel.queue_declare(name, durable=True)
            channel.queue_bind(name, outcomes_exchange(brokers.settings.prefix), "#")
            yield lambda: [json.loads(body)["id"] for body in iter(lambda: channel.basic_get(name, True)[2], None)]
            channel.queue_delete(name)
        return
    url = brokers.sqs.create_queue(QueueName=name)["QueueUrl"]
    arn = brokers.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    with closing(sns_client(brokers.settings)) as sns:
        topic = sns.create_topic(Name=outcomes_topic(brokers.settings.prefix))["TopicArn"]
        raw = {"RawMessageDelivery": "true"}
        subscription = sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn, Attributes=raw)
        yield lambda: list(_ids_in(brokers, url))
        sns.unsubscribe(SubscriptionArn=subscription["SubscriptionArn"])
    brokers.sqs.delete_queue(QueueUrl=url)


def _ids_in(brokers: Brokers, url: str) -> Iterator[str]:
    options = {"MaxNumberOfMessages": 10, "WaitTimeSeconds": 1, "VisibilityTimeout": 60}
    while found := brokers.sqs.receive_message(QueueUrl=url, **options).get("Messages"):
        yield from (json.loads(message["Body"])["id"] for message in found)
