"""dramatiq: `dramatiq benchmarks.peers.dramatiq_worker -p PROCESSES -t THREADS`.

Its defaults but for: quorum queues, only the middleware that recovery needs (Retries), and a prefetch found by trying.
"""

from __future__ import annotations

import os
from typing import Any

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.middleware import Middleware, Retries

from benchmarks import stopwatch
from benchmarks.peers.one_event import apply


class Acknowledged(Middleware):
    def after_ack(self, broker: Any, message: Any) -> None:
        stopwatch.acknowledged([message.message_id])


class QuorumBroker(RabbitmqBroker):
    """dramatiq has no setting for the queue's type, so its one method that makes the arguments is extended."""

    def _build_queue_arguments(self, queue_name: str) -> dict[str, Any]:
        return super()._build_queue_arguments(queue_name) | {"x-queue-type": "quorum"}


middleware = [Retries(max_retries=10), *([Acknowledged()] if os.environ.get(stopwatch.DETAILED) else [])]
broker = QuorumBroker(url=os.environ["BENCH_RABBITMQ_URL"], middleware=middleware)
dramatiq.set_broker(broker)


@dramatiq.actor(queue_name=os.environ["BENCH_QUEUE"], actor_name="apply")
def apply_event(body: str) -> None:
    stopwatch.delivered()
    event = apply(body.encode())
    stopwatch.committed([event.id])
