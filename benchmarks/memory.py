"""Figure 7: what a worker process holds in memory while a million events go through it."""

from __future__ import annotations

import threading
import time
from itertools import islice

from benchmarks import contestants
from benchmarks.contestants import Entry, enter
from benchmarks.measuring import last_outcome, peak_rss_bytes, rss_bytes
from benchmarks.plots import Line, lines
from benchmarks.publishing import open_publisher
from benchmarks.reporting import Figure
from benchmarks.rig import Rig, Stream, generated
from benchmarks.sizes import Sizes

PROCESSES = 2
CHUNK = 5_000
AHEAD_MOST = 60_000  # events published and not booked: the broker is not what is measured
SAMPLE_S = 1.0
MIB = 2**20


def figure(rig: Rig, sizes: Sizes) -> Figure:
    """Publish as far ahead as is sensible, consume, and look at the workers' memory once a second."""
    stream = generated(sizes.memory_events, name="m")
    samples: list[list[tuple[float, float]]] = [[] for _ in range(PROCESSES)]
    with rig.ledger(stream) as url:
        entry = enter(rig, contestants.fleet(PROCESSES), url)
        published = _Published()
        publisher = threading.Thread(target=_publish, args=(entry, stream, published), daemon=True)
        granted = last_outcome(url)  # a grant has a notice of its own
        with entry.working() as processes:
            publisher.start()
            while not published.done or published.booked < published.events:
                time.sleep(SAMPLE_S)
                published.booked = last_outcome(url) - granted
                for process, taken in zip(processes, samples, strict=True):
                    taken.append((published.booked / 1e3, rss_bytes(process.pid) / MIB))
            peaks = [peak_rss_bytes(process.pid) / MIB for process in processes]
        publisher.join()
    return _tell(published.events, samples, peaks)


class _Published:
    """Shared by the two threads; each number is written by one."""

    events = 0
    booked = 0
    done = False


def _publish(entry: Entry, stream: Stream, published: _Published) -> None:
    events = iter(stream.events())
    with open_publisher(entry.settings.need_rabbitmq_url()) as publisher:
        while chunk := list(islice(events, CHUNK)):
            publisher.publish(entry.wires(chunk))
            published.events += len(chunk)
            while published.events - published.booked > AHEAD_MOST:
                time.sleep(SAMPLE_S / 4)
    published.done = True


def _tell(events: int, samples: list[list[tuple[float, float]]], peaks: list[float]) -> Figure:
    rows = [["worker", "after a tenth, MiB", "at the end, MiB", "peak, MiB", "growth after the first tenth"]]
    growths = []
    for number, (taken, peak) in enumerate(zip(samples, peaks, strict=True), 1):
        tenth = next((rss for done, rss in taken if done * 1e3 >= events / 10), taken[-1][1])
        last = taken[-1][1]
        growths.append(last / tenth - 1)
        rows.append([str(number), f"{tenth:.1f}", f"{last:.1f}", f"{peak:.1f}", f"{growths[-1]:+.1%}"])
    notes = [f"{events:,} events through {len(peaks)} processes; **peak {max(peaks):.0f} MiB a process**."]
    plotted = [Line(f"worker {number}", taken) for number, taken in enumerate(samples, 1)]
    plot = lines("Resident memory", "thousand events booked", "MiB", plotted)
    return Figure("memory", "Memory", rows, notes, plot, {"events": events, "samples": samples, "peaks": peaks})
