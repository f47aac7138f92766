"""Least privilege, by the tables of docs/deploy/permissions.md: with exactly that, each role does its work and no other's.

On RabbitMQ a real broker judges. LocalStack judges nobody, so there each call that a work makes is held against the policies of
deploy/aws, which the page repeats; and what a policy allows beyond the calls is found as well.
"""

from __future__ import annotations

import re
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Any, Final

import botocore.client
import pika
import psycopg
import pytest
from pika.exceptions import ChannelClosedByBroker

from incentive_fleet.brokers import declare, registry
from incentive_fleet.brokers.aws import AWS
from incentive_fleet.brokers.contract import Broker
from incentive_fleet.brokers.messages import (
    Ack,
    Answered,
    DeadLetter,
    Disposition,
    Failure,
    Message,
    Outgoing,
    Release,
    Retry,
    message_of,
)
from incentive_fleet.brokers.rabbitmq import RABBITMQ
from incentive_fleet.brokers.topology import QUOTES
from incentive_fleet.dead_letters.carrying import carry_ready
from incentive_fleet.dead_letters.replay import ReplayRequest, begin_replay
from incentive_fleet.dead_letters.runs import DONE, READY, get_run
from incentive_fleet.embedded.rabbitmq import RabbitMQ
from incentive_fleet.errors import BrokerUnavailable, SettingsError
from incentive_fleet.ledger.connection import connect
from incentive_fleet.ledger.session import Session
from incentive_fleet.settings import Settings
from incentive_fleet.stopping import Stop
from tests.brokers_and_workers import Brokers, settings_of
from tests.dead_letter_world import LetterDatabase, arrival, by, order
from tests.deploy.test_aws import ACCOUNT, REGION
from tests.deploy.test_permissions_page import KEY, PAGE, allowed, rows
from tests.parts import LocalStack
from tests.rabbitmq_logins import make_login, put
from tests.rabbitmq_queues import purge

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
FAILURE = Failure(1, "builtins.ValueError", "", "", NOON, NOON, "h")
WAIT_S = 5.0
REFUSED = r"(?i:access[ _-]?refused|403)"


# The works. Each returns, or raises what a refusal comes as.


@dataclass(frozen=True)
class Place:
    """A broker with a topology, and who prepares and tidies it up."""

    broker: Broker
    brokers: Brokers

    def fill(self) -> None:
        """Three events in a source queue, two dead letters, and three requests that a checkout's queue waits for."""
        self.brokers.publish(self.broker.source, [order(number) for number in range(3)])  # type: ignore[arg-type]
        self.brokers.bury(self.broker.source, [order(8), order(9)])  # type: ignore[arg-type]
        queue = self.brokers.queue_of(self.broker.source, QUOTES[0])  # type: ignore[arg-type]
        if self.broker is AWS:
            sqs, url = self.brokers.sqs, self.brokers.url(queue)
            reply = {"DataType": "String", "StringValue": sqs.create_queue(QueueName="checkout-1")["QueueUrl"]}
            for _ in range(3):
                sqs.send_message(QueueUrl=url, MessageBody="{}", MessageAttributes={"reply_to": reply})
            return
        with self.brokers.channel() as channel:
            channel.queue_declare("checkout-1", auto_delete=True)
            for _ in range(3):
                channel.basic_publish("", queue, b"{}", pika.BasicProperties(reply_to="checkout-1"))


def publish(place: Place, settings: Settings) -> None:
    with closing(registry.open_events(settings, place.broker)) as publisher:
        publisher.check()
        refuse(publisher.publish([message_of(order(1))]))


def relay(place: Place, settings: Settings) -> None:
    with closing(registry.open_outcomes(settings, place.broker)) as publisher:
        publisher.check()
        refuse(publisher.publish([message_of(order(1))]))


def consume(place: Place, settings: Settings) -> None:
    """One of each fate."""
    taken = []
    with closing(registry.parts_of(place.broker).open_transport(settings, Stop())) as transport:
        deliveries: list[Any] = []
        while len(deliveries) < 3:
            more = transport.receive(3 - len(deliveries), WAIT_S)
            assert more, "nothing comes"
            deliveries += more
        fates: list[Disposition] = [Ack(), Retry(0.1, FAILURE), DeadLetter("conflict", "taken")]
        transport.settle(list(zip(deliveries, fates, strict=True)), lambda _, fate: taken.append(fate))
        transport.idle()
    refuse([] if fates[2] in taken else ["the dead letter was not taken"])
    look(place, settings)


