"""The batch against a real Postgres: exactly once in effect, a fixed number of statements, rehearsal without a trace."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest

from incentive_fleet.embedded import sample_shop
from incentive_fleet.events.codec import Event, decode
from incentive_fleet.events.models import OrderPlaced
from incentive_fleet.events.notices import validate_notice
from incentive_fleet.events.outcomes import validate_outcome
from incentive_fleet.ledger.batch import Verdict, apply_events
from incentive_fleet.ledger.session import Session
from tests.shop import balances, calm_balances, faults, open_shop

SHOP = sample_shop.Shop(150, seed=7, refunds=0.3)


@pytest.fixture
def session(database_url: str) -> Iterator[Session]:
    open_shop(database_url, SHOP)
    with closing(Session(database_url)) as session:
        yield session


def sample_bodies(shop: sample_shop.Shop = SHOP) -> list[bytes]:
    return [body for _, body in sample_shop.events(shop)]


def sample_events(shop: sample_shop.Shop = SHOP) -> list[Event]:
    return [decode(body) for body in sample_bodies(shop)]


def test_the_same_batch_again_is_all_duplicates_and_changes_nothing(session: Session) -> None:
    first = apply_events(session, sample_events())
    before = balances(session.url)
    again = apply_events(session, sample_events())
    assert set(first.verdicts) == {Verdict.APPLIED, Verdict.WAITING} - (
        set() if Verdict.WAITING in first.verdicts else {Verdict.WAITING}
    )
    assert set(again.verdicts) == {Verdict.DUPLICATE}
    assert again.postings == []
    assert balances(session.url) == before


@pytest.mark.parametrize("size", [1, 7, 100])
def test_any_order_in_batches_of_any_size_ends_in_the_balances_of_a_calm_run(
    session: Session, empty_database_url: str, size: int
) -> None:
    from incentive_fleet.ledger.migrate import upgrade

    upgrade(empty_database_url)
    open_shop(empty_database_url, SHOP)
    expected = calm_balances(empty_database_url, sample_bodies())
    events = sample_events() * 2
    random.Random(size).shuffle(events)
    for start in range(0, len(events), size):
        apply_events(session, events[start : start + size])
    assert balances(session.url) == expected
    assert faults(session.url) == {}


def statements_of(session: Session, events: list[Event], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    seen: list[str] = []
    execute, copy = psycopg.Connection.execute, psycopg.Cursor.copy

    def counting_execute(self, query, *args, **kwargs):  # type: ignore[no-untyped-def]
        seen.append(str(query))
        return execute(self, query, *args, **kwargs)

    def counting_copy(self, statement, *args, **kwargs):  # type: ignore[no-untyped-def]
        seen.append(str(statement))
        return copy(self, statement, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(psycopg.Connection, "execute", counting_execute)
        patch.setattr(psycopg.Cursor, "copy", counting_copy)
        apply_events(session, events)
    return seen


def test_a_batch_takes_the_same_statements_whatever_its_size(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    many = sample_events(sample_shop.Shop(300, seed=8, refunds=0.3, name="many"))[:500]
    assert len(many) == 500
    apply_events(session, sample_events(sample_shop.Shop(1, name="warm-up")))  # reads the terms once
    # One order with everything a batch can write: coupon, credit, earning, undelivered units, an anomaly, early facts.
    one = [event for event in many if isinstance(event.data, OrderPlaced) and event.data.coupons][:1]
    of_500 = statements_of(session, many, monkeypatch)
    of_1 = statements_of(session, [decode(body_again(one[0]))], monkeypatch)
    assert len(of_1) <= len(of_500) <= 30
    assert len(set(of_500)) >= 8  # it did write into many tables
    for batch in (of_1, of_500):
        assert len(set(batch)) == len(batch)  # one statement a table
    assert not any("COPY" in text for text in of_1)  # which would wait for each table


def body_again(event: Event) -> bytes:
    """The same order under another name: new to the ledger."""
    data = json.loads(event.canonical) | {"order_id": "once-more"}
    return json.dumps(
        {
            "specversion": "1.0",
            "id": "once-more",
            "source": "/test",
            "type": event.type,
            "time": "2026-03-02T08:00:00Z",
            "subject": "once-more",
            "data": data,
        }
    ).encode()


def test_a_rehearsal_says_what_would_be_booked_and_leaves_no_trace(session: Session) -> None:
    events = sample_events()
    before = balances(session.url)
    rehearsed = apply_events(session, events, rehearse=True)
    assert balances(session.url) == before
    assert session.connection.execute("SELECT count(*) FROM facts").fetchone() == (0,)
    assert apply_events(session, events).postings == rehearsed.postings


def test_a_conflict_on_either_identity_wins_and_changes_nothing(session: Session) -> None:
    placed = next(event for event in sample_events() if event.type == "order-placed.v1")
    apply_events(session, [placed])
    before = balances(session.url)
    document = json.loads(body_again(placed))
    same_id_other_order = document | {"id": placed.id, "source": placed.source}
    other_id_same_order = document | {"subject": placed.order_id}
    other_id_same_order["data"] = json.loads(placed.canonical) | {"customer_id": "another"}
    verdicts = apply_events(
        session, [decode(json.dumps(d).encode()) for d in (same_id_other_order, other_id_same_order)]
    ).verdicts
    assert verdicts == [Verdict.CONFLICT, Verdict.CONFLICT]
    assert balances(session.url) == before


def test_every_outcome_in_the_outbox_is_what_its_schema_says(session: Session) -> None:
    apply_events(session, sample_events())
    bodies = session.connection.execute("SELECT body, order_id, sequence FROM outbox").fetchall()
    assert len(bodies) > len(sample_bodies()) * 0.9
    for body, order_id, sequence in bodies:
        if order_id:
            data = validate_outcome(body.encode())
            assert (data.order_id, data.sequence) == (order_id, sequence)
        else:
            assert validate_notice(body.encode())
