"""How much lies in RabbitMQ's queues. It declares nothing and consumes nothing."""

from __future__ import annotations

from typing import Literal

from incentive_fleet.brokers.rabbitmq.client import open_link, parameters
from incentive_fleet.brokers.rabbitmq.counting import ready
from incentive_fleet.brokers.rabbitmq.link import Link
from incentive_fleet.brokers.rabbitmq.management import Management
from incentive_fleet.brokers.rabbitmq.plan import rabbitmq_queues
from incentive_fleet.brokers.topology import QueueDepth
from incentive_fleet.errors import BrokerUnavailable
from incentive_fleet.settings import Settings
from incentive_fleet.stopping import Stop

Role = Literal["source", "dead-letter", "retry"]


class RabbitMQDepths:
    """See contract.py. What lies in a retry queue waits for its time, so it is delayed and not ready."""

    def __init__(self, settings: Settings, stop: Stop) -> None:
        self._settings = settings
        self._nodes = parameters(settings)
        self._stop = stop
        self._link: Link | None = None
        self._roles: dict[str, Role] = {}
        for names in rabbitmq_queues(settings):
            self._roles[names.source] = "source"
            self._roles[names.dead_letters] = "dead-letter"
            self._roles |= {queue: "retry" for _, queue in names.retries}

    def read(self) -> list[QueueDepth]:
        """By one request or, without the management API, by one look at each queue over a link that is kept."""
        if self._settings.rabbitmq_management_url is not None:
            seen = Management(self._settings).queues()
            if missing := sorted(self._roles.keys() - seen.keys()):
                raise BrokerUnavailable(f"RabbitMQ: there is no queue {missing[0]!r}")
            return [
                _depth(queue, role, seen[queue].get("messages_ready", 0), seen[queue].get("messages_unacknowledged", 0))
                for queue, role in self._roles.items()
            ]
        link = self._link
        if link is None or not link.alive:
            link = self._link = open_link(self._nodes, self._stop)
        counts = ready(link, tuple(self._roles))
        return [
            _depth(queue, role, count, None) for (queue, role), count in zip(self._roles.items(), counts, strict=True)
        ]

    def close(self) -> None:
        """See contract.py."""
        link, self._link = self._link, None
        if link is not None:
            link.close()


def _depth(queue: str, role: Role, ready: object, unacknowledged: object) -> QueueDepth:
    count, in_flight = int(str(ready)), None if unacknowledged is None else int(str(unacknowledged))
    return (
        QueueDepth(queue, role, 0, in_flight, count)
        if role == "retry"
        else QueueDepth(queue, role, count, in_flight, 0)
    )
