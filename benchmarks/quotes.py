"""Figure: how long a checkout waits for a quote over RabbitMQ, by itself, beside a fed fleet and beside a backlog that is drained.

Open loop: every request is due at a moment fixed beforehand, whatever became of the ones before, and its time runs from there
until its answer is in the checkout's hands, by direct reply-to. Every request must be answered with a quote.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import amqp

from benchmarks import contestants
from benchmarks.contestants import enter
from benchmarks.measuring import Spread, cpu_s, percentile
from benchmarks.plots import Bar, bars
from benchmarks.publishing import Wire, open_publisher
from benchmarks.quiet import in_quiet
from benchmarks.reporting import Figure
from benchmarks.rig import Events, Rig, environment, events_of, generated
from benchmarks.sizes import Sizes
from incentive_fleet import names
from incentive_fleet.settings import Settings

TYPE: Final = "incentives-quote-requested.v1"
DIRECT: Final = "amq.rabbitmq.reply-to"
ANSWER_S: Final = 30.0  # for what is still on its way at the end
ALONE, FED, BACKLOG = "nothing", "events", "backlog"
TARGET_MS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Times:
    """One run: milliseconds from when a request was due, CPU of the process that answers, and the load of the machine."""

    p50: float
    p99: float
    most: float
    cpu_us: float
    load: float


@dataclass(slots=True)
class Checkout:
    """Asks and is answered on one connection, by one thread."""

    settings: Settings
    answered: dict[str, int] = field(default_factory=dict)  # when, in nanoseconds since the epoch
    _connection: Any = None
    _channel: Any = None

    def __enter__(self) -> Checkout:
        parts = urlsplit(self.settings.need_rabbitmq_url())
        self._connection = amqp.Connection(
            host=f"{parts.hostname}:{parts.port}",
            userid=parts.username,
            password=parts.password,
            virtual_host=unquote(parts.path[1:]) or "/",
        )
        self._connection.connect()
        self._channel = self._connection.channel()
        self._channel.basic_consume(DIRECT, no_ack=True, callback=self._on_answer)
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def _on_answer(self, message: Any) -> None:
        self.answered[message.correlation_id] = time.time_ns()
        if b"incentives-quoted.v1" not in bytes(
            message.body if isinstance(message.body, bytes) else message.body.encode()
        ):
            raise AssertionError(f"no quote: {message.body[:200]}")

    def ask_on_schedule(self, requests: Sequence[tuple[str, bytes]], per_second: float) -> list[float]:
        """Milliseconds that each took, in the order asked."""
        began = time.time_ns() + 50_000_000
        due = {name: began + round(number * 1e9 / per_second) for number, (name, _) in enumerate(requests)}
        exchange = names.events_exchange(self.settings.prefix)
        for name, body in requests:
            while (left_s := (due[name] - time.time_ns()) / 1e9) > 0:
                self._listen(left_s)
            self._channel.basic_publish(amqp.Message(body, reply_to=DIRECT, correlation_id=name), exchange, TYPE)
        deadline = time.monotonic() + ANSWER_S
        while len(self.answered.keys() & due.keys()) < len(due) and time.monotonic() < deadline:
            self._listen(0.1)
        return [(self.answered[name] - at) / 1e6 for name, at in due.items()]

    def _listen(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            self._connection.drain_events(timeout=seconds)


def requests_of(events: Events, count: int) -> list[tuple[str, bytes]]:
    """What the orders of the stream would have asked before, over and over."""
    placings = [json.loads(body)["data"] for type_, body in events if type_ == "order-placed.v1"]
    found = []
    for number in range(count):
        data = dict(placings[number % len(placings)])
        name, at = f"q{number}", data.pop("placed_at")
        del data["order_id"]
        head = {"specversion": "1.0", "id": name, "source": "/checkout", "type": TYPE, "subject": name, "time": at}
        found.append((name, json.dumps(head | {"data": data | {"quote_id": name, "at": at}}).encode()))
    return found


@contextmanager
def _answering(settings: Settings) -> Iterator[int]:
    """The product's own worker, without the supervisor that would only restart it; its process id."""
    command = [sys.executable, "-m", "incentive_fleet.consumers.worker", "rabbitmq", "--quotes"]
    process = subprocess.Popen(command, env=environment(settings), stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    try:
        yield process.pid
    finally:
        process.terminate()
        process.wait()


def _feed(url: str, wires: Sequence[Wire], per_second: float) -> None:
    with open_publisher(url) as publisher:
        publisher.publish_on_schedule(wires, per_second)


@contextmanager
def _beside(what: str, rig: Rig, url: str, events: Events, sizes: Sizes) -> Iterator[Settings]:
    """The fleet of one worker and what it has to do meanwhile."""
    entry = enter(rig, contestants.fleet(1), url)
    broker = entry.settings.need_rabbitmq_url()
    if what == ALONE:
        yield entry.settings
        return
    if what == BACKLOG:
        with open_publisher(broker) as publisher:
            publisher.publish(entry.wires(events[: sizes.quotes_backlog]))
        with entry.working():
            yield entry.settings
        return
    count = round(sizes.quotes_events_per_s * (sizes.quotes_s + sizes.quotes_warm_up_s + 2))
    arguments = (broker, entry.wires(events[:count]), sizes.quotes_events_per_s)
    feeder = multiprocessing.get_context("fork").Process(target=_feed, args=arguments)
    with entry.working():
        feeder.start()
        try:
            yield entry.settings
        finally:
            feeder.terminate()
            feeder.join()


def run(rig: Rig, what: str, sizes: Sizes, events: Events, url: str) -> Times:
    """Warm up, ask on schedule, and tell."""
    rate = sizes.quotes_per_s
    warm, measured = (round(rate * seconds) for seconds in (sizes.quotes_warm_up_s, sizes.quotes_s))
    requests = requests_of(events, warm + measured)
    with (
        _beside(what, rig, url, events, sizes) as settings,
        _answering(settings) as pid,
        Checkout(settings) as checkout,
    ):
        checkout.ask_on_schedule(requests[:1], rate)  # whoever answers is there
        checkout.ask_on_schedule(requests[1:warm], rate)
        before = cpu_s(pid)
        took = sorted(checkout.ask_on_schedule(requests[warm:], rate))
        spent_us = (cpu_s(pid) - before) / len(took) * 1e6
    return Times(percentile(took, 0.5), percentile(took, 0.99), took[-1], spent_us, os.getloadavg()[0])


def figure(rig: Rig, sizes: Sizes) -> Figure:
    """Measure and tell."""
    count = max(sizes.quotes_backlog, round(sizes.quotes_events_per_s * (sizes.quotes_s + sizes.quotes_warm_up_s + 2)))
    stream = generated(count + 10, name="q")
    events = events_of(stream)
    cases = {
        ALONE: "nothing",
        FED: f"a fleet fed with {sizes.quotes_events_per_s} events/s",
        BACKLOG: f"a fleet that drains {sizes.quotes_backlog:,} events as fast as it can",
    }

    def attempt(what: str) -> Times:
        with rig.ledger(stream) as url:
            return run(rig, what, sizes, events, url)

    taken: dict[str, list[Times]] = {what: [] for what in cases}
    for _ in range(sizes.quotes_rounds):
        for what in cases:
            times = in_quiet(lambda: attempt(what))  # noqa: B023  (called at once)
            taken[what].append(times)
            print(f"quotes      {what:8} {times}", flush=True)
    rows = [
        [f"{sizes.quotes_per_s} quotes/s beside", "p50, ms", "p99 (least to most)", "max", "CPU a quote, µs", "load"]
    ]
    spreads = {what: Spread.of([one.p99 for one in runs]) for what, runs in taken.items()}
    for what, title in cases.items():
        p50, most, cpu, load = (Spread.of([getattr(one, name) for one in taken[what]]) for name in NAMES)
        cells = [
            f"{p50.median:.1f}",
            spreads[what].text(1),
            f"{most.median:,.1f}",
            f"{cpu.median:,.0f}",
            f"{load.median:.1f}",
        ]
        rows.append([title, *cells])
    notes = [
        f"**p99 beside a fed fleet: {spreads[FED].median:.1f} ms**; target below {TARGET_MS:.0f}.",
        "From when a request was due to its answer at the checkout, by direct reply-to; every request was answered.",
        "One process answers. CPU is that process' alone; load is the machine's over the last minute, of two cores, at the end.",
    ]
    drawn = [Bar(cases[what], one.median, one.least, one.most, ours=True) for what, one in spreads.items()]
    data = {what: [asdict(one) for one in runs] for what, runs in taken.items()}
    return Figure("quotes", "Quotes", rows, notes, bars("Quotes, p99", "ms", drawn), data)


NAMES: Final = ("p50", "most", "cpu_us", "load")
