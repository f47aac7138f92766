"""What an operator does to dead letters, in tests: on a database of the test's own, with both brokers beside it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import psycopg

from incentive_fleet.brokers.messages import Arrival
from incentive_fleet.brokers.registry import by_source
from incentive_fleet.consumers.worker import run_worker
from incentive_fleet.dead_letters import audit, changes, editing, store
from incentive_fleet.dead_letters.audit import Attribution, AuditEntry
from incentive_fleet.dead_letters.collector import run_collector
from incentive_fleet.dead_letters.keeping import keep
from incentive_fleet.dead_letters.letter import Letter
from incentive_fleet.dead_letters.rehearsal import RehearsedEffect, rehearse
from incentive_fleet.dead_letters.replay import ReplayRequest, replay
from incentive_fleet.dead_letters.runs import Done
from incentive_fleet.dead_letters.store import Filters
from incentive_fleet.incentives.campaign_file import parse_campaigns
from incentive_fleet.ledger.connection import connect
from incentive_fleet.ledger.session import Session
from incentive_fleet.ledger.terms import load_campaigns
from incentive_fleet.settings import Settings
from incentive_fleet.stopping import Stop
from tests.brokers_and_workers import SOURCES, Brokers, Source, environment_of
from tests.domain import terms

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)
TERMS = terms("coupon", "k", code="K", amount=100) + terms("earn", "e", rate_bps=1_000)
IDLE_S = 0.3


def order(number: int | str = 1, **changed: Any) -> bytes:
    """A placing with one coupon; 900 cents payable, 90 earned: two transfers."""
    data = {
        "order_id": f"o-{number}",
        "customer_id": f"c-{number}",
        "currency": "EUR",
        "placed_at": "2026-01-10T12:00:00Z",
        "lines": [{"line_id": "1", "sku": "a", "quantity": 1, "unit_price": 1000}],
        "coupons": ["K"],
        **changed,
    }
    return cloud_event(f"e-{number}", "order-placed.v1", data)


def refund(number: int | str = 1, id: str = "r-1") -> bytes:
    """All of the order goes back."""
    data = {"refund_id": id, "order_id": f"o-{number}", "currency": "EUR", "refunded_at": "2026-01-12T12:00:00Z"}
    return cloud_event(f"{id}-{number}", "order-refunded.v1", data)


def cloud_event(id: str, type_: str, data: dict[str, Any]) -> bytes:
    head = {"specversion": "1.0", "id": id, "source": "shop", "type": type_, "time": "2026-01-10T12:00:00Z"}
    return json.dumps({**head, "subject": data["order_id"], "data": data}).encode()


def arrival(body: bytes, *, name: str = "copy-1", queue: str = "q", **changed: Any) -> Arrival:
    """A copy as an SQS dead-letter queue hands it over."""
    headers: dict[str, str] = changed.pop("headers", {"fleet-reason": "conflict", "fleet-detail": "taken"})
    values = {
        "transport": "sqs",
        "source_queue": queue,
        "dead_letter_queue": f"{queue}-dlq",
        "body": body,
        "headers": headers,
        "envelope": {"attributes": {}},
        "name": name,
        "certain": True,
        "receive_count": 1,
        "moved_by_broker": None,
        "receipt": None,
    }
    return Arrival(**{**values, **changed})


def by(actor: str = "ann", reason: str = "") -> Attribution:
    return Attribution(actor, NOON, reason)


@dataclass
class LetterDatabase:
    """Work on dead letters in one database."""

    url: str

    @classmethod
    def loaded(cls, url: str) -> LetterDatabase:
        database = cls(url)
        database.load()
        return database

    def connect(self) -> Any:
        return closing(connect(self.url))

    def load(self) -> None:
        with self.connect() as connection:
            load_campaigns(connection, parse_campaigns(TERMS))

    def keep(self, *arrivals: Arrival, at: datetime = NOON) -> list[str]:
        with self.connect() as connection:
            return [seen.value for seen in keep(connection, arrivals, at)]

    def letters(self, **filters: Any) -> list[Letter]:
        """By id."""
        with self.connect() as connection:
            return store.get_letters(connection, [letter.id for letter in self.summaries(**filters)])

    def summaries(self, **filters: Any) -> list[Letter]:
        """By id, without bodies."""
        with self.connect() as connection:
            letters = store.list_letters(connection, Filters(**filters), limit=10_000)
        return sorted(letters, key=lambda one: one.id)

    def letter(self, number: int) -> Letter:
        with self.connect() as connection:
            return store.get_letter(connection, number)

    def acts(self, number: int | None = None) -> Sequence[AuditEntry]:
        with self.connect() as connection:
            return audit.list_entries(connection, number, limit=1_000)

    def rehearse(self, *letters: Letter) -> list[RehearsedEffect]:
        with closing(Session(self.url)) as session:
            return rehearse(session, letters, None)

    def edit(self, letter: Letter, *sets: str) -> Letter:
        body = editing.assign(letter.current_body, [editing.parse_assignment(text) for text in sets])
        with self.connect() as connection:
            return changes.save_edit(connection, letter, body, by(), None)

    def discard(self, *ids: int, reason: str = "nobody needs it") -> list[Done]:
        with self.connect() as connection:
            return changes.discard(connection, ids, by(reason=reason))

    def restore(self, *ids: int) -> list[Done]:
        with self.connect() as connection:
            return changes.restore(connection, ids, by())

    def count(self, table: str) -> int:
        with psycopg.connect(self.url) as owner:
            row = owner.execute(f"SELECT count(*) FROM {table}").fetchone()
        assert row is not None
        return int(row[0])


@dataclass
class LetterWorld(LetterDatabase):
    """A database with the brokers beside it."""

    settings: Settings
    brokers: Brokers

    def publish(self, source: Source, *bodies: bytes) -> None:
        self.brokers.publish(source, bodies, "order-placed.v1")

    def consume(self, source: Source) -> Counter[str]:
        return run_worker([by_source(source)], self.settings, IDLE_S, Stop())

    def collect(self, source: Source) -> Counter[str]:
        return run_collector([by_source(source)], self.settings, Stop(), IDLE_S)

    def give_up(self, source: Source, *bodies: bytes) -> list[Letter]:
        """Publish, consume, collect: what lies in the database then."""
        self.publish(source, *bodies)
        self.consume(source)
        self.collect(source)
        return self.letters()

    def replay(
        self, *ids: int, actor: str = "ann", force: bool = False, settings: Settings | None = None
    ) -> list[Done]:
        session = Session(self.url)
        return replay(session, settings or self.settings, ReplayRequest(ids, by(actor), force))

    def waiting(self, source: Source) -> int:
        """Messages in the source queues."""
        return sum(self.brokers.left(source).values())

    @property
    def environment(self) -> dict[str, str]:
        return environment_of(self.settings)


@contextmanager
def open_letter_world(brokers: Brokers, database_url: str, **changes: Any) -> Iterator[LetterWorld]:
    """With its campaigns loaded; whatever a test that failed leaves in the queues is gone before the one after it."""
    settings = brokers.settings.model_copy(update={"database_url": database_url, **changes})
    world = LetterWorld(database_url, settings, brokers)
    world.load()
    yield world
    for source in SOURCES:
        if brokers.left(source):
            world.consume(source)
        brokers.letters(source)
