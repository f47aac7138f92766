"""Each broker as the contract suite sees it: publish as a sender would, look into the dead letters, break things."""

from __future__ import annotations

import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol
from urllib.parse import urlsplit, urlunsplit

import pika

from incentive_fleet import names
from incentive_fleet.brokers import topology
from incentive_fleet.brokers.aws import parts as parts_aws
from incentive_fleet.brokers.aws import topology as topology_aws
from incentive_fleet.brokers.aws.plan import sqs_queues
from incentive_fleet.brokers.aws.transport import SqsTransport
from incentive_fleet.brokers.contract import Replies, Transport
from incentive_fleet.brokers.memory import MemoryBroker, MemoryTransport
from incentive_fleet.brokers.memory_replies import MemoryReplies
from incentive_fleet.brokers.messages import Delivery
from incentive_fleet.brokers.rabbitmq import parts as parts_rabbitmq
from incentive_fleet.brokers.rabbitmq import topology as topology_rabbitmq
from incentive_fleet.brokers.rabbitmq.plan import rabbitmq_plan, rabbitmq_queues
from incentive_fleet.brokers.rabbitmq.transport import RabbitMQTransport
from incentive_fleet.errors import BrokerUnavailable
from incentive_fleet.settings import Settings
from incentive_fleet.stopping import Stop
from tests.aws_clients import aws_client
from tests.contract.proxy import Proxy
from tests.rabbitmq_queues import purge

PLACED, REFUNDED, DELIVERED = "order-placed.v1", "order-refunded.v1", "delivery-completed.v1"
QUOTE = topology.QUOTES[0]
SHORT = {"sqs_visibility_s": 2, "retry_delays_s": (1, 2), "wait_s": 1, "batch_size": 100, "prefetch": 300}


@dataclass(frozen=True)
class Letter:
    body: bytes
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Reply:
    body: bytes
    correlation_id: str
    type: str | None


@dataclass(frozen=True)
class Request:
    """A quote request beside its body; `lives_ms` from now on."""

    reply_to: str | None = None
    correlation_id: str | None = None
    lives_ms: int | None = None


class BrokerUnderTest(Protocol):
    """What the suite needs of a broker."""

    def queue(self, type_: str) -> str: ...
    def open(self, **changed: object) -> Any: ...
    def send(self, *bodies: bytes, type_: str | None = PLACED) -> None: ...
    def letters(self, type_: str = PLACED) -> list[Letter]: ...
    def open_quotes(self) -> tuple[Transport, Replies]: ...
    def ask(self, body: bytes, request: Request) -> None: ...
    def reply_queue(self) -> str: ...
    def gone_queue(self) -> str: ...
    def replies(self, address: str) -> list[Reply]: ...
    def lose(self, transport: Any, deliveries: list[Delivery]) -> None: ...
    def cut(self) -> None: ...
    def heal(self) -> None: ...
    def close(self) -> None: ...


def eventually(look: Callable[[], Any], within_s: float = 15) -> Any:
    """The first true answer; fails after `within_s`."""
    deadline = time.monotonic() + within_s
    while not (answer := look()):
        assert time.monotonic() < deadline, f"not within {within_s} s: {look}"
        time.sleep(0.02)
    return answer


def collect(transport: Transport, count: int, within_s: float = 15) -> list[Delivery]:
    """Receive until there are `count`."""
    got: list[Delivery] = []
    deadline = time.monotonic() + within_s
    while len(got) < count:
        assert time.monotonic() < deadline, f"{len(got)} of {count} within {within_s} s"
        got += transport.receive(count - len(got), 0.5)
    return got


@dataclass
class MemoryUnderTest:
    broker: MemoryBroker = field(default_factory=MemoryBroker)

    def __post_init__(self) -> None:
        self.answers = MemoryReplies(self.broker)

    def queue(self, type_: str) -> str:
        return dict(topology.QUEUES)[type_]

    def open(self, **changed: object) -> MemoryTransport:
        return MemoryTransport(self.broker)

    def send(self, *bodies: bytes, type_: str | None = PLACED) -> None:
        for body in bodies:
            self.broker.publish(body, type_, headers={"type": type_} if type_ else {})

    def letters(self, type_: str = PLACED) -> list[Letter]:
        return [Letter(dead.body, dead.headers) for dead in self.broker.dead_letters[self.queue(type_)]]

    def open_quotes(self) -> tuple[Transport, Replies]:
        return MemoryTransport(self.broker), self.answers

    def ask(self, body: bytes, request: Request) -> None:
        self.broker.publish(body, QUOTE, headers=_attributes(request))

    def reply_queue(self) -> str:
        self.answers.queues["checkout"] = deque()
        return "checkout"

    def gone_queue(self) -> str:
        return "gone"

    def replies(self, address: str) -> list[Reply]:
        queue = self.answers.queues[address]
        return [
            Reply(one.body, correlation, one.type) for correlation, one in (queue.popleft() for _ in range(len(queue)))
        ]

    def lose(self, transport: Any, deliveries: list[Delivery]) -> None:
        transport.lose()

    def cut(self) -> None:
        self.broker.away = True

    def heal(self) -> None:
        self.broker.away = False

    def close(self) -> None:
        pass


