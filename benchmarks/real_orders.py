"""Figure 1 again with real orders (21 lines on average), where the streams of them lie beside the checkout."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks import throughput
from benchmarks.plots import bars
from benchmarks.reporting import Figure
from benchmarks.rig import Rig
from benchmarks.sizes import Sizes
from incentive_fleet.ledger.code_file import read_codes
from incentive_fleet.ledger.codes import PoolRow
from incentive_fleet.ledger.grant_file import read_grants
from incentive_fleet.ledger.grants import Grant

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@dataclass(frozen=True, slots=True)
class RealOrders:
    """A year of a shop's orders, refunds and deliveries under terms that never bind, so that any order ends alike."""

    year: str = "online-retail"  # or with final baskets
    folder: Path = DATA

    def campaigns(self) -> str:
        return (self.folder / f"{self.year}-campaigns.toml").read_text(encoding="utf-8")

    def codes(self) -> Iterable[PoolRow]:
        path = self.folder / f"{self.year}-codes.csv.gz"
        return read_codes(path) if path.exists() else ()

    def grants(self) -> Iterator[Grant]:
        for row in read_grants(self.folder / "online-retail-grants.csv.gz"):
            if isinstance(row.grant, Exception):
                raise row.grant
            yield row.grant

    def events(self) -> Iterator[tuple[str, bytes]]:
        with gzip.open(self.folder / f"{self.year}.jsonl.gz") as file:
            for line in file:
                yield json.loads(line)["type"], line.rstrip(b"\n")


def figure(rig: Rig, sizes: Sizes) -> Figure:
    """Measure and tell; without the data there is nothing to tell."""
    if not DATA.is_dir():
        return Figure(
            "real_orders",
            "Real orders",
            [["", ""]],
            ["The real orders are not beside this checkout."],
            bars("", "", []),
        )
    return throughput.figure_of(rig, sizes, RealOrders(), "real_orders", "Backlog of real orders drained")
