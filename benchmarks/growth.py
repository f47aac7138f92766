"""Figure 4: whether a full ledger is slower than an empty one, for the fleet and for the person who asks for a statement.

The full ledger is made by SQL: a real run's rows, repeated under other ids with triggers off, balances with them; `verify`
finds it sound. The stream's customers are those of the repeated runs, so that every event meets a wallet with a history.

Told apart are a cold start, right after a checkpoint, when Postgres writes each page that it touches for the first time
into the WAL as a whole, and the running on that follows once the customers' pages have been touched.
"""

from __future__ import annotations

import itertools
import json
import random
import time
from collections import defaultdict
from contextlib import ExitStack, closing
from dataclasses import dataclass, field

import psycopg

from benchmarks import contestants
from benchmarks.measuring import Spread, percentile
from benchmarks.plots import Bar, bars
from benchmarks.quiet import in_quiet
from benchmarks.reporting import Figure
from benchmarks.rig import CALM_BATCH, Events, Generated, Rig, events_of, generated
from benchmarks.sizes import Sizes
from benchmarks.throughput import drain
from incentive_fleet.events.codec import decode
from incentive_fleet.ledger.batch import apply_events
from incentive_fleet.ledger.session import Session
from incentive_fleet.ledger.verify import verify
from incentive_fleet.ledger.wallet_statement import wallet_statement

FLEET = 2
FIRST = "k0000-"  # what the ids of the real run begin with; the repeats have other numbers
STATEMENTS = 300
VERIFIED_MOST = 2_000_000  # transfers; beyond that the check would take longer than the measurement
TARGET, STATEMENT_TARGET_MS = 0.85, 10.0

# Table, columns that carry an id, and the others.
REPEATED = (
    ("wallets", ("customer_id",), ("currency", "balance", "pending", "debt", "last_lot_no")),
    ("orders", ("order_id",), ("totals",)),
    ("facts", ("order_id", "event_id", "fact", "data"), ("source", "digest", "traceparent", "happened_at")),
    ("decisions", ("order_id", "customer_id"), ("currency", "decision")),
    ("redemptions", ("customer_id", "order_id"), ("campaign_id", "discount", "redeemed_at", "released_at")),
    (
        "lots",
        ("customer_id", "order_id", "cause"),
        (
            *("currency", "lot_no", "campaign_id", "amount", "remaining", "expired", "expires_at", "reissue_days"),
            *("root_lot_no", "reissued_from", "created_at"),
        ),
    ),
    (
        "transfers",
        ("debit_account", "credit_account", "customer_id", "order_id", "cause"),
        ("kind", "currency", "amount", "lot_no", "happened_at"),
    ),
    (
        "grants",
        ("key", "customer_id"),
        ("currency", "amount", "campaign_id", "expires_at", "lot_no", "granted_at"),
    ),
    ("anomalies", ("order_id", "subject"), ("reason", "claimed")),
    ("outbox", ("order_id", "fact", "body"), ("sequence", "type")),
)
PUBLISHED = """
    WITH gone AS (DELETE FROM outbox_unpublished RETURNING destination, outbox_id)
    INSERT INTO publications (destination, outcomes, outbox_ids)
    SELECT destination, count(*), range_agg(int8range(outbox_id, outbox_id, '[]')) FROM gone GROUP BY destination
"""

NEW = "replace({column}::text, '" + FIRST + "', 'k' || lpad(n::text, 4, '0') || '-')"
CASTS = {"data": "::json"}  # columns whose text has to become something else again
DIGEST = (
    "sha256(convert_to(CASE fact WHEN 'placing' THEN 'order-placed' WHEN 'delivery' THEN 'delivery-completed'"
    " ELSE 'order-refunded' END || E'.v1\n' || " + NEW.format(column="data") + ", 'UTF8'))"
)


@dataclass(frozen=True, slots=True)
class Full:
    """A ledger with so many transfers, how many runs it holds, and of how many customers each."""

    url: str
    transfers: int
    runs: int
    customers: int


