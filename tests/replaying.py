"""A shop in which everybody meets everybody, worked on by many at once, and its history played again one fact after the other.

Limits, budgets, pooled codes, first orders, credit and one wallet for many orders: whatever a fact may meet of another's is
there, and there is too little of it. What is compared is all that the ledger keeps but for when it was booked.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

from psycopg import Connection

from incentive_fleet.events.codec import Event, stored_event
from incentive_fleet.events.models import EventData
from incentive_fleet.ledger.batch import Verdict, apply_events
from incentive_fleet.ledger.codes import PoolRow, load_codes
from incentive_fleet.ledger.session import Session
from tests.domain import (
    asked,
    back,
    cancelled,
    day,
    delivered,
    estimated,
    event,
    finalized,
    line,
    placed,
    refunded,
    terms,
)
from tests.small_world import load

WORKERS = 8
CUSTOMERS = ("ann", "bob", "cat", "dan", "eve")
WORDS = ("TENTH", "FEW", "FIRST", "CLUB", "P-1", "P-2", "P-3")
TERMS = (
    terms("coupon", "tenth", code="TENTH", rate_bps=1_000, budget=400, stacking="stackable"),
    terms("coupon", "few", code="FEW", amount=70, total=2, stacking="stackable"),
    terms("coupon", "first", code="FIRST", amount=90, first_orders=1, stacking="stackable"),
    terms("coupon", "club", code="CLUB", amount=60, per_customer=1, stacking="stackable"),
    terms("coupon", "pool", codes="pool", amount=80, stacking="stackable"),
    terms("coupon", "bags", auto=True, amount=5, line_kinds=["deposit"], total=6, stacking="stackable"),
    terms("earn", "points", rate_bps=500, budget=600, valid_days=30),
    terms("make_good", "sorry", amount=150, budget=700),
    terms("grant", "gift", budget=2_500),
)
# What is kept, apart from numbers and times of booking.
KEPT = {
    "balances": "SELECT account, currency, balance FROM accounts WHERE balance <> 0",
    "decisions": "SELECT order_id, decision::text, counts FROM decisions",
    "final baskets": "SELECT order_id, decision::text FROM final_baskets",
    "running totals": "SELECT order_id, totals::text FROM orders",
    "waiting": "SELECT order_id, fact FROM waiting",
    "lots": "SELECT customer_id, lot_no, campaign_id, amount, remaining, expires_at, root_lot_no, cause FROM lots",
    "transfers": "SELECT cause, kind, debit_account, credit_account, amount, lot_no, happened_at FROM transfers",
    "redemptions": "SELECT campaign_id, order_id, discount, redeemed_at, released_at FROM redemptions",
    "codes": "SELECT code, order_id FROM codes",
    "grants": "SELECT key, lot_no, granted_at FROM grants",
    "first orders": "SELECT order_id, counts FROM counting_changes",
    "anomalies": "SELECT order_id, reason, subject, claimed FROM anomalies",
    "outcomes": "SELECT order_id, fact, sequence, type, body FROM outbox",
}
HISTORY = """
    SELECT fact, source, event_id, digest, traceparent, data::text FROM facts WHERE fact_no IS NOT NULL ORDER BY fact_no
"""


def open_world(session: Session) -> None:
    """Its terms and codes."""
    load(session, *TERMS)
    load_codes(session.connection, [PoolRow(n, "pool", code, None, None) for n, code in enumerate(WORDS[4:], start=2)])


def story(chance: random.Random, orders: int) -> list[Event]:
    """So many orders and what becomes of them, in no order at all."""
    facts: list[EventData] = [
        asked(f"g{number}", chance.choice((100, 300, 700)), customer=chance.choice(CUSTOMERS)) for number in range(9)
    ]
    for number in range(orders):
        facts += _order(chance, f"o{number}")
    chance.shuffle(facts)
    return [event(data) for data in facts]


def _order(chance: random.Random, name: str) -> Iterator[EventData]:
    lines = [line(str(n), chance.randint(1, 3), chance.randint(100, 900)) for n in range(chance.randint(1, 3))]
    if chance.random() < 0.5:
        lines.append(line("bag", 1, 25, kind="deposit"))
    coupons, credit = chance.sample(WORDS, chance.randint(0, 4)), chance.choice((0, 0, 150, 10**6))
    customer, at = chance.choice(CUSTOMERS), day(chance.random())
    placing = placed(name, *lines, customer=customer, at=at, coupons=coupons, credit=credit)
    if chance.random() < 0.5:
        yield estimated(placing)
        if chance.random() < 0.8:
            picked = [one | {"unit_price": chance.randint(50, 1_200)} for one in lines if chance.random() < 0.8]
            yield finalized(name, *picked, at=day(1 + chance.random()))
    else:
        yield placing
    if chance.random() < 0.2:
        yield cancelled(name, at=day(1 + chance.random()))
    if chance.random() < 0.6:
        missing = {"0": 1} if chance.random() < 0.5 else None
        yield delivered(name, at=day(3 + chance.random()), promised=day(3.2), missing=missing)
    for number in range(chance.choice((0, 1, 2))):
        part = [back("0", amount=chance.randint(1, 2_000))] if chance.random() < 0.5 else []
        yield refunded(f"r{number}", *part, order=name, at=day(3 + 2 * chance.random()))


def work(url: str, events: Sequence[Event], chance: random.Random) -> int:
    """Many workers apply all of them at once, each a few at a time; returns how many took effect or wait."""
    shares: list[list[Event]] = [[] for _ in range(WORKERS)]
    for one in events:
        chance.choice(shares).append(one)
    sizes = [chance.choice((1, 1, 2, 5)) for _ in range(WORKERS)]

    def one_worker(number: int) -> int:
        left, size, taken = shares[number], sizes[number], 0
        with closing(Session(url)) as session:
            while left:
                batch, left = left[:size], left[size:]
                verdicts = apply_events(session, batch, skip_locked=number % 2 == 0).verdicts
                left = [one for one, verdict in zip(batch, verdicts, strict=True) if verdict is Verdict.DEFERRED] + left
                taken += sum(verdict in (Verdict.APPLIED, Verdict.WAITING) for verdict in verdicts)
        return taken

    with ThreadPoolExecutor(WORKERS) as pool:
        return sum(pool.map(one_worker, range(WORKERS)))


def play_again(history: Connection[Any], session: Session) -> int:
    """Apply the facts of one ledger to an empty one, each by itself in the order of their numbers; returns how many."""
    rows = history.execute(HISTORY).fetchall()
    for fact, source, id, digest, traceparent, data in rows:
        one = stored_event(fact, source, id, digest, traceparent, data.encode())
        [verdict] = apply_events(session, [one]).verdicts
        assert verdict in (Verdict.APPLIED, Verdict.WAITING), (one, verdict)
    return len(rows)


def kept(connection: Connection[Any]) -> dict[str, list[tuple[Any, ...]]]:
    """All that a ledger keeps of its history, in no order but that of its values."""
    return {name: sorted(connection.execute(query.encode()).fetchall(), key=repr) for name, query in KEPT.items()}


def told(connection: Connection[Any]) -> dict[str, int]:
    """How often which refusal was told: that there was something to meet."""
    counts: dict[str, int] = {}
    for (body,) in connection.execute("SELECT body FROM outbox WHERE fact = 'placing'").fetchall():
        for coupon in json.loads(body)["data"]["coupons"]:
            if coupon["refusal"]:
                counts[coupon["refusal"]] = counts.get(coupon["refusal"], 0) + 1
    return counts
