"""How much is measured: the full size, and a small one that only shows that everything still runs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sizes:
    """Numbers of events, rounds and so on; each is read by the figure that it is named after."""

    rounds: int = 4
    events: int = 100_000  # a worker's start is 5 µs of each
    peer_events: int = 8_000  # the backlog's beginning: peers take as long for each event of it as for each of all
    fleets: tuple[int, ...] = (1, 2, 3)
    peers: bool = True
    latency_rates: tuple[int, ...] = (100, 500, 1_000, 2_000)
    latency_s: float = 10.0
    latency_warm_up_s: float = 3.0
    latency_rounds: int = 2
    sqs_events: int = 20_000
    sqs_processes: tuple[int, ...] = (1, 2)
    sqs_rounds: int = 3
    growth_transfers: tuple[int, ...] = (1_000_000, 10_000_000)  # beside the empty ledger
    growth_events: int = 100_000
    growth_base_events: int = 20_000  # of the real run that is repeated
    growth_rounds: int = 3
    nightly_transfers: int = 10_000_000
    nightly_new: int = 100_000  # a night, at least
    nightly_nights: int = 3
    hot_events: int = 10_000
    hot_processes: tuple[int, ...] = (1, 2, 3, 4)
    hot_rounds: int = 2
    memory_events: int = 1_000_000
    relay_events: int = 30_000
    quotes_per_s: int = 200
    quotes_events_per_s: int = 500  # beside them
    quotes_backlog: int = 90_000
    quotes_s: float = 10.0
    quotes_warm_up_s: float = 3.0
    quotes_rounds: int = 3
    scale_rounds: int = 2
    graphql_rate: int = 200  # wallets a second
    graphql_s: float = 12.0
    graphql_warm_up_s: float = 3.0
    graphql_rounds: int = 3
    tuning_events: int = 3_000
    tuning_rounds: int = 1
    scale_page: bool = True  # whether SCALE.md is rewritten


FULL = Sizes()
QUICK = Sizes(
    rounds=1,
    events=600,
    peer_events=600,
    fleets=(1,),
    peers=False,
    latency_rates=(100,),
    latency_s=1.0,
    latency_warm_up_s=0.2,
    latency_rounds=1,
    sqs_events=300,
    sqs_processes=(1,),
    sqs_rounds=1,
    growth_transfers=(3_000,),
    growth_events=600,
    growth_base_events=600,
    growth_rounds=1,
    nightly_transfers=3_000,
    nightly_new=500,
    nightly_nights=2,
    hot_events=300,
    hot_processes=(1, 2),
    hot_rounds=1,
    memory_events=3_000,
    relay_events=600,
    quotes_per_s=20,
    quotes_events_per_s=50,
    quotes_backlog=300,
    quotes_s=1.0,
    quotes_warm_up_s=0.5,
    quotes_rounds=1,
    scale_rounds=1,
    graphql_rate=20,
    graphql_s=1.0,
    graphql_warm_up_s=0.5,
    graphql_rounds=1,
    tuning_events=300,
    tuning_rounds=1,
    scale_page=False,
)
