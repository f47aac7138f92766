"""Plays one order's facts on a real ledger, once calmly and once as they come, and compares what they end in.

Deliveries are encoded as each transport hands them over, raw or inside an SNS notification, without a broker between.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from incentive_fleet.brokers.messages import Ack, Delivery
from incentive_fleet.consumers.core import Core
from incentive_fleet.embedded.postgres import Postgres
from incentive_fleet.incentives.campaign_file import parse_campaigns
from incentive_fleet.ledger.grants import Grant, grant
from incentive_fleet.ledger.session import Session
from incentive_fleet.ledger.terms import load_campaigns
from incentive_fleet.ledger.verify import verify
from tests.parts import fresh_database

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)

Data = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Story:
    """One order's facts without its ids, and how they come."""

    grants: list[tuple[int, int | None]]  # amount, days until it expires
    facts: list[tuple[str, Data]]  # by their times: the calm order
    arrivals: list[tuple[int, bool]]  # position of the fact, whether SNS wraps it; every fact at least once
    batches: list[int]  # sizes, taken in turn


@dataclass(slots=True)
class Ledger:
    session: Session
    core: Core
    numbers: Iterator[int] = field(default_factory=itertools.count)
    deliveries: int = 0


@contextmanager
def opened(postgres: Postgres, database_template: str, campaigns: str) -> Iterator[Ledger]:
    """A ledger under these terms."""
    with fresh_database(postgres, database_template) as url:
        with psycopg.connect(url, autocommit=True) as owner:
            name = owner.info.dbname
            # Thousands of commits whose durability nobody tests here; what they hold is the same.
            owner.execute(f'ALTER DATABASE "{name}" SET synchronous_commit = off')
        session = Session(url)
        load_campaigns(session.connection, parse_campaigns(campaigns))
        yield Ledger(session, Core(session, (5.0,), lambda: datetime.now(UTC)))
        session.close()


def ends_equal(ledger: Ledger, story: Story) -> None:
    """Play the story calmly and as it comes, for two customers who have the same, and compare."""
    number = next(ledger.numbers)
    calm, wild = f"calm-{number}", f"wild-{number}"
    gifts = [
        Grant(f"{name}-{nth}", name, "EUR", amount, "gift", NOON + timedelta(days=days) if days is not None else None)
        for name in (calm, wild)
        for nth, (amount, days) in enumerate(story.grants)
    ]
    if gifts:
        grant(ledger.session, gifts, NOON - timedelta(days=1))
    play(ledger, [encoded(calm, position, *fact) for position, fact in enumerate(story.facts)], [len(story.facts)])
    bodies = [encoded(wild, position, *story.facts[position]) for position, _ in story.arrivals]
    wrapped = [sns_notification(body) if wrap else body for body, (_, wrap) in zip(bodies, story.arrivals, strict=True)]
    play(ledger, wrapped, story.batches)
    assert balances_of(ledger, wild) == balances_of(ledger, calm)
    assert told_of(ledger, wild) == told_of(ledger, calm)


def encoded(name: str, position: int, kind: str, data: Data) -> bytes:
    """The CloudEvent of a fact under the ids of its customer and order, which share a name."""
    ids = {"order_id": name}
    if kind == "order-placed.v1":
        ids["customer_id"] = name
    elif kind == "order-refunded.v1":
        ids["refund_id"] = f"r{position}"
    elif kind == "delivery-completed.v1":
        ids["delivery_id"] = "d"
    event = {
        "specversion": "1.0",
        "id": f"{name}-{position}",
        "source": "/permutations",
        "type": kind,
        "time": NOON.isoformat(),
        "subject": name,
        "data": data | ids,
    }
    return json.dumps(event).encode()


def sns_notification(body: bytes) -> bytes:
    """What SQS holds when raw delivery is off."""
    return json.dumps({"Type": "Notification", "MessageId": "m", "TopicArn": "arn", "Message": body.decode()}).encode()


def play(ledger: Ledger, bodies: list[bytes], sizes: list[int]) -> None:
    left = bodies
    for size in itertools.cycle(sizes):
        batch = [Delivery(body, "queue", "memory", "", 1, receipt=None) for body in left[:size]]
        outcomes = ledger.core.process(batch, carries_failures=True)
        assert [outcome for _, outcome in outcomes] == [Ack()] * len(batch), outcomes
        ledger.deliveries += len(batch)
        left = left[size:]
        if not left:
            return


def balances_of(ledger: Ledger, name: str) -> dict[str, int]:
    """Every account that the customer's transfers touched, from the transfers, and their own as they are kept."""
    rows = ledger.session.connection.execute(
        "SELECT debit_account, credit_account, sum(amount)::bigint FROM transfers WHERE customer_id = %s GROUP BY 1, 2",
        (name,),
    ).fetchall()
    folded: Counter[str] = Counter()
    for debit, credit, amount in rows:
        folded[debit] += amount
        folded[credit] -= amount
    own = [f"{kind}:{name}" for kind in ("wallet", "pending", "debt", "order")]
    kept = ledger.session.connection.execute(
        "SELECT account, balance FROM accounts WHERE account = ANY(%s) AND balance <> 0", (own,)
    ).fetchall()
    balances = {account: amount for account, amount in folded.items() if amount}
    assert dict(kept) == {account: abs(balances[account]) for account in own if account in balances}
    return {account.removesuffix(name): amount for account, amount in sorted(balances.items())}


def told_of(ledger: Ledger, name: str) -> tuple[int, Any]:
    """All the money that the order's outcomes made due, and what stands on each line after the last of them."""
    rows = ledger.session.connection.execute(
        "SELECT body FROM outbox WHERE order_id = %s ORDER BY sequence", (name,)
    ).fetchall()
    told = [json.loads(body)["data"] for (body,) in rows]
    return sum(data["money_due_back"] for data in told), told[-1]["lines"] if told else None


def run(ledger: Ledger, stories: st.SearchStrategy[Story], examples: int, say: Callable[[str], None]) -> None:
    """Play so many stories, and verify the ledger."""

    @settings(max_examples=examples, database=None, suppress_health_check=list(HealthCheck))
    @given(stories)
    def property_(story: Story) -> None:
        ends_equal(ledger, story)

    check: Callable[[], None] = property_
    check()
    report = verify(ledger.session.connection)
    assert report.sound, [check.first for check in report.checks if check.faults]
    say(f"{examples} stories in {ledger.deliveries} deliveries, {report.transfers} transfers")