def collect(place: Place, settings: Settings) -> None:
    """And sends what somebody replays who does not wait for it, as it carries runs on."""
    with closing(registry.parts_of(place.broker).open_dead_letters(settings, Stop())) as queues:
        arrivals = queues.receive(1, WAIT_S)
        assert arrivals, "nothing comes"
        queues.remove(arrivals)
        queues.let_go(arrivals)
        assert queues.receive(1, WAIT_S)  # to be given back
        queues.empty()
    look(place, settings)
    replay(place, settings)


def look(place: Place, settings: Settings) -> None:
    """As /metrics does in both, and a page of the console: how much lies in every queue."""
    with closing(registry.parts_of(place.broker).open_depths(settings, Stop())) as depths:
        assert depths.read()


def console(place: Place, settings: Settings) -> None:
    look(place, settings)


def quotes(place: Place, settings: Settings) -> None:
    """Answers, and one of each fate."""
    parts, taken = registry.parts_of(place.broker), list[Disposition]()
    transport, replies = parts.open_quotes(settings, Stop()), parts.open_replies(settings, Stop())
    with closing(transport), closing(replies):
        deliveries: list[Any] = []
        while len(deliveries) < 3:
            more = transport.receive(3 - len(deliveries), WAIT_S)
            assert more, "nothing comes"
            deliveries += more
        found = replies.send([(delivery, Message(b"{}", None, None)) for delivery in deliveries])
        refuse([one for one in found if one is not Answered.SENT])
        fates: list[Disposition] = [Ack(), DeadLetter("malformed", "of a test"), Release()]
        transport.settle(list(zip(deliveries, fates, strict=True)), lambda _, fate: taken.append(fate))
        [given_back] = transport.receive(1, WAIT_S)
        transport.settle([(given_back, Ack())])
        transport.idle()
    refuse([] if fates[1] in taken else ["the dead letter was not taken"])


def replay(place: Place, settings: Settings) -> None:
    queue = place.brokers.queue_of(place.broker.source, "order-placed.v1")  # type: ignore[arg-type]
    envelope: Mapping[str, Any] = {"attributes": {}} if place.broker is AWS else {"headers": {}, "properties": {}}
    with closing(registry.parts_of(place.broker).open_sender(settings)) as sender:
        refuse([problem for problem in sender.send([Outgoing(queue, order(5), envelope, "1.1", None)]) if problem])


def topology(place: Place, settings: Settings) -> None:
    refuse([change for change in declare.apply(settings) if change.action == "refused"])


def refuse(problems: list[Any]) -> None:
    if problems:
        raise BrokerUnavailable(str(problems))


WORKS: Final[dict[str, Callable[[Place, Settings], None]]] = {
    work.__name__: work for work in (publish, consume, quotes, collect, replay, relay, console, topology)
}


# RabbitMQ.

ON_RABBITMQ: Final = {row[0]: [cell.strip("`") for cell in row[2:5]] for row in rows("## RabbitMQ")}
# As the page says: whoever writes to the default exchange reaches every queue; the topology's login may do all.
ALSO: Final = {
    "consume": {"quotes", "replay", "console"},
    "quotes": {"replay"},
    "collect": {"replay", "console"},
    "topology": set(WORKS),
}
# Who may look beyond these is the broker's to say: before RabbitMQ 4.3 everybody may.
JUDGED: Final = [
    (role, work)
    for role in ON_RABBITMQ
    for work in WORKS
    if work != "console" or work == role or work in ALSO.get(role, ())
]


@pytest.fixture(scope="module")
def logins(rabbitmq: RabbitMQ) -> dict[str, Settings]:
    """A login a role, with the patterns of the page for a prefix of the test's own. The topology's own makes the topology."""
    prefix = f"p{uuid.uuid4().hex[:8]}"
    found = {}
    for role, patterns in ON_RABBITMQ.items():
        kinds = ("configure", "write", "read")
        permissions = {kind: cell.replace("incentives", prefix) for kind, cell in zip(kinds, patterns, strict=True)}
        url, _ = make_login(rabbitmq, f"{prefix}-{role}", "secret", permissions)
        found[role] = settings_of(prefix, rabbitmq_url=url, retry_delays_s=(0.1,)).model_copy(
            update={"aws_region": None}
        )
    assert {change.action for change in declare.apply(found["topology"])} == {"created"}
    return found