def fill(url: str, sizes: Sizes, transfers: int) -> Full:
    """Play a real run, then repeat its rows until there are about so many transfers."""
    base = _base(sizes)
    bodies = [body for _, body in events_of(base)]
    with closing(Session(url)) as session:
        for start in range(0, len(bodies), CALM_BATCH):
            apply_events(session, [decode(body) for body in bodies[start : start + CALM_BATCH]])
    with psycopg.connect(url, autocommit=True) as connection:
        (held,) = connection.execute("SELECT count(*) FROM transfers").fetchone() or (0,)
        repeats = max(0, round(transfers / held) - 1)
        with connection.transaction():
            connection.execute("SET LOCAL session_replication_role = replica")  # triggers off: the sums are known
            connection.execute(PUBLISHED)
            for table, named, others in REPEATED:
                _repeat(connection, table, named, others, repeats)
            _repeat_balances(connection, repeats)
        connection.execute("VACUUM ANALYZE")
        connection.execute("CHECKPOINT")
        (held,) = connection.execute("SELECT count(*) FROM transfers").fetchone() or (0,)
    if held <= VERIFIED_MOST:
        with closing(Session(url)) as session:
            report = verify(session.connection)
        if not report.sound:
            raise AssertionError(f"the full ledger is not sound: {[one for one in report.checks if one.faults]}")
    return Full(url, held, repeats + 1, base.shop.customer_count)


def _base(sizes: Sizes) -> Generated:
    return generated(sizes.growth_base_events, name=FIRST.rstrip("-"))


def _empty(rig: Rig, sizes: Sizes, ledgers: ExitStack) -> Full:
    """A new shop: its customers' opening grants, a transfer each, and nothing else.

    It stays until the end, because dropping a database is a checkpoint, and the full ledgers would pay for it.
    """
    shop = generated(sizes.growth_events, name=FIRST.rstrip("-"))
    customers = shop.shop.customer_count
    return Full(ledgers.enter_context(rig.ledger(shop)), customers, 1, customers)


def _repeat(
    connection: psycopg.Connection[object], table: str, named: tuple[str, ...], others: tuple[str, ...], repeats: int
) -> None:
    changed = [NEW.format(column=column) + CASTS.get(column, "") for column in named]
    kept = [DIGEST if column == "digest" else column for column in others]
    connection.execute(
        f"INSERT INTO {table} ({', '.join((*named, *others))})"
        f" SELECT {', '.join((*changed, *kept))} FROM generate_series(1, {repeats}) AS n CROSS JOIN {table}"
    )


def _repeat_balances(connection: psycopg.Connection[object], repeats: int) -> None:
    connection.execute(
        "UPDATE balances SET balance = balance * %s WHERE starts_with(account, 'campaign:')", (repeats + 1,)
    )
    connection.execute("UPDATE redemption_counts SET live = live * %s", (repeats + 1,))
    connection.execute(
        f"""
        INSERT INTO balances (account, currency, slot, balance)
        SELECT {NEW.format(column="account")}, currency, slot, balance
        FROM generate_series(1, {repeats}) AS n CROSS JOIN balances WHERE strpos(account, '{FIRST}') > 0
        """
    )


def stream(full: Full, sizes: Sizes, turn: int) -> Events:
    """New orders of customers that the ledger knows, spread over all of its runs."""
    shop = generated(sizes.growth_events, seed=turn + 1, name=f"g{turn}")
    chance = random.Random(turn)
    changed = []
    for type_, body in events_of(shop):
        event = json.loads(body)
        if type_ == "order-placed.v1":
            event["data"]["customer_id"] = _some_customer(full, chance)
        changed.append((type_, json.dumps(event, separators=(",", ":")).encode()))
    return changed


def _some_customer(full: Full, chance: random.Random) -> str:
    return f"k{chance.randrange(full.runs):04}-customer-{chance.randrange(full.customers):05}"


def statement_ms(full: Full) -> list[float]:
    """The time of `incentives wallet`'s reads for customers picked at random."""
    chance = random.Random(4)
    taken = []
    with closing(Session(full.url)) as session:
        wallet_statement(session.connection, "nobody")
        for _ in range(STATEMENTS):
            name = _some_customer(full, chance)
            began = time.perf_counter()
            wallet_statement(session.connection, name)
            taken.append((time.perf_counter() - began) * 1e3)
    return taken


