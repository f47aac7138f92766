"""Any order of arrival: one order's facts, shuffled, repeated, split over batches and encodings, end in equal balances.

Each example runs against the real database under fresh ids: once calmly, in the order of its times, and once as it comes.
Deliveries are encoded as each transport hands them over, raw or inside an SNS notification, without a broker between.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
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
WINDOW = 'currency = "EUR"\nstarts_at = 2020-01-01T00:00:00Z\nends_at = 2099-01-01T00:00:00Z\n'
CAMPAIGNS = f"""
[[campaign]]
id = "tenth"
kind = "coupon"
code = "TENTH"
rate_bps = 1000
stacking = "stackable"
{WINDOW}
[[campaign]]
id = "fresh"
kind = "coupon"
code = "FRESH"
amount = 777
categories = ["fresh"]
stacking = "stackable"
{WINDOW}
[[campaign]]
id = "alone"
kind = "coupon"
code = "ALONE"
rate_bps = 3333
max_amount = 5000
{WINDOW}
[[campaign]]
id = "back"
kind = "earn"
rate_bps = 250
valid_days = 20
{WINDOW}
[[campaign]]
id = "back-fresh"
kind = "earn"
amount = 333
min_subtotal = 1000
categories = ["fresh"]
{WINDOW}
[[campaign]]
id = "sorry"
kind = "make_good"
rate_bps = 500
max_amount = 900
grace_minutes = 10
valid_days = 5
reissue_days = 3
{WINDOW}
[[campaign]]
id = "gift"
kind = "grant"
reissue_days = 10
{WINDOW}
"""

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


@pytest.fixture(scope="module")
def ledger(postgres: Postgres, database_template: str) -> Iterator[Ledger]:
    with fresh_database(postgres, database_template) as url:
        with psycopg.connect(url, autocommit=True) as owner:
            name = owner.info.dbname
            # Thousands of commits whose durability nobody tests here; what they hold is the same.
            owner.execute(f'ALTER DATABASE "{name}" SET synchronous_commit = off')
        session = Session(url)
        load_campaigns(session.connection, parse_campaigns(CAMPAIGNS))
        yield Ledger(session, Core(session, (5.0,), lambda: datetime.now(UTC)))
        session.close()


def moments(least_h: int = 0, most_h: int = 24 * 40) -> st.SearchStrategy[str]:
    hours = st.integers(least_h, most_h)
    return hours.map(lambda count: (NOON + timedelta(hours=count)).isoformat())


line_ids = st.sampled_from(["1", "2", "3", "4"])
# Mostly everyday sizes; sometimes the bounds of rules 2.1, which must not overflow anything.
quantities = st.one_of(st.integers(1, 5), st.sampled_from([1_000_000]))
prices = st.one_of(st.integers(0, 3_000), st.sampled_from([0, 1, 200_000_000]))


@st.composite
def placings(draw: st.DrawFn) -> Data:
    count = draw(st.integers(1, 4))
    lines = [
        {"line_id": str(number), "sku": "s", "quantity": draw(quantities), "unit_price": draw(prices)}
        for number in range(1, count + 1)
    ]
    for line in lines:
        if category := draw(st.sampled_from([None, "fresh", "other"])):
            line["category"] = category
    return {
        "currency": "EUR",
        "placed_at": NOON.isoformat(),
        "lines": lines,
        "coupons": draw(st.lists(st.sampled_from(["TENTH", "fresh", "ALONE", "NOSUCH"]), max_size=4)),
        "credit_requested": draw(st.sampled_from([0, 0, 1, 700, 5_000, 10**12])),
    }


@st.composite
def refunds(draw: st.DrawFn) -> Data:
    data: Data = {"currency": draw(st.sampled_from(["EUR"] * 9 + ["USD"])), "refunded_at": draw(moments())}
    if draw(st.integers(0, 3)):
        data["lines"] = draw(st.lists(refund_lines(), min_size=1, max_size=3))
    return data


@st.composite
def refund_lines(draw: st.DrawFn) -> Data:
    measure = draw(st.sampled_from(["quantity", "amount"]))
    value = draw(st.integers(1, 4) if measure == "quantity" else st.sampled_from([1, 99, 500, 10**6]))
    reason = draw(st.sampled_from([None, "returned", "undelivered", "goodwill"]))
    return {"line_id": draw(line_ids), measure: value} | ({"reason": reason} if reason else {})


@st.composite
def deliveries(draw: st.DrawFn) -> Data:
    data: Data = {"delivered_at": draw(moments(1, 24 * 20))}
    if draw(st.booleans()):
        data["promised_by"] = draw(moments(0, 48))
    missing = draw(st.lists(st.tuples(line_ids, st.integers(1, 4)), max_size=2))
    if missing:
        data["undelivered"] = [{"line_id": line_id, "quantity": quantity} for line_id, quantity in missing]
    return data


@st.composite
def stories(draw: st.DrawFn) -> Story:
    placed = draw(placings())
    refunded = draw(st.lists(refunds(), max_size=3))
    delivered = draw(st.one_of(st.none(), deliveries()))
    later = [("order-refunded.v1", data, data["refunded_at"]) for data in refunded]
    later += [("delivery-completed.v1", delivered, delivered["delivered_at"])] if delivered else []
    later.sort(key=lambda entry: (entry[2], entry[0]))  # ties: the delivery first
    facts = [("order-placed.v1", placed), *((kind, data) for kind, data, _ in later)]
    repeats = draw(st.lists(st.sampled_from(range(len(facts))), max_size=5))
    order = draw(st.permutations([*range(len(facts)), *repeats]))
    arrivals = [(position, draw(st.booleans())) for position in order]
    batches = draw(st.lists(st.integers(1, 6), min_size=1, max_size=4))
    opening = st.tuples(st.sampled_from([1, 600, 50_000, 10**12]), st.sampled_from([None, 0, 5, 60]))
    return Story(draw(st.lists(opening, max_size=2)), facts, arrivals, batches)


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


def encoded(name: str, position: int, kind: str, data: Data) -> bytes:
    """The CloudEvent of a fact under the ids of its customer and order, which share a name."""
    ids = {"order_id": name}
    if kind == "order-placed.v1":
        ids["customer_id"] = name
    elif kind == "order-refunded.v1":
        ids["refund_id"] = f"r{position}"
    else:
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


def run(ledger: Ledger, examples: int, say: Callable[[str], None]) -> None:
    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(stories())
    def property_(story: Story) -> None:
        ends_equal(ledger, story)

    check: Callable[[], None] = property_
    check()
    report = verify(ledger.session.connection)
    assert report.sound, [check.first for check in report.checks if check.faults]
    say(f"{examples} stories in {ledger.deliveries} deliveries, {report.transfers} transfers")


def test_any_order_and_any_repetition_end_in_the_same_balances(ledger: Ledger, say: Callable[[str], None]) -> None:
    run(ledger, 300, say)


@pytest.mark.chaos
def test_any_order_and_any_repetition_end_in_the_same_balances_5000_times(
    ledger: Ledger, say: Callable[[str], None]
) -> None:
    run(ledger, 5_000, say)
