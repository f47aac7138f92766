"""FastStream: `faststream run benchmarks.peers.faststream_worker:app --workers PROCESSES`, on uvloop.

The job is synchronous, so it runs on a pool of threads with a connection each; the channel's prefetch bounds how many
events are on their way at a time. The body reaches the handler as it came: no dependency injection, no second parse.
"""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor

from faststream import AckPolicy, FastStream
from faststream.rabbit import Channel, QueueType, RabbitBroker, RabbitMessage, RabbitQueue

from benchmarks import stopwatch
from benchmarks.peers.one_event import apply

threads = ThreadPoolExecutor(int(os.environ["BENCH_THREADS"]))
broker = RabbitBroker(
    os.environ["BENCH_RABBITMQ_URL"],
    default_channel=Channel(prefetch_count=int(os.environ["BENCH_PREFETCH"])),
    apply_types=False,
    logger=None,
)
app = FastStream(broker)


async def raw(message: RabbitMessage) -> bytes:
    return message.body


@broker.subscriber(
    RabbitQueue(os.environ["BENCH_QUEUE"], queue_type=QueueType.QUORUM, durable=True),
    ack_policy=AckPolicy.NACK_ON_ERROR if not os.environ.get(stopwatch.DETAILED) else AckPolicy.MANUAL,
    decoder=raw,
)
async def apply_event(body: bytes) -> None:
    stopwatch.delivered()
    event = await asyncio.get_running_loop().run_in_executor(threads, apply, body)
    stopwatch.committed([event.id])
    if os.environ.get(stopwatch.DETAILED):
        await acknowledge(event.id)


async def acknowledge(event_id: str) -> None:
    message: RabbitMessage = broker.context.get_local("message")
    await message.ack()
    stopwatch.acknowledged([event_id])