def _drain(rig: Rig, full: Full, events: Events, *, cold: bool = False) -> float:
    return drain(rig, contestants.fleet(FLEET), full.url, events, after_checkpoint=cold).per_second


@dataclass(slots=True)
class Results:
    """By transfers at the start: events/s right after a checkpoint, then once warm, and a statement's milliseconds."""

    cold: dict[int, float] = field(default_factory=dict)
    warm: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))
    statements: dict[int, list[float]] = field(default_factory=dict)

    def note(self, transfers: int, rate: float) -> None:
        self.warm[transfers].append(rate)
        print(f"growth      {transfers:,} transfers: {rate:,.0f} events/s", flush=True)


def figure(rig: Rig, sizes: Sizes) -> Figure:
    """Measure and tell."""
    results = Results()
    turns = itertools.count(1)  # each drain has orders of its own, for those of the one before are in the ledger
    with ExitStack() as ledgers:
        fulls = []
        for transfers in sizes.growth_transfers:
            began = time.monotonic()
            fulls.append(fill(ledgers.enter_context(rig.ledger(_base(sizes))), sizes, transfers))
            print(f"growth      {fulls[-1].transfers:,} transfers made in {time.monotonic() - began:.0f} s", flush=True)
        empty = _empty(rig, sizes, ledgers)
        results.cold[empty.transfers] = _drain(rig, empty, stream(empty, sizes, next(turns)), cold=True)
        results.statements[empty.transfers] = statement_ms(empty)
        for full in fulls:
            results.cold[full.transfers] = _drain(rig, full, stream(full, sizes, next(turns)), cold=True)
            _drain(rig, full, stream(full, sizes, next(turns)))  # touches what the cold one has not
        for _ in range(sizes.growth_rounds):
            results.note(empty.transfers, in_quiet(lambda: _drain_empty(rig, sizes, ledgers, next(turns))))
            for full in fulls:
                rate = in_quiet(lambda: _drain(rig, full, stream(full, sizes, next(turns))))  # noqa: B023
                results.note(full.transfers, rate)
        for full in fulls:
            results.statements[full.transfers] = statement_ms(full)
    return _tell(results)


def _drain_empty(rig: Rig, sizes: Sizes, ledgers: ExitStack, turn: int) -> float:
    empty = _empty(rig, sizes, ledgers)
    return _drain(rig, empty, stream(empty, sizes, turn))


def _tell(results: Results) -> Figure:
    rates, statements, cold = results.warm, results.statements, results.cold
    empty, *_ = rates
    base = Spread.of(rates[empty]).median
    rows = [
        [
            "transfers at the start",
            "events/s: median (least to most)",
            "of the empty one's",
            "cold, after a checkpoint",
            "statement p50, ms",
            "p99, ms",
        ]
    ]
    notes = []
    for held, taken in rates.items():
        spread, times = Spread.of(taken), statements[held]
        share = spread.median / base
        half, most = percentile(times, 0.5), percentile(times, 0.99)
        rows.append([f"{held:,}", spread.text(), f"{share:.2f}", f"{cold[held]:,.0f}", f"{half:.1f}", f"{most:.1f}"])
        if held != empty:
            notes.append(
                f"**{held:,} transfers: {share:.2f} of the empty ledger's throughput** (target {TARGET}), a statement"
                f" takes {half:.1f} ms (target below {STATEMENT_TARGET_MS:.0f})."
            )
    notes.append(
        "The first ledger is a new shop's, fresh in each round: the customers' opening grants, a transfer each, and nothing else."
    )
    spreads = {held: Spread.of(taken) for held, taken in rates.items()}
    values = [Bar(f"{held:,} transfers", s.median, s.least, s.most, ours=True) for held, s in spreads.items()]
    data = {"cold": cold, "warm": rates, "statement_ms": statements}
    return Figure("growth", "Growth", rows, notes, bars("Drained into a ledger of", "events/s", values), data)
