"""What the crash and fault tests share: both brokers as a sender and an operator see them, and workers as processes.

It never mocks a part, and never touches a queue of another prefix.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pika
import tenacity

from incentive_fleet.brokers import declare
from incentive_fleet.brokers.aws.plan import sqs_queues
from incentive_fleet.brokers.message_headers import REASON
from incentive_fleet.brokers.messages import Message, message_of
from incentive_fleet.brokers.rabbitmq.plan import rabbitmq_queues
from incentive_fleet.brokers.registry import by_source, open_events
from incentive_fleet.brokers.topology import QueueNames
from incentive_fleet.embedded.aws import CREDENTIALS, REGION
from incentive_fleet.errors import BrokerUnavailable
from incentive_fleet.logs import ECS_NAMES, OURS
from incentive_fleet.settings import Settings
from tests.aws_clients import aws_client
from tests.rabbitmq_queues import await_no_consumer

Source = Literal["sqs", "rabbitmq"]
SOURCES: tuple[Source, ...] = ("sqs", "rabbitmq")
# Short delays, so that what a fault holds up comes again within the test.
SHORT = {"sqs_visibility_s": 2, "retry_delays_s": (1.0, 1.0), "wait_s": 0.5, "pause_max_s": 1.0, "drain_s": 10}


@dataclass(frozen=True, slots=True)
class Letter:
    """A message in a broker's dead-letter queue."""

    queue: str  # the source queue
    body: bytes
    reason: str
    headers: Mapping[str, str]


def settings_of(prefix: str, **values: Any) -> Settings:
    """The fleet's settings of a test; AWS's region is always there, its endpoint must be given."""
    return Settings.model_validate({"prefix": prefix, "aws_region": REGION, **SHORT, **values})


def environment_of(settings: Settings, **more: str) -> dict[str, str]:
    """The settings as a child process reads them."""
    values = {
        f"INCENTIVES_{name.upper()}": ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        for name, value in settings.model_dump(exclude={"aws_endpoint_url", "aws_region"}).items()
        if value is not None
    }
    endpoint = {"AWS_ENDPOINT_URL": settings.aws_endpoint_url} if settings.aws_endpoint_url else {}
    without_aws = {} if settings.aws_region else {"AWS_REGION": "", "AWS_DEFAULT_REGION": ""}
    return {**os.environ, **CREDENTIALS, **without_aws, **values, **endpoint, **more}


def start_worker(
    source: str,
    settings: Settings,
    *,
    until_idle_s: float | None = None,
    log: Path | None = None,
    out: Path | None = None,
    script: str | None = None,
    **more: str,
) -> subprocess.Popen[bytes]:
    """A worker process of one or both ("sqs,rabbitmq") brokers, as the supervisor starts it; its log goes to `log`, its
    reports go to `out`.

    `script` is Python that runs first, inside the worker.
    """
    module = ["-m", "incentive_fleet.consumers.worker"]
    if script is not None:
        main = "import sys; from incentive_fleet.consumers import worker; sys.exit(worker.main(sys.argv[1:]))"
        module = ["-c", f"{script}\n{main}"]
    idle = [str(until_idle_s)] if until_idle_s is not None else []
    return start([sys.executable, *module, source, *idle], settings, log, out, **more)


def start(
    command: Sequence[str], settings: Settings, log: Path | None = None, out: Path | None = None, **more: str
) -> subprocess.Popen[bytes]:
    """A process of the product with these settings; standard error goes to `log`, standard output to `out`."""
    with open(log or os.devnull, "ab") as errors, open(out or os.devnull, "ab") as output:
        return subprocess.Popen(command, env=environment_of(settings, **more), stdout=output, stderr=errors)