class SqsUnderTest:
    def __init__(self, endpoint_url: str, prefix: str) -> None:
        address = urlsplit(endpoint_url)
        self.proxy = Proxy(address.hostname or "", address.port or 0)
        self.proxy.start()
        values = {"prefix": prefix, "aws_region": "eu-central-1", **SHORT}
        direct = Settings.model_validate({**values, "aws_endpoint_url": endpoint_url})
        self.settings = Settings.model_validate({**values, "aws_endpoint_url": f"http://127.0.0.1:{self.proxy.port}"})
        topology_aws.apply(direct)
        self.sqs = aws_client("sqs", endpoint_url)
        self.sns = aws_client("sns", endpoint_url)
        self.topic = self.sns.create_topic(Name=names.events_topic(prefix))["TopicArn"]
        self._opened: list[Any] = []
        self._replies: list[Replies] = []

    def queue(self, type_: str) -> str:
        return next(group.source for group in sqs_queues(self.settings) if group.type == type_)

    def url(self, queue: str) -> str:
        return str(self.sqs.get_queue_url(QueueName=queue)["QueueUrl"])

    def open(self, **changed: object) -> SqsTransport:
        transport = SqsTransport(self.settings.model_copy(update=changed))
        self._opened.append(transport)
        return transport

    def send(self, *bodies: bytes, type_: str | None = PLACED) -> None:
        """To the topic, so that every message takes the way of a real one."""
        attributes = {"type": {"DataType": "String", "StringValue": type_}} if type_ else {}
        for start in range(0, len(bodies), 10):
            entries: list[Any] = [
                {"Id": str(number), "Message": body.decode(), "MessageAttributes": attributes}
                for number, body in enumerate(bodies[start : start + 10])
            ]
            answer = self.sns.publish_batch(TopicArn=self.topic, PublishBatchRequestEntries=entries)
            assert not answer.get("Failed")

    def letters(self, type_: str = PLACED) -> list[Letter]:
        url = self.url(f"{self.queue(type_)}-dlq")
        found: list[Letter] = []
        while True:
            messages = self.sqs.receive_message(
                QueueUrl=url, MaxNumberOfMessages=10, VisibilityTimeout=60, MessageAttributeNames=["All"]
            ).get("Messages", [])
            if not messages:
                break
            found += [
                Letter(
                    message["Body"].encode(),
                    {name: value["StringValue"] for name, value in message.get("MessageAttributes", {}).items()},
                )
                for message in messages
            ]
        return found

    def open_quotes(self) -> tuple[Transport, Replies]:
        transport = parts_aws.open_quotes(self.settings, Stop())
        self._opened.append(transport)
        self._replies.append(parts_aws.open_replies(self.settings, Stop()))
        return transport, self._replies[-1]

    def ask(self, body: bytes, request: Request) -> None:
        """By the topic, as a checkout would."""
        given = {"type": QUOTE, **_attributes(request)}
        attributes: Any = {name: {"DataType": "String", "StringValue": value} for name, value in given.items()}
        self.sns.publish(TopicArn=self.topic, Message=body.decode(), MessageAttributes=attributes)

    def reply_queue(self) -> str:
        return str(self.sqs.create_queue(QueueName=f"{self.settings.prefix}-checkout")["QueueUrl"])

    def gone_queue(self) -> str:
        return self.reply_queue().replace("-checkout", "-gone")

    def replies(self, address: str) -> list[Reply]:
        found = self.sqs.receive_message(
            QueueUrl=address, MaxNumberOfMessages=10, WaitTimeSeconds=1, MessageAttributeNames=["All"]
        ).get("Messages", [])
        texts = [{k: v["StringValue"] for k, v in m.get("MessageAttributes", {}).items()} for m in found]
        return [
            Reply(message["Body"].encode(), text.get("correlation_id", ""), text.get("type"))
            for message, text in zip(found, texts, strict=True)
        ]

    def lose(self, transport: Any, deliveries: list[Delivery]) -> None:
        """As if the visibility ran out: the transport has not extended it in time, and somebody else may receive."""
        for delivery in deliveries:
            held: Any = delivery.receipt
            self.sqs.change_message_visibility(
                QueueUrl=self.url(held.queue), ReceiptHandle=held.receipt.handle, VisibilityTimeout=0
            )
            held.until = time.monotonic()

    def cut(self) -> None:
        self.proxy.cut()

    def heal(self) -> None:
        self.proxy.heal()

    def close(self) -> None:
        self.heal()
        for transport in (*self._opened, *self._replies):
            transport.close()
        self.sqs.close()
        self.sns.close()
        self.proxy.stop()


