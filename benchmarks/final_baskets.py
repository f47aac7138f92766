"""Figure 1 with the life of a grocery's orders: estimated, settled by a final basket, cancelled. The fleet alone.

The stream is the year of real orders with final baskets where that lies beside the checkout, and a sample shop's otherwise.
"""

from __future__ import annotations

import dataclasses

from benchmarks import throughput
from benchmarks.real_orders import DATA, RealOrders
from benchmarks.reporting import Figure
from benchmarks.rig import Generated, Rig, Stream
from benchmarks.sizes import Sizes
from incentive_fleet.embedded.sample_shop import Shop

YEAR = "online-retail-final"
GROCERIES, EVENTS_AN_ORDER = 0.85, 2.8


def stream_of(sizes: Sizes) -> Stream:
    """Real baskets where there are any, else as many made up."""
    if (DATA / f"{YEAR}.jsonl.gz").exists():
        return RealOrders(YEAR)
    return Generated(Shop(round(sizes.events / EVENTS_AN_ORDER) + 1, groceries=GROCERIES, refunds=0.1, name="f"))


def figure(rig: Rig, sizes: Sizes) -> Figure:
    """Measure and tell."""
    alone = dataclasses.replace(sizes, peers=False)
    return throughput.figure_of(rig, alone, stream_of(sizes), "final_baskets", "Backlog of final baskets drained")
