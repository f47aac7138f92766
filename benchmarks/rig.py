"""What every figure stands on: a Postgres and a RabbitMQ of the benchmark's own, ledgers ready to consume, settings.

fsync, synchronous_commit and full_page_writes stay on. Nothing here measures.
"""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import psycopg
from psycopg import sql

from benchmarks.measuring import fingerprint
from incentive_fleet.brokers import declare
from incentive_fleet.embedded import sample_shop
from incentive_fleet.embedded.postgres import Postgres
from incentive_fleet.embedded.rabbitmq import RabbitMQ
from incentive_fleet.embedded.sample_shop import Shop
from incentive_fleet.events.codec import decode
from incentive_fleet.incentives.campaign_file import parse_campaigns
from incentive_fleet.ledger.batch import apply_events
from incentive_fleet.ledger.codes import PoolRow, load_codes
from incentive_fleet.ledger.grants import GRANTS_MAX, Grant, grant
from incentive_fleet.ledger.migrate import upgrade
from incentive_fleet.ledger.session import Session
from incentive_fleet.ledger.terms import load_campaigns
from incentive_fleet.settings import Settings

# The stream: 6 lines, a third of the orders with coupons, a third with credit, 2 % refunds, each delivered once.
LINES, THIRD, REFUNDS, DELIVERIES = (6, 6), 1 / 3, 0.02, 1.0
CALM_BATCH = 500

# Every contestant runs on the same server. Commit timestamps cost each commit a few bytes, and are how the end of a run
# is known without asking the contestant. Shared buffers are a quarter of the machine's memory, where the manual (19.4) says
# to begin; checkpoints are as far apart as a busy server's should be. Durability is Postgres' default.
MEMORY_MB = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**20
SERVER = {
    "track_commit_timestamp": "on",
    "shared_buffers": f"{MEMORY_MB // 4}MB",
    "max_wal_size": "16GB",
    "checkpoint_timeout": "15min",
}

Events = list[tuple[str, bytes]]


class Stream(Protocol):
    """What a ledger is prepared for and fed with. Hashable: prepared ledgers are kept as templates."""

    def campaigns(self) -> str: ...

    def codes(self) -> Iterable[PoolRow]: ...

    def grants(self) -> Iterable[Grant]: ...

    def events(self) -> Iterable[tuple[str, bytes]]: ...


@dataclass(frozen=True, slots=True)
class Generated:
    """A sample shop's stream. No grant is asked for by event: its notice is no outcome, by which the end of a run is known."""

    shop: Shop
    terms: str | None = None  # those of the shop

    def campaigns(self) -> str:
        return self.terms or sample_shop.campaigns(self.shop)

    def codes(self) -> Iterable[PoolRow]:
        rows = enumerate(sample_shop.codes(self.shop), start=1)
        return (PoolRow(line, *row, customer_id=None, expires_at=None) for line, row in rows)

    def grants(self) -> Iterable[Grant]:
        return (Grant(*row, expires_at=None) for row in sample_shop.grants(self.shop))

    def events(self) -> Iterable[tuple[str, bytes]]:
        return ((type_, body) for type_, body in sample_shop.events(self.shop) if type_ != "credit-grant-requested.v1")


def generated(events: int, seed: int = 1, name: str = "b") -> Generated:
    """A stream of about so many events: an order comes with its delivery and 0.02 refunds."""
    orders = max(1, round(events / (1 + DELIVERIES + REFUNDS)))
    return Generated(
        Shop(
            orders,
            seed,
            lines=LINES,
            coupons=THIRD,
            credit=THIRD,
            refunds=REFUNDS,
            deliveries=DELIVERIES,
            name=name,
        )
    )


def events_of(stream: Stream) -> Events:
    """The stream: (type, CloudEvent), in the order of the events' times."""
    return list(stream.events())


