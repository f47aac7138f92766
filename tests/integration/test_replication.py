"""A COMMIT that no synchronous standby confirmed is none to rely on, however Postgres reports it, and however often it is tried."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime

import psycopg
import pytest
from psycopg.pq import TransactionStatus

from incentive_fleet.brokers.memory import MemoryBroker, MemoryTransport
from incentive_fleet.consumers.consumer import Consumer
from incentive_fleet.consumers.core import Core
from incentive_fleet.dead_letters.keeping import keep
from incentive_fleet.embedded import sample_shop
from incentive_fleet.embedded.postgres import Postgres
from incentive_fleet.errors import DatabaseUnavailable
from incentive_fleet.events.codec import decode
from incentive_fleet.ledger.attempts import FailedMessage, record_attempt
from incentive_fleet.ledger.batch import FEW, Verdict, apply_events
from incentive_fleet.ledger.grants import Grant, grant
from incentive_fleet.ledger.session import Session
from incentive_fleet.stopping import Stop
from tests.contract.brokers_under_test import eventually
from tests.dead_letter_world import arrival
from tests.parts import fresh_database
from tests.shop import NOON, faults, open_shop

SHOP = sample_shop.Shop(60, seed=3)
EVENTS = [body for _, body in sample_shop.events(SHOP)]


@pytest.fixture
def url(own_postgres: Postgres, own_template: str) -> Iterator[str]:
    own_postgres.start()
    with fresh_database(own_postgres, own_template) as url:
        open_shop(url, SHOP)
        yield url


@pytest.fixture
def unconfirmed(own_postgres: Postgres, url: str) -> Iterator[str]:
    """The same, with a synchronous standby that is not there, and an operator who cancels what waits for it."""
    over = threading.Event()
    operator = threading.Thread(target=_cancel, args=(own_postgres, over))
    _want_standby(own_postgres, "nobody")
    operator.start()
    try:
        yield url
    finally:
        over.set()
        operator.join(10)
        _want_standby(own_postgres, "")


def _cancel(server: Postgres, over: threading.Event) -> None:
    with psycopg.connect(server.url("postgres"), autocommit=True) as operator:
        while not over.wait(0.1):
            operator.execute("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'")


def _want_standby(server: Postgres, name: str) -> None:
    """From now on each COMMIT waits for the standby of this name; for none when it is empty."""
    with psycopg.connect(server.url("postgres"), autocommit=True) as owner:
        owner.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{name}'".encode())
        owner.execute("SELECT pg_reload_conf()")
    eventually(lambda: _wanted(server) == name)


def _wanted(server: Postgres) -> str:
    with psycopg.connect(server.url("postgres")) as owner:  # a new session reads what the reload has brought
        row = owner.execute("SHOW synchronous_standby_names").fetchone()
    return str(row[0]) if row else ""


def facts(url: str) -> int:
    with psycopg.connect(url) as owner:
        row = owner.execute("SELECT count(*) FROM facts").fetchone()
    return int(row[0]) if row else 0


Act = Callable[[Session], object]


def few(session: Session) -> object:
    return apply_events(session, [decode(body) for body in EVENTS[:FEW]])


def many(session: Session) -> object:
    return apply_events(session, [decode(body) for body in EVENTS[: FEW + 1]])


def grants(session: Session) -> object:
    customer, currency, campaign = "late", sample_shop.CURRENCY, "hello"
    return grant(session, [Grant("late", customer, currency, 100, campaign, expires_at=None)], NOON)


def a_dead_letter(session: Session) -> object:
    return keep(session.connection, [arrival(b"junk", name="m-1", queue="q", transport="rabbitmq")], NOON)


def an_attempt(session: Session) -> object:
    return record_attempt(session.connection, FailedMessage("q", "m", "E", "why", "where", "here"), NOON)


@pytest.mark.parametrize("act", [few, many, grants, a_dead_letter, an_attempt])
def test_what_no_standby_confirmed_is_an_error_and_so_is_its_repetition(unconfirmed: str, act: Act) -> None:
    with closing(Session(unconfirmed)) as session:
        for _ in range(2):  # the second time all of it is there already, and no more confirmed than before
            with pytest.raises(DatabaseUnavailable, match="synchronous standby"):
                act(session)
            assert session.connection.info.transaction_status == TransactionStatus.IDLE


def test_what_was_waited_for_is_a_duplicate_once_a_standby_confirms(
    own_postgres: Postgres, unconfirmed: str, url: str
) -> None:
    with closing(Session(unconfirmed)) as session, pytest.raises(DatabaseUnavailable):
        few(session)
    _want_standby(own_postgres, "")
    with closing(Session(url)) as session:
        again = apply_events(session, [decode(body) for body in EVENTS[:FEW]])
    assert set(again.verdicts) == {Verdict.DUPLICATE}
    assert facts(url) == FEW
    assert faults(url) == {}


def test_a_consumer_acknowledges_nothing_that_no_standby_confirmed(
    own_postgres: Postgres, unconfirmed: str, url: str
) -> None:
    broker = MemoryBroker()
    for body in EVENTS:
        broker.publish(body, json.loads(body)["type"])
    core = Core(Session(unconfirmed), (5.0,), lambda: datetime.now(UTC))
    stop = Stop()
    consumer = Consumer("waiting", MemoryTransport(broker), core, 500, 0.1, 0.2, stop)
    thread = threading.Thread(target=consumer.run, args=(0.1,))
    thread.start()
    try:
        eventually(lambda: consumer.pause.paused and facts(url) == len(EVENTS))
        assert (core.counts["applied"], core.counts["duplicate"]) == (0, 0)
        _want_standby(own_postgres, "")
        thread.join(30)
    finally:
        stop.set()
        thread.join(30)
    assert not thread.is_alive()
    assert core.counts["duplicate"] == len(EVENTS)
    assert facts(url) == len(EVENTS)
