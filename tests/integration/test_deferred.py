"""A batch does not wait for a wallet that another transaction holds: those orders are deferred whole, and lose nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime

import psycopg
import pytest

from incentive_fleet.brokers.messages import Ack, Delivery, Disposition
from incentive_fleet.consumers.core import DEFERRED_MAX, Core
from incentive_fleet.embedded import sample_shop
from incentive_fleet.events.codec import Event, decode
from incentive_fleet.ledger.batch import Verdict, apply_events
from incentive_fleet.ledger.session import Session
from tests.shop import balances, calm_balances, faults, open_shop

SHOP = sample_shop.Shop(60, seed=11, refunds=0.3)
BODIES = [body for _, body in sample_shop.events(SHOP)]
EVENTS = [decode(body) for body in BODIES]
CUSTOMER_OF = {event.order_id: event.data.customer_id for event in EVENTS if event.type == "order-placed.v1"}  # type: ignore[union-attr]
BUSY = CUSTOMER_OF[EVENTS[0].order_id]


@pytest.fixture
def session(database_url: str) -> Iterator[Session]:
    open_shop(database_url, SHOP)
    with closing(Session(database_url)) as session:
        yield session


@contextmanager
def held(url: str, *customers: str) -> Iterator[None]:
    """Another transaction holds the customers' wallets."""
    with psycopg.connect(url) as other:
        other.execute(
            "SELECT FROM wallets WHERE customer_id = ANY(%s) ORDER BY customer_id FOR NO KEY UPDATE", (list(customers),)
        )
        yield


def is_of(event: Event, customer: str) -> bool:
    return CUSTOMER_OF[event.order_id] == customer


def test_orders_of_a_held_wallet_are_deferred_whole_and_the_rest_is_applied(
    session: Session, empty_database_url: str
) -> None:
    with held(session.url, BUSY):
        verdicts = apply_events(session, EVENTS, skip_locked=True).verdicts
    assert {v for e, v in zip(EVENTS, verdicts, strict=True) if is_of(e, BUSY)} == {Verdict.DEFERRED}
    assert Verdict.DEFERRED not in {v for e, v in zip(EVENTS, verdicts, strict=True) if not is_of(e, BUSY)}
    stored = session.connection.execute("SELECT DISTINCT order_id FROM facts").fetchall()
    assert {CUSTOMER_OF[order_id] for (order_id,) in stored} == set(CUSTOMER_OF.values()) - {BUSY}

    later = [event for event, verdict in zip(EVENTS, verdicts, strict=True) if verdict is Verdict.DEFERRED]
    assert Verdict.APPLIED in apply_events(session, later, skip_locked=True).verdicts
    from incentive_fleet.ledger.migrate import upgrade

    upgrade(empty_database_url)
    open_shop(empty_database_url, SHOP)
    assert balances(session.url) == calm_balances(empty_database_url, BODIES)
    assert faults(session.url) == {}


def test_who_bears_the_name_of_a_deferred_event_waits_for_it_and_is_the_conflict(session: Session) -> None:
    placings = [event for event in EVENTS if event.type == "order-placed.v1"]
    first = next(event for event in placings if is_of(event, BUSY))
    second, *others = [event for event in placings if not is_of(event, BUSY)]
    namesake = second._replace(source=first.source, id=first.id)
    with held(session.url, BUSY):
        verdicts = apply_events(session, [first, *others[:5], namesake], skip_locked=True).verdicts
    assert verdicts == [Verdict.DEFERRED, *[Verdict.APPLIED] * 5, Verdict.DEFERRED]
    assert apply_events(session, [first, namesake]).verdicts == [Verdict.APPLIED, Verdict.CONFLICT]


def test_when_most_wallets_are_held_the_batch_waits(session: Session) -> None:
    """Or it would go round and round with nothing done."""
    results: list[list[Verdict]] = []
    waiter = threading.Thread(target=lambda: results.append(apply_events(session, EVENTS, skip_locked=True).verdicts))
    with held(session.url, *set(CUSTOMER_OF.values()) - {BUSY}):
        waiter.start()
        waiter.join(0.5)
        assert waiter.is_alive()
    waiter.join(20)
    assert Verdict.DEFERRED not in results[0]


def test_a_core_keeps_what_is_deferred_and_waits_in_the_end(session: Session) -> None:
    core = Core(session, (1.0,), clock=lambda: datetime.now(UTC), skip_locked=True)
    placings = [(e, b) for e, b in zip(EVENTS, BODIES, strict=True) if e.type == "order-placed.v1"]
    theirs = next(delivery(body) for event, body in placings if is_of(event, BUSY))
    others = [delivery(body) for event, body in placings if not is_of(event, BUSY)]
    rounds = [others[start : start + 3] for start in range(0, 3 * (DEFERRED_MAX + 2), 3)]
    with held(session.url, BUSY):
        for number, batch in enumerate(rounds[: DEFERRED_MAX + 1]):
            decided = core.process([*batch, theirs] if number == 0 else batch, carries_failures=True)
            assert [one for one, _ in decided] == batch
            assert [kept for kept, _ in core.deferred] == [theirs]
        results: list[tuple[Delivery, Disposition]] = []
        waiter = threading.Thread(target=lambda: results.extend(core.process(rounds[-1], carries_failures=True)))
        waiter.start()
        waiter.join(0.5)
        assert waiter.is_alive()
    waiter.join(20)
    assert results == [(one, Ack()) for one in [theirs, *rounds[-1]]]
    assert core.deferred == []


def delivery(body: bytes) -> Delivery:
    return Delivery(body, "q", "memory", "", 1, None)
