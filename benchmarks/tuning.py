"""Which settings serve each peer best: its candidates, drained one after the other. What wins is set in contestants.py."""

from __future__ import annotations

from collections import defaultdict

from benchmarks.contestants import Contestant, celery, dramatiq, faststream, fleet
from benchmarks.measuring import Spread
from benchmarks.plots import Bar, bars
from benchmarks.reporting import Figure
from benchmarks.rig import Rig, calm, generated
from benchmarks.sizes import Sizes
from benchmarks.throughput import drain_checked


def candidates() -> list[Contestant]:
    """Processes and threads around the machine's two cores, prefetch around what is in work at a time."""
    return [
        dramatiq(1, 8, 32),
        dramatiq(1, 16, 64),
        dramatiq(2, 4, 32),
        dramatiq(2, 8, 64),
        dramatiq(2, 16, 128),
        dramatiq(4, 4, 32),
        celery(8, 16, pool="prefork"),
        celery(16, 16, pool="prefork"),
        celery(16, 8, pool="threads"),
        celery(8, 8, workers=2, pool="threads"),
        faststream(1, 8, 16),
        faststream(1, 16, 64),
        faststream(2, 4, 16),
        faststream(2, 8, 32),
        faststream(2, 16, 64),
        fleet(1, batch_size=250),
        fleet(1, batch_size=500),
        fleet(1, batch_size=1_000, prefetch=4_000),
        fleet(2, batch_size=250),
        fleet(2, batch_size=500),
        fleet(2, batch_size=1_000, prefetch=4_000),
        fleet(3, batch_size=500),
    ]


def figure(rig: Rig, sizes: Sizes) -> Figure:
    """Measure and tell."""
    stream = generated(sizes.tuning_events, name="t")
    backlog = calm(rig, stream, stream.events())
    tried = [one for one in candidates() if sizes.peers or one.is_fleet]
    rates: dict[str, list[float]] = defaultdict(list)
    cpu: dict[str, float] = {}
    for _ in range(sizes.tuning_rounds):
        for contestant in tried:
            name = f"{contestant.name}: {contestant.about}"
            run = drain_checked(rig, contestant, backlog)
            rates[name].append(run.per_second)
            cpu[name] = run.worker_us
            print(f"tuning      {run.per_second:8,.0f} events/s, CPU {run.worker_us:5.0f} us  {name}", flush=True)
    spreads = {name: Spread.of(taken) for name, taken in rates.items()}
    rows = [["settings", "events/s: median (least to most)", "CPU of its processes, µs an event"]]
    rows += [[name, spread.text(), f"{cpu[name]:,.0f}"] for name, spread in spreads.items()]
    values = [Bar(name.partition(":")[0], spread.median, spread.least, spread.most) for name, spread in spreads.items()]
    data = {"events": sizes.tuning_events, "rates": rates}
    return Figure("tuning", "Settings", rows, [], bars("Settings tried", "events/s", values), data)
