"""Celery: `celery -A benchmarks.peers.celery_worker worker --pool POOL --concurrency N --without-gossip ...`.

Late acknowledgement (an early one would lose events), no result backend, no events, no remote control, quorum queue.
"""

from __future__ import annotations

import os

from celery import Celery, Task
from celery.worker.request import Request
from kombu import Queue

from benchmarks import stopwatch
from benchmarks.peers.one_event import apply

QUEUE = os.environ["BENCH_QUEUE"]

app = Celery("peer", broker=os.environ["BENCH_RABBITMQ_URL"])
app.conf.update(
    task_queues=[Queue(QUEUE, exchange="", routing_key=QUEUE, queue_arguments={"x-queue-type": "quorum"})],
    task_default_queue=QUEUE,
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    task_ignore_result=True,
    result_backend=None,
    worker_prefetch_multiplier=int(os.environ["BENCH_PREFETCH"]),
    worker_enable_remote_control=False,
    worker_send_task_events=False,
    worker_hijack_root_logger=False,
    worker_detect_quorum_queues=True,
    broker_connection_retry_on_startup=True,
)


class TimedRequest(Request):
    def acknowledge(self) -> None:
        super().acknowledge()
        stopwatch.acknowledged([self.id])


class TimedTask(Task):
    Request = TimedRequest if os.environ.get(stopwatch.DETAILED) else Task.Request


@app.task(base=TimedTask, name="apply")
def apply_event(body: str) -> None:
    stopwatch.delivered()
    event = apply(body.encode())
    stopwatch.committed([event.id])
