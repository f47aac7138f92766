"""Figure 3: the fleet on SQS beside a bare boto3 loop that only receives and deletes. One process each, one after the other.

SQS is fauxqs, an emulator quick enough not to be what is measured; it keeps messages in memory.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from benchmarks import stopwatch
from benchmarks.contestants import PEERS, Contestant, enter
from benchmarks.ground import Events, Ground, Stream, calm, declare_topology, events_of, generated
from benchmarks.measuring import Spread, fingerprint, wait_until_booked
from benchmarks.plots import Bar, bars
from benchmarks.quiet import in_quiet
from benchmarks.reporting import Figure
from benchmarks.sizes import Sizes
from incentive_fleet.consumers.topology import sqs_queues
from incentive_fleet.operators.embedded.process import end, free_port, listening, spawn, wait_ready
from incentive_fleet.settings import Settings

BINARIES = PEERS.parent / "fauxqs" / "node_modules" / ".bin"
LOOPBACK = Path(__file__).with_name("loopback.cjs")
REGION = "eu-central-1"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench", "AWS_REGION": REGION}
A_CALL = 10  # messages that SQS hands out or deletes at a time, at the most
TARGET = 0.8


def figure(ground: Ground, sizes: Sizes) -> Figure:
    """Measure and tell."""
    if not (BINARIES / "fauxqs").exists():
        note = "Not measured: fauxqs is not installed (`make bench` installs it where npm is)."
        return Figure("sqs", "SQS", [["", "messages/s"]], [note], bars("SQS", "messages/s", [Bar("none", 0, 0, 0)]))
    stream = generated(sizes.sqs_events, name="q")
    events = events_of(stream)
    expected = calm(ground, stream, events).expected
    ours, bare, calls = [], [], []
    for _ in range(sizes.sqs_rounds):
        rate, made = in_quiet(lambda: _fleet_checked(ground, stream, events, expected))
        ours.append(rate)
        calls.append(made)
        bare.append(in_quiet(lambda: _bare(ground, events)))
        print(f"sqs         fleet {ours[-1]:,.0f}/s, bare loop {bare[-1]:,.0f}/s, calls {calls[-1]}", flush=True)
    return _tell(
        Spread.of(ours), Spread.of(bare), calls[-1], len(events), {"fleet": ours, "bare": bare, "calls": calls}
    )


def _tell(ours: Spread, bare: Spread, calls: dict[str, int], events: int, data: dict[str, Any]) -> Figure:
    each = {name: count / events for name, count in calls.items() if name in ("ReceiveMessage", "DeleteMessageBatch")}
    rows = [
        ["", "messages/s: median (least to most)", "ratio"],
        ["fleet, 1 process, ledger work included", ours.text(), f"{ours.median / bare.median:.2f}"],
        ["bare boto3 loop, receive and delete only", bare.text(), "1"],
    ]
    told = ", ".join(f"{name} {count:.3f}" for name, count in sorted(each.items()))
    notes = [
        f"**{ours.median / bare.median:.2f} of the bare loop's throughput**; target {TARGET}.",
        f"API calls a message in the fleet's run: {told}; the API's minimum is {1 / A_CALL} each.",
    ]
    values = [
        Bar("fleet x1", ours.median, ours.least, ours.most, ours=True),
        Bar("bare loop", bare.median, bare.least, bare.most),
    ]
    return Figure("sqs", "SQS", rows, notes, bars("SQS", "messages/s", values), data)


def _fleet_checked(ground: Ground, stream: Stream, events: Events, expected: str) -> tuple[float, dict[str, int]]:
    with ground.ledger(stream) as url, _fauxqs(ground) as endpoint:
        result = _fleet(ground, url, endpoint, events)
        if fingerprint(url) != expected:
            raise AssertionError("the fleet on SQS ended in other balances than a calm run")
        return result


def _fleet(ground: Ground, url: str, endpoint: str, events: Events) -> tuple[float, dict[str, int]]:
    changes = {"aws_endpoint_url": endpoint, "aws_region": REGION}
    worker = (sys.executable, "-m", "benchmarks.fleet_worker", "sqs")
    variables = CREDENTIALS | {"AWS_ENDPOINT_URL": endpoint}
    contestant = Contestant("fleet on SQS", "", (worker,), changes=changes, variables=variables)
    os.environ.update(CREDENTIALS)
    entry = enter(ground, contestant, url)
    _send(entry.settings, events)
    with entry.working():
        ended = wait_until_booked(url, len(events))
    first = min(stopwatch.read(entry.notes)["first"].values())
    calls = json.loads(next(entry.notes.parent.glob(f"{entry.notes.name}.calls")).read_text())
    return len(events) / ((ended - first) / 1e9), calls


def _bare(ground: Ground, events: Events) -> float:
    with _fauxqs(ground) as endpoint:
        return _receive_and_delete(ground, endpoint, events)


def _receive_and_delete(ground: Ground, endpoint: str, events: Events) -> float:
    """Receive ten, delete ten, one queue after the other, and nothing else."""
    os.environ.update(CREDENTIALS)
    settings = Settings(aws_endpoint_url=endpoint, aws_region=REGION, prefix=ground.fresh_name("bench"))
    declare_topology(settings)
    _send(settings, events)
    client = _client(settings)
    urls = [client.get_queue_url(QueueName=queue.source)["QueueUrl"] for queue in sqs_queues(settings)]
    done, began = 0, time.perf_counter()
    for url in urls:
        while messages := client.receive_message(QueueUrl=url, MaxNumberOfMessages=A_CALL).get("Messages"):
            entries = [
                {"Id": str(number), "ReceiptHandle": message["ReceiptHandle"]}
                for number, message in enumerate(messages)
            ]
            client.delete_message_batch(QueueUrl=url, Entries=entries)
            done += len(messages)
    seconds = time.perf_counter() - began
    if done != len(events):
        raise AssertionError(f"the bare loop received {done} of {len(events)} messages")
    return done / seconds


def _client(settings: Settings) -> Any:
    config = Config(max_pool_connections=16)
    session = boto3.session.Session(region_name=REGION)
    return session.client("sqs", endpoint_url=settings.aws_endpoint_url, config=config)


def _send(settings: Settings, events: Events) -> None:
    """Straight into the queues that the topic's filters would choose."""
    client = _client(settings)
    urls = {q.type: client.get_queue_url(QueueName=q.source)["QueueUrl"] for q in sqs_queues(settings)}
    batches = []
    for type_, url in urls.items():
        bodies = [body.decode() for kind, body in events if kind == type_]
        batches += [(type_, url, bodies[start : start + A_CALL]) for start in range(0, len(bodies), A_CALL)]

    def send(batch: tuple[str, str, list[str]]) -> None:
        type_, url, bodies = batch
        attributes = {"type": {"DataType": "String", "StringValue": type_}}
        entries = [
            {"Id": str(number), "MessageBody": body, "MessageAttributes": attributes}
            for number, body in enumerate(bodies)
        ]
        if client.send_message_batch(QueueUrl=url, Entries=entries).get("Failed"):
            raise AssertionError(f"fauxqs did not take a batch for {url}")

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(send, batches))


@contextmanager
def _fauxqs(ground: Ground) -> Iterator[str]:
    """A fresh emulator on a free port of the loopback."""
    port, log = free_port(), ground.folder / ground.fresh_name("fauxqs")
    variables = {"FAUXQS_PORT": str(port), "FAUXQS_LOGGER": "false"}
    process = spawn(
        [str(BINARIES / "node"), "--require", str(LOOPBACK), str((BINARIES / "fauxqs").resolve())],
        log=log,
        environment=variables | {"PATH": os.environ["PATH"]},
        leash=signal.SIGKILL,
    )
    try:
        wait_ready("fauxqs", lambda: listening(port), process, log, 30)
        yield f"http://127.0.0.1:{port}"
    finally:
        end(process, [(signal.SIGKILL, 10)])