@pytest.fixture
def place(logins: Mapping[str, Settings], rabbitmq: RabbitMQ) -> Iterator[Place]:
    administrator = logins["topology"].model_copy(update={"rabbitmq_url": rabbitmq.url})
    brokers = Brokers(administrator.model_copy(update={"aws_endpoint_url": "http://127.0.0.1:1"}))
    yield Place(RABBITMQ, brokers)
    with brokers.channel() as channel:
        purge(channel, brokers.rabbitmq_names())
    brokers.close()


@pytest.mark.parametrize(("role", "work"), JUDGED)
def test_a_login_of_rabbitmq_does_the_work_of_its_role_and_no_other(
    role: str, work: str, logins: Mapping[str, Settings], place: Place
) -> None:
    place.fill()
    if work == role or work in ALSO.get(role, ()):
        WORKS[work](place, logins[role])
        return
    with pytest.raises((BrokerUnavailable, SettingsError), match=REFUSED):
        WORKS[work](place, logins[role])


def test_a_login_publishes_the_routing_keys_that_it_is_allowed(
    logins: Mapping[str, Settings], place: Place, rabbitmq: RabbitMQ
) -> None:
    prefix = logins["publish"].prefix
    name = f"{prefix}-courier"
    [command] = re.findall(r"set_topic_permissions -p / courier (incentives.events) '(.*?)' '(.*?)'", PAGE)
    nothing = {"configure": "^$", "write": ON_RABBITMQ["publish"][1].replace("incentives", prefix), "read": "^$"}
    url, _ = make_login(rabbitmq, name, "secret", nothing)
    exchange, write, read = command
    rule = {"exchange": exchange.replace("incentives", prefix), "write": write, "read": read}
    put(rabbitmq, f"topic-permissions/%2F/{name}", rule)
    courier = logins["publish"].model_copy(update={"rabbitmq_url": url})
    with closing(registry.open_events(courier, RABBITMQ)) as publisher:
        body = order(1).replace(b"order-placed.v1", b"delivery-completed.v1")
        assert publisher.publish([message_of(body)]) == []
    with (
        closing(registry.open_events(courier, RABBITMQ)) as publisher,
        pytest.raises((SettingsError, BrokerUnavailable), match=REFUSED),
    ):
        publisher.publish([message_of(order(1))])


def test_the_collectors_login_carries_on_what_somebody_began_elsewhere(
    logins: Mapping[str, Settings], place: Place, database_url: str
) -> None:
    """In the console, or with `--detach`: the fleet runs with `--no-collect`, so nobody else would."""
    letters = LetterDatabase.loaded(database_url)
    queue = place.brokers.queue_of(RABBITMQ.source, "order-placed.v1")  # type: ignore[arg-type]
    letters.keep(arrival(order(7), queue=queue, transport="rabbitmq", envelope={"headers": {}, "properties": {}}))
    with letters.connect() as connection:
        begun = begin_replay(connection, ReplayRequest([one.id for one in letters.summaries()], by()))
    with closing(Session(database_url)) as session:
        relays = logins["relay"].model_copy(update={"database_url": database_url})
        with pytest.raises(
            BrokerUnavailable, match=rf"run {begun} waits: .*{REFUSED}"
        ):  # whoever reads the log is told why
            carry_ready(session, relays, Stop())
        assert get_run(session.connection, begun).status == READY
        carry_ready(session, logins["collect"].model_copy(update={"database_url": database_url}), Stop())
        assert get_run(session.connection, begun).status == DONE
    assert sum(place.brokers.left("rabbitmq").values()) == 1


