"""Figure 1: a backlog in RabbitMQ, drained into the ledger by the fleet and by its peers; and the rows alone: the limit.

Timed from the first delivery to the last COMMIT; the backlog is published, confirmed and at rest before. Rounds are
interleaved, and every run must end in the balances that the same events give without a broker.
"""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import asdict, dataclass, field
from itertools import islice

from benchmarks import contestants, stopwatch
from benchmarks.contestants import Contestant, enter
from benchmarks.limit import Batch, read_rows, write_rows
from benchmarks.measuring import Spread, cpu_s, fingerprint, last_outcome, wait_until_booked, wal_bytes
from benchmarks.plots import Bar, bars
from benchmarks.publishing import open_publisher
from benchmarks.quiet import in_quiet
from benchmarks.reporting import Figure
from benchmarks.rig import Backlog, Events, Rig, Stream, calm, generated
from benchmarks.sizes import Sizes

LIMIT = "limit"
BATCH = 500  # the settings' default; the limit commits as often


@dataclass(frozen=True, slots=True)
class Run:
    """One drain of the backlog. CPU in microseconds an event, of the contestant's processes, Postgres and RabbitMQ."""

    per_second: float
    worker_us: float
    postgres_us: float
    rabbitmq_us: float
    wal_bytes: float


@dataclass(slots=True)
class Results:
    runs: dict[str, list[Run]] = field(default_factory=lambda: defaultdict(list))
    limit: list[float] = field(default_factory=list)
    abouts: dict[str, str] = field(default_factory=dict)

    def spread(self, name: str) -> Spread:
        return Spread.of(self.limit if name == LIMIT else [run.per_second for run in self.runs[name]])


def drain(
    rig: Rig,
    contestant: Contestant,
    database_url: str,
    events: Events,
    outcomes: int | None = None,
    *,
    after_checkpoint: bool = True,
) -> Run:
    """Publish the backlog, start the contestant, wait until all is booked: an outcome an event, unless said otherwise."""
    entry = enter(rig, contestant, database_url)
    with open_publisher(entry.settings.need_rabbitmq_url()) as publisher:
        publisher.publish(entry.wires(events))
    if after_checkpoint:
        rig.checkpoint()
    time.sleep(1.0)  # the broker writes its last segments
    servers = [rig.postgres.record.processes["server"].pid, rig.rabbitmq.record.processes["server"].pid]
    after = last_outcome(database_url)
    before, wal = [cpu_s(pid) for pid in servers], wal_bytes(database_url)
    with entry.working() as processes:
        ended = wait_until_booked(database_url, len(events) if outcomes is None else outcomes, after=after)
        workers = sum(cpu_s(process.pid) for process in processes)
    postgres, rabbitmq = (cpu_s(pid) - was for pid, was in zip(servers, before, strict=True))
    first = min(stopwatch.read(entry.notes)["first"].values())
    each = 1e6 / len(events)
    return Run(
        len(events) / ((ended - first) / 1e9),
        workers * each,
        postgres * each,
        rabbitmq * each,
        (wal_bytes(database_url) - wal) / len(events),
    )


def measure(rig: Rig, sizes: Sizes, stream: Stream) -> Results:
    """All contestants and the limit, round after round. Peers are given the backlog's beginning, or it would take hours."""
    whole = calm(rig, stream, islice(stream.events(), sizes.events))
    beginning = calm(rig, stream, whole.events[: sizes.peer_events])
    batches = _rows_of_a_run(rig, whole)
    fleets = [contestants.fleet(processes) for processes in sizes.fleets]
    results = Results()
    for _ in range(sizes.rounds):
        for contestant in [*fleets, *(contestants.peers() if sizes.peers else [])]:
            backlog = whole if contestant.is_fleet else beginning
            run = drain_checked(rig, contestant, backlog)
            _note(results, contestant, run)
        results.limit.append(in_quiet(lambda: _limit(rig, whole, batches)))
        print(f"throughput  {LIMIT:12} {results.limit[-1]:8,.0f} events/s", flush=True)
    return results


