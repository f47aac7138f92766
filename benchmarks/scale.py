"""Figure 6: what 1, 10 and 100 million orders a day need, computed from what one event was measured to cost.

The measurement is one drain; everything else is arithmetic on it, with each assumption named beside its number. The page
with the reasoning is SCALE.md, whose tables this module writes.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psycopg

from benchmarks import contestants
from benchmarks.measuring import Spread
from benchmarks.plots import Bar, bars
from benchmarks.reporting import HERE, Figure, put, table
from benchmarks.rig import Rig, events_of, generated
from benchmarks.sizes import Sizes
from benchmarks.throughput import Run, drain

PAGE = HERE / "SCALE.md"
FLEET = 2
DAY_S, YEAR_DAYS = 86_400, 365
MILLIONS = (1, 10, 100)  # orders a day
PEAK = 4.0  # the busiest minute against the day's mean: groceries are bought in the evening
BUSY_MOST = 0.6  # of a core, so that a queue forms rarely and is gone soon
LARGEST_CORES = 64  # of the largest single Postgres that is assumed
SQS_USD, SNS_USD = (
    0.40,
    0.50,
)  # a million requests, a million publishes; us-east-1, aws.amazon.com/sqs/pricing and /sns/pricing
A_CALL = 10  # messages in one call of SQS or SNS, when there are so many
CALLS_PER_MESSAGE = 2 / A_CALL  # received and deleted ten at a time; SNS hands over to SQS without a charge

SIZES = """
    SELECT relname, pg_table_size(relid), pg_indexes_size(relid) FROM pg_stat_user_tables
    WHERE relname <> 'dead_letters' ORDER BY pg_total_relation_size(relid) DESC
"""
KINDS = "SELECT kind, count(*) FROM transfers WHERE kind <> 'grant' GROUP BY kind ORDER BY 2 DESC"


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one event, on the machine of the measurement. Bytes are what the tables grew by, indexes included."""

    worker_us: float
    postgres_us: float
    rabbitmq_us: float
    wal_bytes: float
    stored_bytes: float
    transfers: float
    events_an_order: float


@dataclass(frozen=True, slots=True)
class Measured:
    cost: Cost
    bytes_by_table: dict[str, tuple[float, float]]  # heap and indexes, an event
    transfers_by_kind: dict[str, float]  # an event


def measure(rig: Rig, sizes: Sizes) -> Measured:
    """One drain after another into a ledger of its own; the medians."""
    stream = generated(sizes.events, name="z")
    events = events_of(stream)
    runs: list[Run] = []
    for _ in range(sizes.scale_rounds):
        with rig.ledger(stream) as url:
            before = _table_bytes(url)
            runs.append(drain(rig, contestants.fleet(FLEET), url, events))
            after = _table_bytes(url)
            with psycopg.connect(url) as connection:
                kinds = {kind: count / len(events) for kind, count in connection.execute(KINDS).fetchall()}
    grown = {
        name: tuple((now - was) / len(events) for now, was in zip(after[name], before[name], strict=True))
        for name in after
    }

    def median(name: str) -> float:
        return Spread.of([getattr(run, name) for run in runs]).median

    cost = Cost(
        worker_us=median("worker_us"),
        postgres_us=median("postgres_us"),
        rabbitmq_us=median("rabbitmq_us"),
        wal_bytes=median("wal_bytes"),
        stored_bytes=sum(sum(pair) for pair in grown.values()),
        transfers=sum(kinds.values()),
        events_an_order=len(events) / stream.shop.orders,
    )
    return Measured(cost, {name: (pair[0], pair[1]) for name, pair in grown.items()}, kinds)


def _table_bytes(url: str) -> dict[str, tuple[int, int]]:
    with psycopg.connect(url, autocommit=True) as connection:
        return {name: (heap, indexes) for name, heap, indexes in connection.execute(SIZES).fetchall()}


