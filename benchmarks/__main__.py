"""`python -m benchmarks`: take the figures, write them to benchmarks/results and into benchmarks/README.md."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import signal
import sys
import time
from pathlib import Path

from benchmarks import quiet, reporting, rig
from benchmarks.contestants import PEERS
from benchmarks.machine import describe
from benchmarks.sizes import FULL, QUICK

# In this order. Each is a module with `figure(rig, sizes)`.
FIGURES = (
    *("throughput", "real_orders", "final_baskets", "latency", "quotes", "graphql", "sqs"),
    *("growth", "hot_spots", "relay", "scale", "memory"),
)
ASKED_FOR = ("tuning", "nightly")  # a figure that is taken only when it is named


def main(arguments: list[str]) -> int:
    """Take the figures that were asked for; 0 when all were taken."""
    options = _options(arguments)
    sizes = QUICK if options.quick else FULL
    changes = {name: getattr(options, name) for name in ("rounds", "events") if getattr(options, name) is not None}
    if not PEERS.exists():
        print("The peers are not installed (`make bench` installs them): the fleet is measured alone.", file=sys.stderr)
        changes["peers"] = False
    changes["scale_page"] = options.into is None and not options.quick
    sizes = dataclasses.replace(sizes, **changes)
    page = reporting.PAGE if options.into is None and not options.quick else None
    folder = options.into or (reporting.RESULTS if page else Path("build") / "bench")
    quiet.patient = not options.quick
    with rig.running() as servers:
        machine = describe(servers)
        if page is not None:
            rows = [["", "on which the figures were taken last"], *([name, value] for name, value in machine.items())]
            reporting.put(page, "machine", reporting.table(rows))
        for name in options.only:
            began = time.monotonic()
            figure = importlib.import_module(f"benchmarks.{name}").figure(servers, sizes)
            if sentence := quiet.told():
                figure = dataclasses.replace(figure, notes=[*figure.notes, sentence])
            reporting.write(figure, folder, machine, page)
            print(f"\n{figure.title}\n\n{figure.markdown()}\n\n({time.monotonic() - began:.0f} s)\n", flush=True)
    return 0


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--only", type=_names, default=FIGURES, help=f"figures, by commas: {','.join((*FIGURES, *ASKED_FOR))}"
    )
    parser.add_argument("--rounds", type=int, help=f"rounds of the throughput figure (default {FULL.rounds})")
    parser.add_argument("--events", type=int, help=f"events of the throughput figure (default {FULL.events:,})")
    parser.add_argument("--quick", action="store_true", help="tiny numbers, no peers, into build/bench: does it run?")
    parser.add_argument("--into", type=Path, help="folder for the results; the page is left alone then")
    return parser.parse_args(arguments)


def _names(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    unknown = [name for name in names if name not in (*FIGURES, *ASKED_FOR)]
    if unknown:
        raise argparse.ArgumentTypeError(
            f"no figure is called {', '.join(unknown)}; there are {', '.join((*FIGURES, *ASKED_FOR))}"
        )
    return names


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what was started is ended
    sys.exit(main(sys.argv[1:]))