def drain_checked(rig: Rig, contestant: Contestant, backlog: Backlog) -> Run:
    """A drain into a fresh ledger beside quiet neighbours; AssertionError when it ends in other balances."""

    def attempt() -> Run:
        with rig.ledger(backlog.stream) as url:
            run = drain(rig, contestant, url, backlog.events, backlog.outcomes)
            if fingerprint(url) != backlog.expected:
                raise AssertionError(f"{contestant.name}: the balances are not those that a calm run ends in")
            return run

    return in_quiet(attempt)


def _rows_of_a_run(rig: Rig, backlog: Backlog) -> list[Batch]:
    """What a run of the fleet writes, in memory."""
    with rig.ledger(backlog.stream) as url:
        drain(rig, contestants.fleet(1), url, backlog.events, backlog.outcomes)
        return read_rows(url, BATCH)


def _limit(rig: Rig, backlog: Backlog, batches: list[Batch]) -> float:
    with rig.ledger(backlog.stream) as empty:
        rig.checkpoint()
        seconds = write_rows(empty, batches)
        if fingerprint(empty) != backlog.expected:
            raise AssertionError("the limit wrote other balances than the run whose rows it wrote")
    return sum(batch.events for batch in batches) / seconds


def _note(results: Results, contestant: Contestant, run: Run) -> None:
    results.runs[contestant.name].append(run)
    results.abouts[contestant.name] = contestant.about
    print(
        f"throughput  {contestant.name:12} {run.per_second:8,.0f} events/s; CPU an event: workers {run.worker_us:.0f},"
        f" Postgres {run.postgres_us:.0f}, RabbitMQ {run.rabbitmq_us:.0f} us",
        flush=True,
    )


def figure(rig: Rig, sizes: Sizes) -> Figure:
    """Measure and tell."""
    return figure_of(rig, sizes, generated(sizes.events), "throughput", "Backlog drained")


def figure_of(rig: Rig, sizes: Sizes, stream: Stream, name: str, title: str) -> Figure:
    """The figure for one stream."""
    results = measure(rig, sizes, stream)
    fleets = [name for name in results.runs if name.startswith("fleet")]
    rivals = [name for name in results.runs if name not in fleets]
    best = max(fleets, key=lambda name: results.spread(name).median)
    ours = results.spread(best).median
    rows = [["", "events/s: median (least to most)", "best fleet is", "CPU an event: workers, Postgres, RabbitMQ (µs)"]]
    for one in [*fleets, *rivals, LIMIT]:
        spread = results.spread(one)
        rows.append([one, spread.text(), f"{ours / spread.median:.2f} x", _cpu(results, one)])
    notes = [f"{name}: {about}." for name, about in results.abouts.items()]
    ratios = {"of the limit": ours / results.spread(LIMIT).median}
    if rivals:
        rival = max(rivals, key=lambda name: results.spread(name).median)
        ratios["times the best peer"] = ours / results.spread(rival).median
        notes.insert(0, f"**{best} is {ratios['times the best peer']:.1f} times the best peer ({rival})**; target 8.")
    notes.insert(0, f"**{best} reaches {ratios['of the limit']:.2f} of the limit**; target 0.6.")
    plot = [Bar(n, *_values(results.spread(n)), ours=n in fleets) for n in [*fleets, *rivals, LIMIT]]
    data = {
        "events": sizes.events,
        "peer_events": sizes.peer_events,
        "rounds": sizes.rounds,
        "runs": {name: [asdict(run) for run in runs] for name, runs in results.runs.items()},
        LIMIT: results.limit,
        "best": best,
        "ratios": ratios,
    }
    return Figure(name, title, rows, notes, bars(title, "events/s", plot), data)


def _values(spread: Spread) -> tuple[float, float, float]:
    return spread.median, spread.least, spread.most


def _cpu(results: Results, name: str) -> str:
    runs = results.runs.get(name)
    if not runs:
        return ""
    parts = (Spread.of([getattr(run, part) for run in runs]) for part in ("worker_us", "postgres_us", "rabbitmq_us"))
    return ", ".join(f"{part.median:,.0f}" for part in parts)