def log_of(path: Path) -> list[dict[str, Any]]:
    """The lines of a process's log so far, by the names that the code gives them; the last may still be under way."""
    lines = [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
    return [{_name(member): value for member, value in line.items()} for line in lines]


def _name(member: str) -> str:
    ours = {ecs: name for name, ecs in ECS_NAMES.items()} | {"log.level": "level", "@timestamp": "time"}
    return ours.get(member, member.removeprefix(OURS))


def said(path: Path, message: str) -> list[dict[str, Any]]:
    """Those lines of a log that say this."""
    return [line for line in log_of(path) if line["message"] == message]


class Brokers:
    """Both brokers past every proxy: what a sender publishes, what is left, what lies in the dead letters."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.queues: dict[Source, tuple[QueueNames, ...]] = {
            "sqs": sqs_queues(settings),
            "rabbitmq": rabbitmq_queues(settings),
        }
        self.sqs: Any = aws_client("sqs", settings.aws_endpoint_url)
        self._publishers: dict[Source, Any] = {}

    def apply(self) -> None:
        """Declare the topology."""
        declare.apply(self.settings)

    def publish(self, source: Source, bodies: Iterable[bytes], type_: str | None = "") -> None:
        """Publish to the topic or exchange, each confirmed; `type_` replaces the type that the body tells."""
        publisher = self._publishers.get(source)
        if publisher is None:
            publisher = open_events(self.settings, by_source(source))
            self._publishers[source] = publisher
        messages = [message_of(body) for body in bodies]
        if type_ != "":
            messages = [Message(message.body, type_, message.id) for message in messages]
        failures = publisher.publish(messages)
        assert not failures, failures

    def patiently(self, source: Source, bodies: list[bytes], type_: str | None = "") -> None:
        """Publish however long the broker is away; what was under way is sent again, which consumers must bear."""
        away = tenacity.retry_if_exception_type(BrokerUnavailable)
        stop = tenacity.stop_after_delay(120)
        tenacity.Retrying(retry=away, stop=stop, wait=tenacity.wait_fixed(0.2), reraise=True)(
            self.publish, source, bodies, type_
        )

    def bury(self, source: Source, bodies: list[bytes]) -> None:
        """Put messages straight into the dead letters of their queues, as the broker's own redrive does."""
        letters = {group.source: group.dead_letters for group in self.queues[source]}
        named = [(letters[self.queue_of(source, message_of(body).type)], body) for body in bodies]
        if source == "sqs":
            for name, body in named:
                self.sqs.send_message(QueueUrl=self.url(name), MessageBody=body.decode())
            return
        with self.channel() as channel:
            channel.confirm_delivery()
            for name, body in named:
                channel.basic_publish("", name, body, pika.BasicProperties(delivery_mode=2), mandatory=True)

    @contextmanager
    def channel(self) -> Iterator[Any]:
        connection = pika.BlockingConnection(pika.URLParameters(self.settings.need_rabbitmq_url()))
        try:
            yield connection.channel()
        finally:
            connection.close()

    def url(self, queue: str) -> str:
        return str(self.sqs.get_queue_url(QueueName=queue)["QueueUrl"])

    def queue_of(self, source: Source, type_: str | None) -> str:
        """The queue that a message of this type goes to; the first takes what has no queue of its own."""
        groups = self.queues[source]
        return next((group.source for group in groups if group.type == type_), groups[0].source)

    def rabbitmq_names(self) -> list[str]:
        """Every queue that a message of the fleet's can be in."""
        groups = self.queues["rabbitmq"]
        return [n for group in groups for n in (group.source, group.dead_letters, *(n for _, n in group.retries))]

    def left(self, source: Source) -> dict[str, int]:
        """Messages in the queues that are consumed and in those of the retries, once nobody consumes."""
        if source == "rabbitmq":
            with self.channel() as channel:
                await_no_consumer(channel, self._consumed(source))
        return self.left_now(source)

    def left_now(self, source: Source) -> dict[str, int]:
        """The same while somebody consumes; RabbitMQ does not count what consumers hold."""
        names = self._consumed(source)
        counts = self._left_sqs(names) if source == "sqs" else self._left_rabbitmq(names)
        return {name: count for name, count in counts.items() if count}

    def _consumed(self, source: Source) -> list[str]:
        return [name for group in self.queues[source] for name in (group.source, *(n for _, n in group.retries))]

    def _left_sqs(self, names: list[str]) -> dict[str, int]:
        kinds = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        answers = {name: self.sqs.get_queue_attributes(QueueUrl=self.url(name), AttributeNames=kinds) for name in names}
        return {name: sum(int(answer["Attributes"][kind]) for kind in kinds) for name, answer in answers.items()}

    def _left_rabbitmq(self, names: list[str]) -> dict[str, int]:
        with self.channel() as channel:
            return {name: channel.queue_declare(name, passive=True).method.message_count for name in names}

    def letters(self, source: Source) -> list[Letter]:
        """Take every dead letter off the broker."""
        return [
            letter
            for group in self.queues[source]
            for letter in (self._letters_sqs(group) if source == "sqs" else self._letters_rabbitmq(group))
        ]

    def _letters_sqs(self, group: QueueNames) -> Iterator[Letter]:
        url = self.url(group.dead_letters)
        while found := self.sqs.receive_message(
            QueueUrl=url, MaxNumberOfMessages=10, VisibilityTimeout=60, MessageAttributeNames=["All"]
        ).get("Messages"):
            for message in found:
                attributes = message.get("MessageAttributes", {})
                headers = {name: value["StringValue"] for name, value in attributes.items()}
                yield Letter(group.source, message["Body"].encode(), headers.get(REASON, ""), headers)
                self.sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])

    def _letters_rabbitmq(self, group: QueueNames) -> Iterator[Letter]:
        with self.channel() as channel:
            while (got := channel.basic_get(group.dead_letters, auto_ack=True))[0] is not None:
                headers = {str(name): str(value) for name, value in (got[1].headers or {}).items()}
                yield Letter(group.source, got[2], headers.get(REASON, ""), headers)

    def close(self) -> None:
        for publisher in self._publishers.values():
            publisher.close()
        self.sqs.close()
