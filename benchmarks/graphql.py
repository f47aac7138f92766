"""How long the API takes to show a wallet, at a steady offered load: alone, beside a fleet that is fed evenly, beside a full one.

Open loop: every request is due at a moment fixed beforehand, and its time counts from there, however late the ones before are.
A process of its own serves, as `incentives serve` does; the requests are those of a program with a token.
"""

from __future__ import annotations

import http.client
import itertools
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Final

import psycopg

from benchmarks import contestants
from benchmarks.contestants import Entry, enter
from benchmarks.elsewhere import about, feeding, timing
from benchmarks.measuring import Spread, cpu_s, last_outcome, percentile, wait_until_booked
from benchmarks.plots import Bar, bars
from benchmarks.publishing import Wire, open_publisher
from benchmarks.quiet import in_quiet
from benchmarks.reporting import Figure
from benchmarks.rig import Rig, environment, events_of, generated
from benchmarks.sizes import Sizes
from incentive_fleet.console.visitors import SUPPORT
from incentive_fleet.ledger.api_tokens import create_token
from incentive_fleet.ledger.connection import connect
from incentive_fleet.settings import Settings

CLIENTS: Final = 32  # connections that stay open; one waits while its request is answered
STARTED_S: Final = 60.0
FED: Final = 500  # events a second
FIRST_EVENTS: Final = 50  # by which a worker is seen to be there
FULL_RATE: Final = 6_000  # events a second of backlog, which one worker does not get through
TARGET_MS: Final = 20.0
ALONE, BESIDE, FULL = "alone", f"beside {FED} events/s", "beside a backlog"
NAMES: Final = ("p50", "most", "late", "cpu", "booked_per_s")
QUERY: Final = """query ($customer: String!) { wallet(customerId: $customer, currency: "EUR") { balance pending debt
    lots { lotNo campaignId remaining expiresAt }
    transfers(first: 10) { edges { node { happenedAt walletChange balanceAfter meaning orderId } } pageInfo { endCursor } } } }"""


@dataclass(frozen=True, slots=True)
class Answers:
    """Milliseconds from when a request was due, of one run; the server's CPU of each, in milliseconds too."""

    p50: float
    p99: float
    most: float
    late: float  # p99 of what passed before a request was sent
    cpu: float
    booked_per_s: float  # events, by the worker meanwhile


@dataclass(frozen=True, slots=True)
class Server:
    """A serving process."""

    port: int
    token: str
    pid: int


@contextmanager
def serving(settings: Settings) -> Iterator[Server]:
    """`incentives serve` in a process of its own."""
    with closing(connect(settings.need_database_url())) as connection:
        _, token = create_token(connection, "benchmark", [SUPPORT], "benchmark", datetime.now(UTC), 1)
    command = (sys.executable, "-m", "incentive_fleet.cli.main", "serve")
    variables = environment(settings) | {"INCENTIVES_REQUESTS_PER_S": "10000"}
    with subprocess.Popen(command, env=variables, stderr=subprocess.DEVNULL) as process:
        try:
            server = Server(settings.serve_port, token, process.pid)
            _wait_for(server)
            yield server
        finally:
            process.terminate()


def _wait_for(server: Server) -> None:
    until = time.monotonic() + STARTED_S
    while True:
        try:
            with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)) as connection:
                return ask(connection, server, "nobody")
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)


def ask(connection: http.client.HTTPConnection, server: Server, customer: str) -> None:
    """One wallet. An answer with an error ends the benchmark."""
    body = json.dumps({"query": QUERY, "variables": {"customer": customer}})
    headers = {"Authorization": f"Bearer {server.token}", "Content-Type": "application/json"}
    connection.request("POST", "/graphql", body, headers)
    answer = connection.getresponse().read()
    if b'"errors"' in answer or b'"data"' not in answer:
        raise RuntimeError(answer.decode())


