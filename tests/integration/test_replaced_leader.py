"""A leader that was replaced and goes on as if it led: nobody waits for it, and nobody takes the new one for it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime

import psycopg
import pytest

from incentive_fleet.brokers.memory import MemoryBroker, MemoryTransport
from incentive_fleet.brokers.messages import Message, Rejection
from incentive_fleet.consumers.consumer import Consumer
from incentive_fleet.consumers.core import Core
from incentive_fleet.embedded import postgres_release, sample_shop
from incentive_fleet.errors import DatabaseUnavailable
from incentive_fleet.events.codec import decode
from incentive_fleet.ledger import pooler
from incentive_fleet.ledger.attempts import FailedMessage, record_attempt
from incentive_fleet.ledger.batch import apply_events
from incentive_fleet.ledger.connection import connect, require_leading
from incentive_fleet.ledger.leadership import place_of
from incentive_fleet.ledger.migrate import upgrade
from incentive_fleet.ledger.session import Session
from incentive_fleet.producers.relay_loop import run_relay
from incentive_fleet.stopping import Stop
from tests.archived_postgres import Server, restored
from tests.contract.brokers_under_test import eventually
from tests.shop import balances, calm_balances, faults, open_shop

SHOP = sample_shop.Shop(60, seed=3)
EVENTS = [body for _, body in sample_shop.events(SHOP)]
# Before the new leader was promoted; while the fleet waits for the old one; and while a relay does.
PART = len(EVENTS) // 3
FIRST, SECOND, THIRD = EVENTS[:PART], EVENTS[PART : 2 * PART], EVENTS[2 * PART :]
LOOK_S = 0.5


@pytest.fixture(autouse=True)
def _looks_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pooler, "LOOK_S", LOOK_S)


@dataclass(frozen=True, slots=True)
class Pair:
    """The old leader, and the one that is promoted beside it."""

    old: Server
    new: Server

    @property
    def url(self) -> str:
        """Both, the old one first, as a fleet has them in its address."""
        hosts = ",".join(str(server.sockets) for server in (self.old, self.new))
        return f"postgresql://postgres@/postgres?host={hosts}&target_session_attrs=read-write"


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """The old one leads, with the shop open and the first events applied; the new one has a copy of that, promoted."""
    folder = tmp_path_factory.mktemp("replaced")
    old = Server(postgres_release.binaries(), folder / "old", folder / "archive").make().start()
    new: Server | None = None
    try:
        upgrade(old.url())
        open_shop(old.url(), SHOP)
        apply(old.url(), FIRST)
        new = restored(old.base_backup(folder / "backup"), folder / "new", old)
        yield Pair(old, new)
    finally:
        for server in (old, new):
            if server is not None:
                server.remove()


@pytest.fixture
def pair(both: Pair) -> Iterator[Pair]:
    """Both up, and neither waits for a standby, before and after."""
    yield both
    for server in (both.old, both.new):
        want_standby(server, "")


def apply(url: str, bodies: list[bytes]) -> None:
    with closing(Session(url)) as session:
        apply_events(session, [decode(body) for body in bodies])


def want_standby(server: Server, name: str) -> None:
    """From now on each COMMIT of it waits for the standby of this name; for none when it is empty."""
    with psycopg.connect(server.url(), autocommit=True) as owner:
        owner.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{name}'".encode())
        owner.execute("SELECT pg_reload_conf()")

    def is_read() -> bool:
        with psycopg.connect(server.url()) as session:
            row = session.execute("SHOW synchronous_standby_names").fetchone()
        return row is not None and row[0] == name

    eventually(is_read)


def one(server: Server, query: str) -> int:
    with psycopg.connect(server.url(), autocommit=True) as owner:
        row = owner.execute(query.encode()).fetchone()
    assert row is not None
    return int(row[0])


def facts(server: Server) -> int:
    return one(server, "SELECT count(*) FROM facts")


def unpublished(server: Server) -> int:
    return one(server, "SELECT count(*) FROM outbox_unpublished WHERE destination = 'rabbitmq'")


def at(connection: psycopg.Connection) -> str:
    return place_of(connection)[0]


def test_a_commit_that_the_replaced_leader_never_ends_is_given_again_to_the_one_that_leads(
    pair: Pair, database_url: str
) -> None:
    broker, stop = MemoryBroker(), Stop()
    with closing(Session(pair.url)) as session:
        core = Core(session, (5.0,), lambda: datetime.now(UTC))
        assert at(session.connection) == str(pair.old.sockets)
        want_standby(pair.old, "gone")
        for body in FIRST + SECOND:
            broker.publish(body, json.loads(body)["type"])
        consumer = Consumer("waiting", MemoryTransport(broker), core, 500, 0.1, 0.2, stop)
        thread = threading.Thread(target=consumer.run, args=(0.1,))
        thread.start()
        try:
            thread.join(30)
        finally:
            stop.set()
            thread.join(30)
        assert not thread.is_alive()
        assert at(session.connection) == str(pair.new.sockets)
    waiting = one(pair.old, "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
    assert waiting > 0, "the old leader was never asked for a COMMIT"
    assert (core.counts["duplicate"], core.counts["applied"]) == (len(FIRST), len(SECOND))
    assert (facts(pair.new), faults(pair.new.url())) == (len(FIRST + SECOND), {})
    open_shop(database_url, SHOP)
    assert balances(pair.new.url()) == calm_balances(database_url, FIRST + SECOND)


def test_whoever_comes_anew_is_led_past_the_replaced_leader(pair: Pair) -> None:
    want_standby(pair.old, "gone")
    with closing(connect(pair.url)) as connection:
        assert at(connection) == str(pair.new.sockets)


def test_a_connection_that_only_reads_leaves_the_replaced_leader(pair: Pair) -> None:
    with closing(connect(pair.url)) as connection:
        require_leading(connection)
        want_standby(pair.old, "gone")
        eventually(lambda: _is_left(connection))
        assert connection.closed


def _is_left(connection: psycopg.Connection) -> bool:
    try:
        require_leading(connection)
    except DatabaseUnavailable as error:
        return "was replaced and does not know it" in str(error)
    return False


@dataclass(slots=True)
class Taking:
    """A broker that takes everything."""

    taken: list[Message] = field(default_factory=list)

    def check(self) -> None:
        pass

    def publish(self, messages: Sequence[Message]) -> list[Rejection]:
        self.taken += messages
        return []

    def close(self) -> None:
        pass


def test_an_idle_relay_goes_to_where_new_outcomes_are(pair: Pair) -> None:
    publisher, stop = Taking(), Stop()
    relay = threading.Thread(target=run_relay, args=(pair.url, {"rabbitmq": publisher}), kwargs={"stop": stop})
    relay.start()
    try:
        eventually(lambda: publisher.taken and unpublished(pair.old) == 0)
        before = len(publisher.taken)
        want_standby(pair.old, "gone")
        apply(pair.new.url(), THIRD)
        eventually(lambda: unpublished(pair.new) == 0)
        assert len(publisher.taken) > before
    finally:
        stop.set()
        relay.join(30)
    assert not relay.is_alive()


def test_the_leader_is_not_left_for_a_replaced_one_while_its_own_standby_is_away(pair: Pair) -> None:
    want_standby(pair.old, "gone")
    want_standby(pair.new, "late")
    assert written_at(pair, waits_for=pair.new) == str(pair.new.sockets)


def test_while_nobody_else_leads_a_commit_is_waited_for(pair: Pair) -> None:
    want_standby(pair.old, "late")
    pair.new.kill()
    try:
        assert written_at(pair, waits_for=pair.old) == str(pair.old.sockets)
    finally:
        pair.new.start()


def written_at(pair: Pair, waits_for: Server) -> str:
    """Where a COMMIT returned that had to wait for a standby, and for longer than it takes to look for another leader."""
    failed = FailedMessage("q", "m", "E", "why", "where", "here")
    with closing(connect(pair.url)) as connection:
        threading.Timer(LOOK_S * 3, want_standby, (waits_for, "")).start()
        record_attempt(connection, failed, datetime.now(UTC))
        return at(connection)
