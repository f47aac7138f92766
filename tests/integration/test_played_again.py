"""History played again (`fact_no`): facts of workers who met, one by one in the order of their numbers, end as they ended."""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager

import psycopg
import pytest

from incentive_fleet.embedded.postgres import Postgres
from incentive_fleet.events.models import EventData, OrderFinalized
from incentive_fleet.ledger.session import Session
from incentive_fleet.ledger.verify import verify
from tests.contract.brokers_under_test import eventually
from tests.domain import back, cancelled, delivered, estimated, finalized, line, placed, refunded
from tests.integration.test_concurrency_groceries import at_once
from tests.parts import fresh_database
from tests.replaying import kept, open_world, play_again, story, told, work
from tests.small_world import apply


@contextmanager
def ends_the_same(postgres: Postgres, template: str, session: Session) -> Iterator[None]:
    """What is done inside is played again in an empty ledger, which then holds the same."""
    open_world(session)
    yield
    with fresh_database(postgres, template) as url, closing(Session(url)) as empty:
        open_world(empty)
        assert play_again(session.connection, empty) > 0
        was, again = kept(session.connection), kept(empty.connection)
    for name in was:
        assert again[name] == was[name], name


SEEDS = 2
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
GIVING_BACK: list[EventData] = [
    refunded(order="o1"),
    refunded("r1", back(amount=500), order="o1"),
    cancelled("o1"),
    delivered("o1", missing={"a": 1}),
    finalized("o1"),
]


@pytest.mark.parametrize("fact", GIVING_BACK, ids=lambda fact: type(fact).__name__)
def test_who_asks_a_budget_waits_for_what_gives_back_to_it(
    fact: EventData, postgres: Postgres, database_template: str, session: Session, database_url: str
) -> None:
    """Else it is refused for want of what was given back, and has the later number of the two all the same."""
    first = placed("o1", coupons=["TENTH"])
    with ends_the_same(postgres, database_template, session), ThreadPoolExecutor(2) as pool:
        apply(session, estimated(first) if isinstance(fact, OrderFinalized) else first)
        with psycopg.connect(database_url) as blocker, psycopg.connect(database_url, autocommit=True) as onlooker:
            blocker.execute("LOCK TABLE outbox IN SHARE MODE")  # which everybody writes last
            giving = pool.submit(at_once, database_url, [fact])
            eventually(lambda: onlooker.execute(WAITING).fetchone() == (1,))
            asking = pool.submit(
                at_once, database_url, [placed("o2", line(unit_price=3_500), customer="bob", coupons=["TENTH"])]
            )
            eventually(lambda: onlooker.execute(WAITING).fetchone() == (2,))
            blocker.rollback()
            giving.result()
            asking.result()


@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_history_of_many_workers_is_played_again_fact_by_fact(
    seed: int, postgres: Postgres, database_template: str, session: Session, database_url: str
) -> None:
    chance = random.Random(seed)
    with ends_the_same(postgres, database_template, session):
        assert work(database_url, story(chance, 60), chance) > 100
    assert told(session.connection).keys() >= {"budget-exhausted", "total-limit", "customer-limit", "not-first-order"}
    assert verify(session.connection).sound


@pytest.mark.chaos
@pytest.mark.parametrize("seed", range(SEEDS, 100))
def test_a_hundred_histories_are_played_again(
    seed: int, postgres: Postgres, database_template: str, session: Session, database_url: str
) -> None:
    chance = random.Random(seed)
    with ends_the_same(postgres, database_template, session):
        assert work(database_url, story(chance, 60), chance) > 100