@dataclass(slots=True)
class Rig:
    """Running servers, and numbers for the names of what is made on them. Belongs to one thread."""

    folder: Path
    postgres: Postgres
    rabbitmq: RabbitMQ
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    _templates: dict[Stream, str] = field(default_factory=dict)

    def fresh_name(self, what: str) -> str:
        return f"{what}{next(self._numbers)}"

    @contextmanager
    def ledger(self, stream: Stream) -> Iterator[str]:
        """The URL of a migrated database of its own, campaigns loaded and opening balances granted; dropped at the end."""
        if stream not in self._templates:
            name = self.fresh_name("shop")
            self.administer("CREATE DATABASE {}", name)
            prepare(self.postgres.url(name), stream)
            self._templates[stream] = name
        name = self.fresh_name("ledger")
        self.administer("CREATE DATABASE {} TEMPLATE {}", name, self._templates[stream])
        try:
            yield self.postgres.url(name)
        finally:
            self.administer("DROP DATABASE {} WITH (FORCE)", name)

    def administer(self, statement: str, *names: str) -> None:
        with psycopg.connect(self.postgres.url("postgres"), autocommit=True) as connection:
            connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))

    def checkpoint(self) -> None:
        """Write out what earlier runs left dirty, so that no run pays for another's."""
        with psycopg.connect(self.postgres.url("postgres"), autocommit=True) as connection:
            connection.execute("CHECKPOINT")

    def settings(self, database_url: str, **changes: Any) -> Settings:
        """Settings of a fleet of its own: a fresh prefix, so that its queues are new."""
        values: dict[str, Any] = {
            "database_url": database_url,
            "prefix": self.fresh_name("bench"),
        }
        if self.rabbitmq.record.processes:
            values |= {
                "rabbitmq_url": self.rabbitmq.url,
                "rabbitmq_management_url": self.rabbitmq.management_url,
            }
        return Settings(**(values | changes))


@contextmanager
def running(*, with_rabbitmq: bool = True) -> Iterator[Rig]:
    """Servers in a temporary folder, gone at the end."""
    with tempfile.TemporaryDirectory(prefix="incentives-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        postgres, rabbitmq = Postgres(folder / "postgres"), RabbitMQ(folder / "rabbitmq")
        try:
            postgres.start()
            with psycopg.connect(postgres.url("postgres"), autocommit=True) as connection:
                for setting, value in SERVER.items():
                    connection.execute(f"ALTER SYSTEM SET {setting} = '{value}'")
            postgres.stop()
            postgres.start()
            if with_rabbitmq:
                rabbitmq.start()
            yield Rig(folder, postgres, rabbitmq)
        finally:
            rabbitmq.kill()  # its folder goes away with it
            postgres.stop()


def prepare(database_url: str, stream: Stream) -> None:
    """Migrate, load the campaigns and the codes, and grant the opening balances. Outcomes go to RabbitMQ alone."""
    upgrade(database_url)
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("DELETE FROM destinations WHERE destination = 'sns'")
    with closing(Session(database_url)) as session:
        load_campaigns(session.connection, parse_campaigns(stream.campaigns()))
        load_codes(session.connection, stream.codes())
        rows = iter(stream.grants())
        while batch := list(itertools.islice(rows, GRANTS_MAX)):
            refused = [result for result in grant(session, batch, datetime.now(UTC)) if isinstance(result, Exception)]
            if refused:
                raise refused[0]
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE")


@dataclass(frozen=True, slots=True)
class Backlog:
    """Events of a stream, and what they end in: the balances, and how many outcomes (what waits for ever has none)."""

    stream: Stream
    events: Events
    expected: str
    outcomes: int


def calm(rig: Rig, stream: Stream, events: Iterable[tuple[str, bytes]]) -> Backlog:
    """The events applied in their own order, in one process, without a broker."""
    chosen = list(events)
    with rig.ledger(stream) as url, closing(Session(url)) as session:
        for start in range(0, len(chosen), CALM_BATCH):
            apply_events(session, [decode(body) for _, body in chosen[start : start + CALM_BATCH]])
        statement = "SELECT count(*) FROM outbox WHERE order_id <> ''"  # a grant has a notice of its own
        (outcomes,) = session.connection.execute(statement).fetchone() or (0,)
        return Backlog(stream, chosen, fingerprint(url), outcomes)


def declare_topology(settings: Settings) -> None:
    """The fleet's exchanges and queues, durable quorum queues all."""
    declare.apply(settings)


def environment(settings: Settings) -> dict[str, str]:
    """The variables by which a process of its own gets the same settings."""
    values = settings.model_dump(exclude_none=True, exclude={"aws_endpoint_url", "aws_region", "retry_delays_s"})
    ours = {f"INCENTIVES_{name.upper()}": str(value) for name, value in values.items()}
    return {name: value for name, value in os.environ.items() if not name.startswith("INCENTIVES_")} | ours
