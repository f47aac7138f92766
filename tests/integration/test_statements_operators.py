"""What waits and what is odd, listed for operators; and resolving an anomaly."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from incentive_fleet.errors import Refused
from incentive_fleet.ledger.anomalies import AnomalyKey, Resolution, list_anomalies, resolve_anomaly
from incentive_fleet.ledger.session import Session
from incentive_fleet.ledger.verify import verify
from incentive_fleet.ledger.waiting import list_waiting
from tests.domain import NOON, back, day, delivered, placed, refunded, text
from tests.small_world import TERMS, apply, load, rows


@pytest.fixture
def session(session: Session) -> Session:
    load(session, *TERMS)
    return session


def _since(url: str, order: str) -> datetime:
    [(since,)] = rows(url, f"SELECT DISTINCT since FROM waiting WHERE order_id = '{order}'")
    assert isinstance(since, datetime)
    return since


def test_what_waits_is_listed_with_its_age_until_its_order_comes(session: Session, database_url: str) -> None:
    apply(session, delivered("never"), refunded("r1", order="never"))
    apply(session, delivered("late"))
    since = _since(database_url, "never").astimezone(UTC)
    now = since + timedelta(hours=2)
    listed = list_waiting(session.connection, now=now)
    assert [(one.order_id, one.fact, one.event_id) for one in listed] == [
        ("never", "delivery", "never/DeliveryCompleted"),
        ("never", "refund:r1", "never/r1"),
        ("late", "delivery", "late/DeliveryCompleted"),
    ]
    assert (listed[0].age_s, listed[0].since) == (7_200, text(since))
    assert listed[1].data["refund_id"] == "r1"
    apply(session, placed("never"))
    assert [one.order_id for one in list_waiting(session.connection, now=now)] == ["late"]


def test_only_the_old_ones_and_no_more_than_asked_for(session: Session, database_url: str) -> None:
    apply(session, refunded("r1", order="first"), refunded("r2", order="first"))
    apply(session, refunded("r1", order="second"))
    since = _since(database_url, "first")
    listed = list_waiting(session.connection, now=since + timedelta(hours=1), older_than=timedelta(hours=1))
    assert [one.order_id for one in listed] == ["first", "first"]
    assert len(list_waiting(session.connection, now=datetime.now(UTC), limit=2)) == 2
    for limit in (0, 10_001):
        with pytest.raises(ValueError, match=str(limit)):
            list_waiting(session.connection, now=NOON, limit=limit)


def test_an_anomaly_is_listed_until_somebody_resolves_it_once(session: Session) -> None:
    apply(session, placed("o"), refunded("r1", back("z"), back("a", quantity=2), order="o"))
    connection = session.connection
    assert [(odd.reason, odd.subject) for odd in list_anomalies(connection)] == [
        ("exceeds-gross", "a"),
        ("unknown-line", "z"),
    ]
    done = resolve_anomaly(connection, AnomalyKey("o", "unknown-line", "z"), "eve", " a typing error ", NOON)
    assert (done.resolved_at, done.resolved_by, done.resolution) == (text(NOON), "eve", "a typing error")
    assert [odd.reason for odd in list_anomalies(connection)] == ["exceeds-gross"]
    assert len(list_anomalies(connection, include_resolved=True)) == 2
    assert len(list_anomalies(connection, include_resolved=True, limit=1)) == 1
    with pytest.raises(Refused, match="eve resolved it") as again:
        resolve_anomaly(connection, AnomalyKey("o", "unknown-line", "z"), "bob", "me too", NOON)
    assert again.value.reason == "already-resolved"


@pytest.mark.parametrize(
    ("order", "who", "note", "reason"),
    [
        ("other", "eve", "fine", "unknown-anomaly"),
        ("o", "eve", "  ", "note-out-of-bounds"),
        ("o", "eve", "x" * 2_001, "note-out-of-bounds"),
        ("o", "", "fine", "who-out-of-bounds"),
    ],
)
def test_a_resolution_that_cannot_be_is_refused(session: Session, order: str, who: str, note: str, reason: str) -> None:
    apply(session, placed("o"), refunded("r1", back("z"), order="o"))
    with pytest.raises(Refused) as refused:
        resolve_anomaly(session.connection, AnomalyKey(order, "unknown-line", "z"), who, note, NOON)
    assert refused.value.reason == reason
    assert len(list_anomalies(session.connection)) == 1


def test_a_resolved_anomaly_stays_resolved_when_its_fact_comes_again(session: Session) -> None:
    refund = refunded("r1", back("z"), order="o")
    apply(session, placed("o"), refund)
    resolve_anomaly(session.connection, AnomalyKey("o", "unknown-line", "z"), "eve", "known", NOON)
    apply(session, refund)
    assert list_anomalies(session.connection) == []


def test_an_anomaly_that_is_exceeded_further_is_open_again_and_keeps_what_was_said(session: Session) -> None:
    connection = session.connection
    apply(session, placed("o"), refunded("r1", back("a", quantity=2), order="o"))
    [first] = list_anomalies(connection)
    resolve_anomaly(connection, AnomalyKey("o", "exceeds-gross", "a"), "eve", "paid twice by mistake", NOON)
    apply(session, refunded("r2", back("a", quantity=1), order="o"))
    [again] = list_anomalies(connection)
    assert (again.reason, again.subject, again.resolved_at, again.resolution) == ("exceeds-gross", "a", None, None)
    assert again.noticed_at > first.noticed_at
    assert again.earlier == [Resolution(first.noticed_at, text(NOON), "eve", "paid twice by mistake")]
    resolve_anomaly(connection, AnomalyKey("o", "exceeds-gross", "a"), "bob", "and once more", day(2))
    apply(session, refunded("r3", back("a", amount=1), order="o"))
    [third] = list_anomalies(connection)
    assert [(one.resolved_by, one.resolution) for one in third.earlier] == [
        ("eve", "paid twice by mistake"),
        ("bob", "and once more"),
    ]
    assert verify(connection).sound


def test_a_further_claim_on_an_unknown_line_opens_it_again(session: Session) -> None:
    apply(session, placed("o"), refunded("r1", back("z"), order="o"))
    resolve_anomaly(session.connection, AnomalyKey("o", "unknown-line", "z"), "eve", "known", NOON)
    apply(session, refunded("r2", back("z"), order="o"))
    assert [one.earlier[0].resolution for one in list_anomalies(session.connection)] == ["known"]


def test_a_fact_that_claims_no_more_of_the_line_leaves_it_resolved(session: Session) -> None:
    """Units that a delivery did not bring and a refund then gives back as undelivered are claimed once."""
    apply(session, placed("o"), delivered("o", missing={"a": 2}))
    resolve_anomaly(session.connection, AnomalyKey("o", "exceeds-gross", "a"), "eve", "known", NOON)
    apply(session, refunded("r1", back("a", quantity=1, reason="undelivered"), order="o"))
    assert list_anomalies(session.connection) == []
    assert verify(session.connection).sound


def test_claims_that_no_bigint_holds_are_capped(session: Session) -> None:
    huge = [back("a", amount=10**15) for _ in range(10_000)]
    apply(session, placed("o"), refunded("r1", *huge, order="o"))
    assert [one.subject for one in list_anomalies(session.connection)] == ["a"]
    assert verify(session.connection).sound
