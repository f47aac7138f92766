"""Figure 2: how long an event takes from its publishing to its COMMIT and to its acknowledgement, at steady offered loads.

Open loop: every event is due at a moment fixed beforehand, whatever became of the ones before, and its time counts from
there. COMMIT is when the worker knows of it; the acknowledgement is when the client library has taken it.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict, dataclass

from benchmarks import contestants, stopwatch
from benchmarks.contestants import Contestant, enter
from benchmarks.measuring import Spread, percentile, wait_until_booked
from benchmarks.plots import Line, lines
from benchmarks.publishing import Wire, open_publisher
from benchmarks.quiet import in_quiet
from benchmarks.reporting import Figure
from benchmarks.rig import Events, Rig, Stream, events_of, generated
from benchmarks.sizes import Sizes

BROKEN_MS = 1_000.0  # a contestant whose p99 is beyond this does not bear the load: it falls behind for ever
CATCH_UP_S = 120.0
TARGET_MS, TARGET_RATE = 50.0, 500


@dataclass(frozen=True, slots=True)
class Times:
    """Milliseconds from when an event was due, of one run."""

    commit_p50: float
    commit_p99: float
    commit_max: float
    ack_p50: float
    ack_p99: float
    ack_max: float


Taken = dict[tuple[str, int], list[Times]]


def offer(rig: Rig, contestant: Contestant, rate: int, sizes: Sizes, events: Events, url: str) -> Times:
    """Warm up, then publish at `rate` a second for the sizes' seconds, and look up each event's times."""
    entry = enter(rig, contestant, url)
    warm, measured = (round(rate * seconds) for seconds in (sizes.latency_warm_up_s, sizes.latency_s))
    wires = entry.wires(events[: warm + measured])
    with entry.working(detailed=True), open_publisher(entry.settings.need_rabbitmq_url()) as publisher:
        publisher.publish_on_schedule(wires[:warm], rate)
        wait_until_booked(url, warm, most_s=CATCH_UP_S)
        due = publisher.publish_on_schedule(wires[warm:], rate)
        wait_until_booked(url, len(wires), most_s=CATCH_UP_S)
    notes = stopwatch.read(entry.notes)
    commit, ack = (_sorted_ms(notes[what], due, wires[warm:]) for what in ("commit", "ack"))
    return Times(*_points(commit), *_points(ack))


def _sorted_ms(moments: dict[str, int], due: dict[str, int], wires: list[Wire]) -> list[float]:
    return sorted((moments[wire.id] - due[wire.id]) / 1e6 for wire in wires)


def _points(ranked: list[float]) -> tuple[float, float, float]:
    return percentile(ranked, 0.5), percentile(ranked, 0.99), ranked[-1]


def measure(rig: Rig, sizes: Sizes) -> tuple[Taken, list[Contestant]]:
    """Every contestant at every load, round after round; none is asked for more than broke it before."""
    most = max(sizes.latency_rates) * (sizes.latency_s + sizes.latency_warm_up_s)
    stream = generated(round(most * 1.01) + 10, name="l")
    events = events_of(stream)
    rivals = contestants.peers() if sizes.peers else []
    everyone = [contestants.fleet(1), *rivals]
    taken: Taken = defaultdict(list)
    broken: dict[str, int] = {}
    for _ in range(sizes.latency_rounds):
        for rate in sizes.latency_rates:
            for contestant in everyone:
                if rate > broken.get(contestant.name, rate):
                    continue
                times = _in_quiet(rig, contestant, rate, sizes, stream, events)
                taken[(contestant.name, rate)].append(times)
                if times.commit_p99 > BROKEN_MS:
                    broken[contestant.name] = min(rate, broken.get(contestant.name, rate))
                print(
                    f"latency     {contestant.name:10} {rate:5}/s: COMMIT p50 {times.commit_p50:7.1f} p99"
                    f" {times.commit_p99:8.1f} max {times.commit_max:8.1f} ms; ack p99 {times.ack_p99:8.1f} ms",
                    flush=True,
                )
    return taken, everyone


def _in_quiet(rig: Rig, contestant: Contestant, rate: int, sizes: Sizes, stream: Stream, events: Events) -> Times:
    def attempt() -> Times:
        with rig.ledger(stream) as url:
            return offer(rig, contestant, rate, sizes, events, url)

    return in_quiet(attempt)


def figure(rig: Rig, sizes: Sizes) -> Figure:
    """Measure and tell."""
    taken, everyone = measure(rig, sizes)
    rows = [["", "events/s offered", "COMMIT p50", "p99 (least to most)", "max", "ack p50", "p99", "max"]]
    plotted = []
    for contestant in everyone:
        points = []
        for rate in sizes.latency_rates:
            if runs := taken.get((contestant.name, rate)):
                rows.append([contestant.name, f"{rate:,}", *_cells(runs)])
                points.append((float(rate), Spread.of([run.commit_p99 for run in runs]).median))
            else:
                rows.append([contestant.name, f"{rate:,}", *["cannot bear it"] * 6])
        plotted.append(Line(contestant.name, points))
    plot = lines("Publish to COMMIT, p99", "events/s offered", "ms", plotted, logarithmic=True)
    data = {f"{name} at {rate}/s": [asdict(run) for run in runs] for (name, rate), runs in taken.items()}
    return Figure("latency", "Latency", rows, _verdicts(taken, everyone, sizes), plot, data)


def _cells(runs: list[Times]) -> list[str]:
    def median(name: str) -> Spread:
        return Spread.of([getattr(run, name) for run in runs])

    cells = [median("commit_p50").text(1).split(" ")[0], median("commit_p99").text(1)]
    return cells + [f"{median(name).median:,.1f}" for name in ("commit_max", "ack_p50", "ack_p99", "ack_max")]


def _verdicts(taken: Taken, everyone: list[Contestant], sizes: Sizes) -> list[str]:
    """The targets: p99 below 50 ms at 500/s, and never worse than the best peer at any load that it bears."""
    notes = ["Milliseconds; medians over the rounds."]
    spreads = {key: Spread.of([run.commit_p99 for run in runs]) for key, runs in taken.items()}
    p99 = {key: spread.median for key, spread in spreads.items()}
    fleets = [contestant.name for contestant in everyone if contestant.is_fleet]
    rivals = [contestant.name for contestant in everyone if not contestant.is_fleet]
    if (at := [p99[(name, TARGET_RATE)] for name in fleets if (name, TARGET_RATE) in p99]) and at:
        notes.append(f"**p99 to COMMIT at {TARGET_RATE}/s: {min(at):.1f} ms**; target below {TARGET_MS:.0f}.")
    for rate in sizes.latency_rates:
        best = min((p99[(name, rate)], name) for name in fleets if (name, rate) in p99)
        borne = [(p99[key], name) for name in rivals if (key := (name, rate)) in p99 and p99[key] <= BROKEN_MS]
        if rivals and not borne:
            notes.append(f"At {rate:,}/s no peer keeps up; {best[1]} has a p99 of {best[0]:.1f} ms.")
        elif borne:
            rival = min(borne)
            ours, theirs = spreads[(best[1], rate)], spreads[(rival[1], rate)]
            overlap = ours.least <= theirs.most and theirs.least <= ours.most
            verdict = "better than" if best[0] <= rival[0] else "**worse than**"
            notes.append(
                f"At {rate:,}/s the best fleet ({best[1]}, p99 {best[0]:.1f} ms) is"
                f" {'level with' if overlap else verdict} the best peer ({rival[1]}, {rival[0]:.1f} ms)"
                f"{': their rounds overlap' if overlap else ''}."
            )
    return notes