class RabbitMQUnderTest:
    def __init__(self, url: str, management_url: str, prefix: str) -> None:
        parts = urlsplit(url)
        self.proxy = Proxy(parts.hostname or "", parts.port or 5672)
        self.proxy.start()
        netloc = f"{parts.username}:{parts.password}@127.0.0.1:{self.proxy.port}"
        self.direct = Settings.model_validate(
            {"prefix": prefix, "rabbitmq_url": url, "rabbitmq_management_url": management_url, **SHORT}
        )
        self.settings = self.direct.model_copy(
            update={"rabbitmq_url": urlunsplit(parts._replace(netloc=netloc)), "rabbitmq_management_url": None}
        )
        topology_rabbitmq.apply(self.direct)
        self._opened: list[Any] = []
        self._replies: list[Replies] = []

    @contextmanager
    def channel(self) -> Iterator[Any]:
        connection = pika.BlockingConnection(pika.URLParameters(self.direct.need_rabbitmq_url()))
        try:
            yield connection.channel()
        finally:
            connection.close()

    def empty(self) -> None:
        """Leave nothing of the test before."""
        topology_rabbitmq.apply(self.direct)
        with self.channel() as channel:
            purge(channel, [queue.name for queue in rabbitmq_plan(self.direct).queues])

    def queue(self, type_: str) -> str:
        return next(group.source for group in rabbitmq_queues(self.settings) if group.type == type_)

    def open(self, **changed: object) -> RabbitMQTransport:
        transport = RabbitMQTransport(self.settings.model_copy(update=changed))
        self._opened.append(transport)
        return transport

    def send(self, *bodies: bytes, type_: str | None = PLACED) -> None:
        properties = pika.BasicProperties(
            delivery_mode=2, message_id="m", correlation_id="c", headers={"type": type_} if type_ else None
        )
        with self.channel() as channel:
            channel.confirm_delivery()
            for body in bodies:
                channel.basic_publish(
                    names.events_exchange(self.settings.prefix), type_ or "", body, properties, mandatory=True
                )

    def letters(self, type_: str = PLACED) -> list[Letter]:
        found: list[Letter] = []
        with self.channel() as channel:
            while True:
                method, properties, body = channel.basic_get(f"{self.queue(type_)}.dlq", auto_ack=True)
                if method is None:
                    return found
                found.append(Letter(body, properties.headers or {}))

    def open_quotes(self) -> tuple[Transport, Replies]:
        transport = parts_rabbitmq.open_quotes(self.settings, Stop())
        self._opened.append(transport)
        self._replies.append(parts_rabbitmq.open_replies(self.settings, Stop()))
        return transport, self._replies[-1]

    def ask(self, body: bytes, request: Request) -> None:
        expiration = None if request.lives_ms is None else str(request.lives_ms)
        properties = pika.BasicProperties(
            reply_to=request.reply_to, correlation_id=request.correlation_id, expiration=expiration
        )
        with self.channel() as channel:
            channel.confirm_delivery()
            channel.basic_publish(names.events_exchange(self.settings.prefix), QUOTE, body, properties, mandatory=True)

    def reply_queue(self, **arguments: object) -> str:
        queue = f"{self.settings.prefix}.checkout-{uuid.uuid4().hex}"
        with self.channel() as channel:
            channel.queue_declare(queue, arguments=arguments)
        return queue

    def gone_queue(self) -> str:
        return "gone"

    def replies(self, address: str) -> list[Reply]:
        found: list[Reply] = []
        with self.channel() as channel:
            while (got := channel.basic_get(address, auto_ack=True))[0] is not None:
                found.append(Reply(got[2], got[1].correlation_id or "", got[1].type))
        return found

    def lose(self, transport: Any, deliveries: list[Delivery]) -> None:
        """As when the connection dies; waits until the broker's side of it is noticed on ours."""
        self.cut()
        try:
            eventually(lambda: _raises(lambda: transport.receive(1, 0.1)))
        finally:
            self.heal()

    def cut(self) -> None:
        self.proxy.cut()

    def heal(self) -> None:
        self.proxy.heal()

    def close(self) -> None:
        self.heal()
        for transport in (*self._opened, *self._replies):
            transport.close()
        self._opened.clear()
        self._replies.clear()


def _attributes(request: Request) -> dict[str, str]:
    given = {"reply_to": request.reply_to, "correlation_id": request.correlation_id}
    if request.lives_ms is not None:
        given["expires_at"] = (datetime.now(UTC) + timedelta(milliseconds=request.lives_ms)).isoformat()
    return {name: value for name, value in given.items() if value is not None}


def _raises(call: Callable[[], object]) -> bool:
    try:
        call()
    except BrokerUnavailable:
        return True
    return False