@pytest.mark.parametrize(("named", "taken"), [("its own", True), ("another's", False), ("nobody", True)])
def test_rabbitmq_refuses_a_message_in_the_name_of_another_login(
    named: str, taken: bool, logins: Mapping[str, Settings], place: Place
) -> None:
    settings = logins["publish"]
    users = {"its own": f"{settings.prefix}-publish", "another's": f"{settings.prefix}-relay", "nobody": None}
    connection = pika.BlockingConnection(pika.URLParameters(settings.need_rabbitmq_url()))
    with closing(connection):
        channel = connection.channel()
        channel.confirm_delivery()
        properties = pika.BasicProperties(user_id=users[named], delivery_mode=2)
        arguments = (f"{settings.prefix}.events", "order-placed.v1", order(1), properties)
        if taken:
            channel.basic_publish(*arguments)
        else:
            with pytest.raises(ChannelClosedByBroker, match="user_id"):
                channel.basic_publish(*arguments)


# AWS.


@pytest.fixture
def on_aws(localstack: LocalStack) -> Iterator[Place]:
    settings = settings_of(f"p{uuid.uuid4().hex[:8]}", aws_endpoint_url=localstack.endpoint_url, sqs_visibility_s=30)
    brokers = Brokers(settings)
    yield Place(AWS, brokers)
    brokers.close()


def record(monkeypatch: pytest.MonkeyPatch, prefix: str) -> dict[str, set[str]]:
    """From now on, by action the ARNs of what is called; a call in a batch is allowed as the call alone."""
    called: dict[str, set[str]] = defaultdict(set)
    client: Any = botocore.client.BaseClient
    call = client._make_api_call

    def recording(self: Any, operation: str, arguments: dict[str, Any]) -> Any:
        service = self.meta.service_model.service_name
        name = (
            arguments.get("TopicArn")
            or arguments.get("SubscriptionArn", "").rpartition(":")[0]
            or arguments.get("QueueUrl", "").rpartition("/")[2]
            or arguments.get("QueueName")
            or arguments.get("Name")
            or "*"
        ).rpartition(":")[2]
        arn = name if name == "*" else f"arn:aws:{service}:{REGION}:{ACCOUNT}:{name}"
        called[f"{service}:{operation.removesuffix('Batch')}"].add(arn)
        return call(self, operation, arguments)

    monkeypatch.setattr(client, "_make_api_call", recording)
    return called


@pytest.mark.parametrize("role", WORKS)
def test_a_role_of_aws_may_call_what_its_work_calls_and_no_more(
    role: str, on_aws: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = on_aws.brokers.settings
    if role != "topology":
        on_aws.brokers.apply()
        on_aws.fill()
    called = record(monkeypatch, settings.prefix)
    WORKS[role](on_aws, settings)
    if role == "topology":  # again, on what was changed by others
        url = on_aws.brokers.sqs.get_queue_url(QueueName=f"{settings.prefix}-order-placed")["QueueUrl"]
        on_aws.brokers.sqs.set_queue_attributes(QueueUrl=url, Attributes={"MessageRetentionPeriod": "60"})
        WORKS[role](on_aws, settings)
    may = allowed(role, settings.prefix)
    beyond = {
        action: arns - may.get(action, set())
        for action, arns in called.items()
        if not all(any(fnmatchcase(arn, pattern) for pattern in may.get(action, ())) for arn in arns)
    }
    assert beyond == {}
    unused = may.keys() - called.keys() - KEY
    assert unused == ({"sns:SetSubscriptionAttributes"} if role == "topology" else set())


# Postgres.


def test_a_login_a_role_is_let_in_by_the_applications_role_and_owns_nothing(database_url: str) -> None:
    """By the words of the page, for a name of the test's own."""
    name = f"relay_{uuid.uuid4().hex[:8]}"
    [statements] = re.findall(r"```text\n(CREATE ROLE .*?)```", PAGE, re.DOTALL)
    with psycopg.connect(database_url, autocommit=True) as owner:
        owner.execute(statements.replace("incentives_relay", name).replace("...", "secret").encode())
        try:
            url = database_url.replace("//postgres@", f"//{name}@")
            with closing(connect(url)) as connection:
                assert connection.execute("SELECT session_user, current_user").fetchone() == (name, "incentives_app")
                assert connection.execute("SELECT count(*) FROM transfers").fetchone() == (0,)
                for act in ("UPDATE transfers SET amount = 1", "DELETE FROM facts", "CREATE TABLE mine ()"):
                    with pytest.raises(psycopg.errors.InsufficientPrivilege):
                        connection.execute(act.encode())
        finally:
            owner.execute(f"DROP ROLE {name}".encode())
