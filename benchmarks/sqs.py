"""Figure 3: the fleet on SQS, and after it a bare boto3 loop of one process that only receives and deletes, serially.

SQS is fauxqs, an emulator quick enough not to be what is measured; it keeps messages in memory.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from benchmarks import stopwatch
from benchmarks.contestants import PEERS, Contestant, enter
from benchmarks.measuring import Spread, fingerprint, wait_until_booked
from benchmarks.plots import Bar, bars
from benchmarks.quiet import in_quiet
from benchmarks.reporting import Figure
from benchmarks.rig import Events, Rig, Stream, calm, declare_topology, events_of, generated
from benchmarks.sizes import Sizes
from incentive_fleet.brokers.aws.plan import sqs_queues
from incentive_fleet.embedded.process import end, free_port, listening, spawn, wait_ready
from incentive_fleet.settings import Settings

BINARIES = PEERS.parent / "fauxqs" / "node_modules" / ".bin"
LOOPBACK = Path(__file__).with_name("loopback.cjs")
REGION = "eu-central-1"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench", "AWS_REGION": REGION}
A_CALL = 10  # messages that SQS hands out or deletes at a time, at the most
TARGET = 0.8


def figure(rig: Rig, sizes: Sizes) -> Figure:
    """Measure and tell."""
    if not (BINARIES / "fauxqs").exists():
        note = "Not measured: fauxqs is not installed (`make bench` installs it where npm is)."
        return Figure("sqs", "SQS", [["", "messages/s"]], [note], bars("SQS", "messages/s", [Bar("none", 0, 0, 0)]))
    stream = generated(sizes.sqs_events, name="q")
    events = events_of(stream)
    expected = calm(rig, stream, events).expected
    ours: dict[int, list[float]] = defaultdict(list)
    calls: dict[int, dict[str, int]] = {}
    bare = []
    for _ in range(sizes.sqs_rounds):
        for processes in sizes.sqs_processes:
            run = partial(_fleet_checked, rig, stream, events, expected, processes)
            rate, calls[processes] = in_quiet(run)
            ours[processes].append(rate)
            print(f"sqs         fleet x{processes} {rate:,.0f}/s, calls {calls[processes]}", flush=True)
        bare.append(in_quiet(lambda: _bare(rig, events)))
        print(f"sqs         bare loop {bare[-1]:,.0f}/s", flush=True)
    data = {"fleet": ours, "bare": bare, "calls": calls}
    return _tell({n: Spread.of(rates) for n, rates in ours.items()}, Spread.of(bare), calls, len(events), data)


def _tell(
    ours: dict[int, Spread], bare: Spread, calls: dict[int, dict[str, int]], events: int, data: dict[str, Any]
) -> Figure:
    best = max(ours, key=lambda processes: ours[processes].median)
    rows = [["", "messages/s: median (least to most)", "of the loop's", "receives a message", "deletes a message"]]
    for processes, rates in ours.items():
        made = [f"{calls[processes][name] / events:.3f}" for name in ("ReceiveMessage", "DeleteMessageBatch")]
        rows.append(
            [f"fleet x{processes}, ledger work included", rates.text(), f"{rates.median / bare.median:.2f}", *made]
        )
    rows.append(["bare boto3 loop, receive and delete only", bare.text(), "1", "", ""])
    notes = [
        f"**Fleet x{best} reaches {ours[best].median / bare.median:.2f} of the bare loop's throughput**; target {TARGET}."
        " The loop is one process that calls serially.",
        f"The API's minimum is {1 / A_CALL} calls of each kind a message; what is more are receives that found a queue empty.",
    ]
    values = [Bar(f"fleet x{n}", rates.median, rates.least, rates.most, ours=True) for n, rates in ours.items()]
    values.append(Bar("bare loop", bare.median, bare.least, bare.most))
    return Figure("sqs", "SQS", rows, notes, bars("SQS", "messages/s", values), data)


def _fleet_checked(
    rig: Rig, stream: Stream, events: Events, expected: str, processes: int
) -> tuple[float, dict[str, int]]:
    with rig.ledger(stream) as url, _fauxqs(rig) as endpoint:
        result = _fleet(rig, url, endpoint, events, processes)
        if fingerprint(url) != expected:
            raise AssertionError("the fleet on SQS ended in other balances than a calm run")
        return result


def _fleet(rig: Rig, url: str, endpoint: str, events: Events, processes: int) -> tuple[float, dict[str, int]]:
    changes = {"aws_endpoint_url": endpoint, "aws_region": REGION}
    worker = (sys.executable, "-m", "benchmarks.fleet_worker", "sqs")
    variables = CREDENTIALS | {"AWS_ENDPOINT_URL": endpoint}
    contestant = Contestant("fleet on SQS", "", (worker,) * processes, changes=changes, variables=variables)
    os.environ.update(CREDENTIALS)
    entry = enter(rig, contestant, url)
    _send(entry.settings, events)
    with entry.working():
        ended = wait_until_booked(url, len(events))
    first = min(stopwatch.read(entry.notes)["first"].values())
    calls: Counter[str] = Counter()
    for note in entry.notes.parent.glob(f"{entry.notes.name}.*.calls"):
        calls.update(json.loads(note.read_text()))
    return len(events) / ((ended - first) / 1e9), dict(calls)


def _bare(rig: Rig, events: Events) -> float:
    with _fauxqs(rig) as endpoint:
        return _receive_and_delete(rig, endpoint, events)


def _receive_and_delete(rig: Rig, endpoint: str, events: Events) -> float:
    """Receive ten, delete ten, one queue after the other, and nothing else."""
    os.environ.update(CREDENTIALS)
    settings = Settings(aws_endpoint_url=endpoint, aws_region=REGION, prefix=rig.fresh_name("bench"))
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
def _fauxqs(rig: Rig) -> Iterator[str]:
    """A fresh emulator on a free port of the loopback."""
    port, log = free_port(), rig.folder / rig.fresh_name("fauxqs")
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