def offer(server: Server, customers: Sequence[str], rate: int, seconds: float) -> tuple[list[float], list[float]]:
    """Ask at `rate` a second; of each the milliseconds from when it was due to its sending, and to its answer, sorted."""
    numbers = itertools.count()
    late: list[float] = []
    taken: list[float] = []
    failures: list[Exception] = []

    def client() -> None:
        with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)) as connection:
            while not failures and (number := next(numbers)) < rate * seconds:
                due = begin + number / rate
                time.sleep(max(0.0, due - time.perf_counter()))
                late.append((time.perf_counter() - due) * 1_000)
                try:
                    ask(connection, server, customers[number % len(customers)])
                except (OSError, http.client.HTTPException, RuntimeError) as error:
                    failures.append(error)
                taken.append((time.perf_counter() - due) * 1_000)

    with timing():
        begin = time.perf_counter() + 0.2
        threads = [threading.Thread(target=client) for _ in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if failures:
        raise failures[0]
    return sorted(late), sorted(taken)


def measure(server: Server, url: str, customers: Sequence[str], sizes: Sizes) -> Answers:
    """Warm up, then ask for the sizes' seconds."""
    offer(server, customers, sizes.graphql_rate, sizes.graphql_warm_up_s)
    before, booked, began = cpu_s(server.pid), last_outcome(url), time.monotonic()
    late, ranked = offer(server, customers, sizes.graphql_rate, sizes.graphql_s)
    booked_per_s = (last_outcome(url) - booked) / (time.monotonic() - began)
    cpu = (cpu_s(server.pid) - before) / len(ranked) * 1_000
    return Answers(
        percentile(ranked, 0.5), percentile(ranked, 0.99), ranked[-1], percentile(late, 0.99), cpu, booked_per_s
    )


def run(rig: Rig, sizes: Sizes, feed: int, port: int) -> Answers:
    """Beside a worker that gets `feed` events a second, or beside none."""
    seconds = sizes.graphql_s + sizes.graphql_warm_up_s + 3
    stream = generated(max(600, round(max(feed, FED) * seconds)), name="g")
    with rig.ledger(stream) as url:
        entry = enter(rig, contestants.fleet(1, serve_port=port), url)
        with psycopg.connect(url) as owner:
            customers = [row[0] for row in owner.execute("SELECT customer_id FROM wallets ORDER BY 1 LIMIT 10000")]
        with serving(entry.settings) as server:
            if not feed:
                return measure(server, url, customers, sizes)
            wires = entry.wires(events_of(stream))
            return _beside(entry, wires, feed, lambda: measure(server, url, customers, sizes))


def _beside(entry: Entry, wires: list[Wire], feed: int, measuring: Callable[[], Answers]) -> Answers:
    url, ledger = entry.settings.need_rabbitmq_url(), entry.settings.need_database_url()
    first = len(wires) if feed >= FULL_RATE else FIRST_EVENTS
    before = last_outcome(ledger)
    with open_publisher(url) as publisher:
        publisher.publish(wires[:first])
    with entry.working():
        wait_until_booked(ledger, 1, after=before)  # the worker is there
        with feeding(url, wires[first:], feed) if first < len(wires) else nullcontext():
            return measuring()


def figure(rig: Rig, sizes: Sizes) -> Figure:
    """Measure and tell."""
    loads = {ALONE: 0, BESIDE: FED, FULL: FULL_RATE}
    taken: dict[str, list[Answers]] = {load: [] for load in loads}
    ports = itertools.count(18_480)
    for _ in range(sizes.graphql_rounds):
        for load, feed in loads.items():
            answers = in_quiet(lambda feed=feed: run(rig, sizes, feed, next(ports)))  # type: ignore[misc]
            taken[load].append(answers)
            print(
                f"graphql     {load:24} p50 {answers.p50:6.1f} p99 {answers.p99:7.1f} ms (sent {answers.late:.1f} ms late),"
                f" CPU {answers.cpu:.2f} ms, {answers.booked_per_s:,.0f} events/s",
                flush=True,
            )
    spreads = {load: Spread.of([one.p99 for one in runs]) for load, runs in taken.items()}
    rows = [["", "p50", "p99 (least to most)", "max", "sent late, p99", "server's CPU a request", "events/s booked"]]
    for load, runs in taken.items():
        p50, most, late, cpu, booked = (Spread.of([getattr(one, what) for one in runs]).median for what in NAMES)
        cells = [f"{p50:.1f}", spreads[load].text(1), f"{most:.1f}", f"{late:.1f}", f"{cpu:.2f}", f"{booked:,.0f}"]
        rows.append([load, *cells])
    notes = [
        f"Milliseconds; medians over {sizes.graphql_rounds} rounds, {sizes.graphql_rate} wallets a second of one process.",
        f"**p99 of a wallet {BESIDE}: {spreads[BESIDE].median:.1f} ms**; target below {TARGET_MS:.0f}.",
        about(),
    ]
    plot = bars("A wallet, p99", "ms", [Bar(load, s.median, s.least, s.most, ours=True) for load, s in spreads.items()])
    data = {load: [asdict(one) for one in runs] for load, runs in taken.items()}
    return Figure("graphql", "A wallet by GraphQL", rows, notes, plot, data)
