"""How much lies in SQS' queues, by their attributes, and for how long, by CloudWatch. SQS calls all of these counts approximate.

It changes nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from incentive_fleet.brokers.aws.ages import QueueAges
from incentive_fleet.brokers.aws.client import available, sqs_client
from incentive_fleet.brokers.aws.plan import sqs_queues
from incentive_fleet.brokers.aws.transport import WAITING
from incentive_fleet.brokers.topology import QueueDepth
from incentive_fleet.settings import Settings

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

Role = Literal["source", "dead-letter", "retry"]


class SqsDepths:
    """See contract.py. Delayed are the retries: a message that was put off until later is not visible, but in flight."""

    def __init__(self, settings: Settings) -> None:
        settings.need_aws_region()
        self._settings = settings
        self._client: SQSClient | None = None
        self._urls: dict[str, str] = {}
        queues = sqs_queues(settings)
        self._roles: dict[str, Role] = {group.source: "source" for group in queues}
        self._roles |= {group.dead_letters: "dead-letter" for group in queues}
        asks = settings.cloudwatch_ages == "on"
        self._ages = QueueAges(settings, [group.source for group in queues]) if asks else None

    def read(self) -> list[QueueDepth]:
        """One call a queue, and one a minute for all ages."""
        ages = self._ages.read() if self._ages is not None else {}
        client = self._client = self._client or sqs_client(self._settings, connections=1)
        with available():
            for queue in self._roles.keys() - self._urls.keys():
                self._urls[queue] = client.get_queue_url(QueueName=queue)["QueueUrl"]
            return [self._depth(client, queue, role, ages.get(queue)) for queue, role in self._roles.items()]

    def _depth(self, client: SQSClient, queue: str, role: Role, oldest_s: float | None) -> QueueDepth:
        answer = client.get_queue_attributes(QueueUrl=self._urls[queue], AttributeNames=list(WAITING))["Attributes"]
        ready, in_flight, delayed = (int(answer[name]) for name in WAITING)
        return QueueDepth(queue, role, ready, in_flight, delayed, oldest_s)

    def close(self) -> None:
        """See contract.py."""
        client, self._client = self._client, None
        if client is not None:
            client.close()
        if self._ages is not None:
            self._ages.close()