def figure(rig: Rig, sizes: Sizes, page: Path | None = None) -> Figure:
    """Measure, compute, and write the tables of SCALE.md when the sizes are the full ones."""
    measured = measure(rig, sizes)
    needs = [need(measured.cost, millions * 1_000_000) for millions in MILLIONS]
    rows = [["", *(f"{millions} million orders a day" for millions in MILLIONS)]]
    rows += [[name, *(str(one[name]) for one in needs)] for name in needs[0]]
    if sizes.scale_page:
        put(page or PAGE, "measured", _measured_table(measured))
        put(page or PAGE, "needs", table(rows))
        put(page or PAGE, "cross-shard", _cross_shard(measured.transfers_by_kind))
    cost = measured.cost
    notes = [
        f"An event costs {cost.worker_us:.0f} µs of a worker, {cost.postgres_us:.0f} µs of Postgres and"
        f" {cost.rabbitmq_us:.0f} µs of RabbitMQ, {cost.wal_bytes:,.0f} bytes of WAL and {cost.stored_bytes:,.0f} bytes"
        f" of tables and indexes; it books {cost.transfers:.2f} transfers. See [SCALE.md](SCALE.md).",
    ]
    values = [
        Bar("worker", cost.worker_us, cost.worker_us, cost.worker_us, ours=True),
        Bar("Postgres", cost.postgres_us, cost.postgres_us, cost.postgres_us),
        Bar("RabbitMQ", cost.rabbitmq_us, cost.rabbitmq_us, cost.rabbitmq_us),
    ]
    plot = bars("CPU of one event", "µs", values)
    return Figure("scale", "Scale-out on paper", rows, notes, plot, asdict(measured))


def need(cost: Cost, orders_a_day: int) -> dict[str, str]:
    """What so many orders a day need, as texts with their units."""
    events = orders_a_day * cost.events_an_order
    peak = events / DAY_S * PEAK
    consumers = math.ceil(peak * cost.worker_us / 1e6 / BUSY_MOST)
    postgres = peak * cost.postgres_us / 1e6 / BUSY_MOST
    requests = events * CALLS_PER_MESSAGE
    publishes = events
    year_bytes = events * cost.stored_bytes * YEAR_DAYS
    return {
        "events/s: mean, peak": f"{events / DAY_S:,.0f}, {peak:,.0f}",
        "consumer processes at the peak": f"{consumers:,}",
        "cores of Postgres at the peak": f"{postgres:,.1f}" if postgres < 10 else f"{postgres:,.0f}",
        "one Postgres is enough": "yes" if postgres <= LARGEST_CORES else f"no, {postgres / LARGEST_CORES:.1f} of them",
        "WAL at the peak, MB/s": f"{peak * cost.wal_bytes / 1e6:,.1f}",
        "WAL a day, GB": f"{events * cost.wal_bytes / 1e9:,.0f}",
        "storage a day, GB": f"{events * cost.stored_bytes / 1e9:,.1f}",
        "storage a year, TB": f"{year_bytes / 1e12:,.1f}",
        "transfers a year, billion": f"{events * cost.transfers * YEAR_DAYS / 1e9:,.1f}",
        "SQS a month, USD": f"{requests * 30 / 1e6 * SQS_USD:,.0f}",
        "SNS a month, USD": f"{publishes * 30 / 1e6 * SNS_USD:,.0f}",
    }


def _measured_table(measured: Measured) -> str:
    rows = [["table", "heap, bytes an event", "indexes, bytes an event"]]
    rows += [
        [name, f"{heap:,.0f}", f"{indexes:,.0f}"] for name, (heap, indexes) in measured.bytes_by_table.items() if heap
    ]
    cost = asdict(measured.cost)
    named = [["measured", "of one event"], *([name.replace("_", " "), f"{value:,.1f}"] for name, value in cost.items())]
    return f"{table(named)}\n\n{table(rows)}"


def _cross_shard(kinds: dict[str, float]) -> str:
    """Which transfers leave the customer's shard when customer_id is the distribution key."""
    rows = [["kind", "transfers an event", "accounts", "shards"]]
    for kind, each in kinds.items():
        rows.append([kind, f"{each:.3f}", _accounts(kind), "1"])
    total = sum(kinds.values())
    campaign = sum(each for kind, each in kinds.items() if "campaign" in _accounts(kind))
    sentence = (
        f"Of {total:.2f} transfers an event {campaign:.2f} ({campaign / total:.0%}) have a campaign on one side. Its slots"
        " live on every shard, so none of them crosses; each would, if the campaign had one balance in one place. Only"
        " a campaign with a budget or a total must be looked up in one place before deciding: one more shard for"
        " each of its events."
    )
    return f"{table(rows)}\n\n{sentence}"


def _accounts(kind: str) -> str:
    sides: dict[str, Any] = {
        "coupon": "campaign, order",
        "credit": "wallet, order",
        "earn": "campaign, pending",
        "vest": "pending, wallet",
        "coupon_reversal": "order, campaign",
        "credit_return": "order, wallet",
        "earn_cancel": "pending, campaign",
        "clawback": "wallet, campaign",
        "clawback_debt": "debt, campaign",
        "debt_settlement": "wallet, debt",
        "make_good": "campaign, wallet",
    }
    return str(sides[kind])
