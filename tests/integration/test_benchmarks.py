"""The benchmark still runs: with tiny numbers, without peers, judged by its balances and never by its speed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from benchmarks.__main__ import FIGURES
from benchmarks.plots import Bar, Line, bars, lines
from benchmarks.reporting import PAGE
from benchmarks.scale import PAGE as SCALE_PAGE
from benchmarks.scale import Cost, need

ROOT = Path(__file__).resolve().parent.parent.parent
PLAYED = ("throughput",)  # it starts both servers, publishes, drains, writes the limit's rows and compares balances


def test_figures_are_taken_and_written(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks", "--quick", "--only", ",".join(PLAYED), "--into", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name in PLAYED:
        document = json.loads((tmp_path / f"{name}.json").read_text())
        assert document["machine"]["cores"]
        assert len(document["table"]) > 1
        assert (tmp_path / f"{name}.svg").read_text().startswith("<svg")
    throughput = json.loads((tmp_path / "throughput.json").read_text())["data"]
    assert throughput["ratios"]["of the limit"] > 0
    assert [run["per_second"] > 0 for runs in throughput["runs"].values() for run in runs] == [True]


def test_every_figure_has_its_place_in_the_page() -> None:
    page = PAGE.read_text()
    for name in FIGURES:
        assert f"<!-- {name} -->" in page
        assert f"<!-- /{name} -->" in page
    for name in ("measured", "needs", "cross-shard"):
        assert f"<!-- {name} -->" in SCALE_PAGE.read_text()


def test_needs_grow_with_the_orders() -> None:
    cost = Cost(200, 100, 30, 3_000, 2_500, 1.6, 2.0)
    one, ten = need(cost, 1_000_000), need(cost, 10_000_000)
    assert one["events/s: mean, peak"] == "23, 93"
    assert one["consumer processes at the peak"] == "1"
    assert ten["consumer processes at the peak"] == "1"
    assert ten["storage a year, TB"] == "18.2"
    assert one["SQS a month, USD"] == "5"


def test_plots_are_well_formed() -> None:
    from xml.etree.ElementTree import fromstring

    drawn = [
        bars("a & b", "events/s", [Bar("fleet", 3, 1, 5, ours=True), Bar("peer", 1, 1, 1)]),
        lines("t", "x", "ms", [Line("one", [(1, 0.5), (2, 900)])], logarithmic=True),
        lines("t", "x", "MiB", [Line("one", [(0, 0), (2, 5)])]),
    ]
    for text in drawn:
        assert fromstring(text).tag.endswith("svg")
