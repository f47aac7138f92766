"""Figure: how long a checkout waits for a quote over RabbitMQ, by itself, beside a fed fleet and beside a backlog that is drained.

Open loop: every request is due at a moment fixed beforehand, whatever became of the ones before, and its time runs from there
until its answer is in the checkout's hands, by direct reply-to. Every request must be answered with a quote.
"""

from __future__ import annotations

import contextlib
import json
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
from benchmarks.elsewhere import about, feeding, timing
from benchmarks.measuring import Spread, cpu_s, last_outcome, percentile, wait_until_booked
from benchmarks.plots import Bar, bars
from benchmarks.publishing import open_publisher
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
START_S: Final = 6.0  # in which whoever answers is there
FIRST_EVENTS: Final = 50  # by which a worker is seen to be there
NAMES: Final = ("p50", "most", "late", "cpu_us", "booked_per_s", "load")


@dataclass(frozen=True, slots=True)
class Times:
    """One run: milliseconds from when a request was due, CPU of the process that answers, and the load of the machine."""

    p50: float
    p99: float
    most: float
    late: float  # p99 of what passed before a request was sent
    cpu_us: float
    booked_per_s: float  # events, by the fleet meanwhile
    load: float


@dataclass(slots=True)
class Checkout:
    """Asks and is answered on one connection, by one thread."""

    settings: Settings
    answered: dict[str, int] = field(default_factory=dict)  # when, in nanoseconds since the epoch
    late_ms: list[float] = field(default_factory=list)  # what passed before each of the last requests was sent
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
        self.late_ms = []
        for name, body in requests:
            while (left_s := (due[name] - time.time_ns()) / 1e9) > 0:
                self._listen(left_s)
            self.late_ms.append((time.time_ns() - due[name]) / 1e6)
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


@contextmanager
def _beside(what: str, rig: Rig, url: str, events: Events, sizes: Sizes) -> Iterator[Settings]:
    """The fleet of one worker and what it has to do meanwhile."""
    entry = enter(rig, contestants.fleet(1), url)
    broker = entry.settings.need_rabbitmq_url()
    if what == ALONE:
        yield entry.settings
        return
    first = sizes.quotes_backlog if what == BACKLOG else FIRST_EVENTS
    before = last_outcome(url)
    with open_publisher(broker) as publisher:
        publisher.publish(entry.wires(events[:first]))
    with entry.working():
        wait_until_booked(url, 1, after=before)  # the worker is there
        if what == BACKLOG:
            yield entry.settings
            return
        with feeding(broker, entry.wires(events[first : first + _events_fed(sizes)]), sizes.quotes_events_per_s):
            yield entry.settings


def _events_fed(sizes: Sizes) -> int:
    return round(sizes.quotes_events_per_s * (sizes.quotes_s + sizes.quotes_warm_up_s + START_S))


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
        before, booked, began = cpu_s(pid), last_outcome(url), time.monotonic()
        with timing():
            took = sorted(checkout.ask_on_schedule(requests[warm:], rate))
        booked_per_s = (last_outcome(url) - booked) / (time.monotonic() - began)
        spent_us = (cpu_s(pid) - before) / len(took) * 1e6
    late = percentile(checkout.late_ms, 0.99)
    return Times(
        percentile(took, 0.5), percentile(took, 0.99), took[-1], late, spent_us, booked_per_s, os.getloadavg()[0]
    )


def figure(rig: Rig, sizes: Sizes) -> Figure:
    """Measure and tell."""
    count = max(sizes.quotes_backlog, FIRST_EVENTS + _events_fed(sizes))
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
    head = ["p50, ms", "p99 (least to most)", "max", "sent late, p99", "CPU a quote, µs", "events/s booked", "load"]
    rows = [[f"{sizes.quotes_per_s} quotes/s beside", *head]]
    spreads = {what: Spread.of([one.p99 for one in runs]) for what, runs in taken.items()}
    for what, title in cases.items():
        p50, most, late, cpu, booked, load = (
            Spread.of([getattr(one, name) for one in taken[what]]).median for name in NAMES
        )
        cells = [f"{p50:.1f}", spreads[what].text(1), f"{most:,.1f}", f"{late:.1f}", f"{cpu:,.0f}"]
        rows.append([title, *cells, f"{booked:,.0f}", f"{load:.1f}"])
    notes = [
        f"**p99 beside a fed fleet: {spreads[FED].median:.1f} ms**; target below {TARGET_MS:.0f}.",
        "From when a request was due to its answer at the checkout, by direct reply-to; every request was answered.",
        "One process answers. CPU is that process' alone; load is the machine's over the last minute, of two cores, at the end.",
        about(),
    ]
    drawn = [Bar(cases[what], one.median, one.least, one.most, ours=True) for what, one in spreads.items()]
    data = {what: [asdict(one) for one in runs] for what, runs in taken.items()}
    return Figure("quotes", "Quotes", rows, notes, bars("Quotes, p99", "ms", drawn), data)
