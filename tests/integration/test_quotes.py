"""Quotes: decided as the placing is, read without a lock or a write, and answered over the queues whatever comes."""

from __future__ import annotations

import json
import random
import threading
from collections import deque
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from incentive_fleet.brokers.memory import MemoryBroker, MemoryTransport
from incentive_fleet.brokers.memory_replies import MemoryReplies
from incentive_fleet.brokers.rabbitmq import RABBITMQ
from incentive_fleet.consumers import answering
from incentive_fleet.consumers.admission import admission_of
from incentive_fleet.consumers.answering import Answering
from incentive_fleet.consumers.consumer import Consumer
from incentive_fleet.consumers.worker import QUESTIONS, open_answerer
from incentive_fleet.errors import DatabaseUnavailable
from incentive_fleet.events.codec import decode_quote, encode_event
from incentive_fleet.events.quotes import validate_quoted
from incentive_fleet.incentives import placing
from incentive_fleet.ledger import quoting
from incentive_fleet.ledger.audiences import add_members
from incentive_fleet.ledger.codes import PoolRow, load_codes
from incentive_fleet.ledger.connection import connect
from incentive_fleet.ledger.holds import hold, release
from incentive_fleet.ledger.quoting import quote, quotes
from incentive_fleet.ledger.session import READ_ONLY, Session
from incentive_fleet.ledger.terms import TERMS_LOCK
from incentive_fleet.reply_addresses import read_reply_addresses
from incentive_fleet.settings import Settings
from incentive_fleet.stopping import Stop
from tests.domain import NOON, asked, day, delivered, event, line, placed, refunded, terms
from tests.quoting import as_quoted, request_body
from tests.small_world import apply, give, load

TYPE = "incentives-quote-requested.v1"
WORLD = (
    terms("coupon", "few", code="FEW", amount=120, total=6, per_customer=2, stacking="stackable"),
    terms("coupon", "spent", code="SPENT", rate_bps=2_500, budget=900, stacking="stackable"),
    terms("coupon", "alone", code="ALONE", rate_bps=1_000, min_subtotal=800),
    terms("coupon", "pool", codes="pool", amount=150, per_customer=1, stacking="stackable"),
    terms("coupon", "hello", auto=True, rate_bps=500, first_orders=1, stacking="stackable"),
    terms("coupon", "club", auto=True, amount=25, audience="club", stacking="stackable"),
    terms("earn", "back", rate_bps=800, budget=700, valid_days=30),
    terms("grant", "gift"),
)
CUSTOMERS = ("ann", "bob", "eve")
CODES = ("few", "SPENT", "ALONE", "P-1", "p-2", "P-3", "NOPE")


def grow(session: Session) -> None:
    load(session, *WORLD)
    rows = [PoolRow(2, "pool", "P-1", None, None), PoolRow(3, "pool", "P-2", "bob", None)]
    load_codes(session.connection, [*rows, PoolRow(4, "pool", "P-3", None, day(3))])
    add_members(session.connection, [("club", "eve")])
    for number, customer in enumerate(CUSTOMERS):
        give(session, f"g{number}", 400, customer_id=customer, expires_at=day(4) if number == 1 else None)


@pytest.mark.parametrize("seed", range(3))
def test_a_quote_and_then_its_placing_decide_alike_in_worlds_that_nobody_thought_of(
    seed: int, session: Session
) -> None:
    grow(session)
    chance = random.Random(seed)
    compared = refused = 0
    for number in range(40):
        customer, when = chance.choice(CUSTOMERS), day(chance.uniform(0, 6))
        lines = [
            line(str(n), chance.randint(1, 3), chance.randint(0, 900), kind=chance.choice((None, None, "fee")))
            for n in range(chance.randint(1, 4))
        ]
        coupons = chance.sample(CODES, chance.randint(0, 4))
        one = placed(
            f"o{number}", *lines, customer=customer, at=when, coupons=coupons, credit=chance.choice((0, 90, 10**6))
        )
        for _, said, given in as_quoted(session, [event(one)]):
            assert said == given
            compared += 1
            refused += any(coupon["refusal"] for coupon in given["coupons"])
        if chance.random() < 0.3:
            apply(session, delivered(f"o{number}", at=day(7)))
        elif chance.random() < 0.3:
            apply(session, refunded(f"r{number}", order=f"o{number}", at=day(7)))
        if number == 20:
            hold(session.connection, "ann", "fraud")
        if number == 30:
            release(session.connection, "ann", "settled")
    assert compared == 40
    assert refused > 5


def test_a_batch_is_answered_as_each_alone_and_by_as_many_statements(session: Session) -> None:
    grow(session)
    requests = [
        decode_quote(request_body(f"q{n}", customer_id=customer, coupons=["FEW", "P-1"], credit_requested=250))[0]
        for n, customer in enumerate((*CUSTOMERS, "ann", "ann", "nobody"))
    ]

    def counted(asked_together: int) -> tuple[list[dict[str, Any]], int]:
        sent = 0
        execute = session.connection.execute

        def count(*arguments: Any, **options: Any) -> Any:
            nonlocal sent
            sent += 1
            return execute(*arguments, **options)

        session.connection.execute = count  # type: ignore[method-assign]
        try:
            return quotes(session, requests[:asked_together]), sent
        finally:
            session.connection.execute = execute  # type: ignore[method-assign]

    quotes(session, requests)  # the terms are in memory now
    together, statements = counted(len(requests))
    assert counted(1)[1] == statements
    alone = [quote(session, request) for request in requests]
    assert [{**one, "as_of": ""} for one in together] == [{**one, "as_of": ""} for one in alone]
    assert [one["credit"]["applied"] for one in together] == [250, 250, 250, 250, 250, 0]


def test_a_quote_takes_no_lock_waits_for_none_and_cannot_write(session: Session, database_url: str) -> None:
    grow(session)
    request = decode_quote(request_body(coupons=["FEW", "P-1", "SPENT"], credit_requested=10))[0]
    seen: list[Any] = []
    with closing(Session(database_url, settings=READ_ONLY)) as reading, closing(connect(database_url)) as other:
        quote(reading, request)
        execute = reading.connection.execute

        def looking(statement: Any, *arguments: Any, **options: Any) -> Any:
            if statement == quoting.END:
                where = "WHERE pid = pg_backend_pid() AND locktype <> 'virtualxid'"
                seen.append(execute(f"SELECT locktype, mode FROM pg_locks {where}"))
                seen.append(
                    execute("SELECT pg_current_xact_id_if_assigned(), current_setting('transaction_read_only')")
                )
            return execute(statement, *arguments, **options)

        with other.transaction():
            for table in ("orders", "wallets", "campaigns", "codes"):
                other.execute(f"SELECT FROM {table} FOR UPDATE".encode())
            other.execute("SELECT pg_advisory_xact_lock(%s)", (TERMS_LOCK,))
            reading.connection.execute = looking  # type: ignore[method-assign,assignment]
            try:
                reading.connection.execute("SET statement_timeout = '5s'")
                assert quote(reading, request)["credit"]["applied"] == 10
            finally:
                reading.connection.execute = execute  # type: ignore[method-assign]
        locks, (state,) = seen[0].fetchall(), seen[1].fetchall()
        assert set(locks) == {("relation", "AccessShareLock")}
        assert state == (None, "on")
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            reading.connection.execute("INSERT INTO orders (order_id) VALUES ('x')")


class Checkout:
    """Asks in the process, and is answered there by the code that answers over real queues."""

    def __init__(self, url: str) -> None:
        self.broker = MemoryBroker()
        self.transport = MemoryTransport(self.broker)
        self.replies = MemoryReplies(self.broker)
        self.replies.queues = {"checkout": deque(), "order-placed": deque()}
        addresses = read_reply_addresses("checkout, gone, order-*", ["order-placed"])
        self.answering = Answering(Session(url, settings=READ_ONLY), self.replies, addresses)

    def ask(
        self, body: bytes, reply_to: str | None = "checkout", lives_s: float | None = None, number: int = 1
    ) -> None:
        headers = {"correlation_id": f"c{number}"} | ({"reply_to": reply_to} if reply_to is not None else {})
        if lives_s is not None:
            headers["expires_at"] = (datetime.now(UTC) + timedelta(seconds=lives_s)).isoformat()
        self.broker.publish(body, TYPE, headers=headers)

    def answer(self) -> None:
        """Everything that was asked, as the fleet's own consumer does it."""
        Consumer("test", self.transport, self.answering, 50, 0.1, 0.1, Stop()).run(until_idle_s=0.01)
        self.transport._closed = False

    def answers(self) -> dict[str, dict[str, Any]]:
        """By correlation id."""
        queue = self.replies.queues["checkout"]
        return {
            correlation: json.loads(message.body)
            for correlation, message in (queue.popleft() for _ in range(len(queue)))
        }

    def letters(self) -> list[str]:
        found = self.broker.dead_letters["quote-requested"]
        return [found.popleft().headers["fleet-reason"] for _ in range(len(found))]

    def counted(self) -> dict[str, int]:
        counts, self.answering.counts = dict(self.answering.counts), type(self.answering.counts)()
        return counts


@pytest.fixture
def checkout(session: Session, database_url: str) -> Checkout:
    grow(session)
    return Checkout(database_url)


FACT = encode_event("/shop", "f", asked("k", 1), NOON)


def test_what_arrives_is_answered_told_its_fault_dropped_or_buried_as_the_rules_say(checkout: Checkout) -> None:
    good, bad = request_body(coupons=["FEW"]), request_body(currency="XXX")
    for body, reply_to, lives_s, result, counted, letters in (
        (good, "checkout", None, "quote", {"answered": 1}, []),
        (good, "checkout", 60, "quote", {"answered": 1}, []),
        (good, "checkout", -1, None, {"quote-expired": 1}, []),
        (bad, "checkout", -1, None, {"quote-expired": 1}, []),
        (bad, "checkout", None, {"error": "unknown-currency"}, {"malformed": 1}, []),
        (b"\xff", "checkout", None, {"error": "not-utf8"}, {"malformed": 1}, []),
        (bad, None, None, None, {"dead-letter:malformed": 1}, ["malformed"]),
        (bad, "elsewhere", None, None, {"dead-letter:malformed": 1}, ["malformed"]),
        (good, None, None, None, {"dead-letter:no-reply-address": 1}, ["no-reply-address"]),
        (good, "elsewhere", None, None, {"dead-letter:reply-not-allowed": 1}, ["reply-not-allowed"]),
        (good, "order-placed", None, None, {"dead-letter:reply-not-allowed": 1}, ["reply-not-allowed"]),
        (good, "gone", None, None, {"reply-unroutable": 1}, []),
        (bad, "gone", None, None, {"reply-unroutable": 1}, []),
        (FACT, "checkout", None, None, {"dead-letter:wrong-queue": 1}, ["wrong-queue"]),
        (FACT, "checkout", -1, None, {"dead-letter:wrong-queue": 1}, ["wrong-queue"]),
    ):
        checkout.ask(body, reply_to, lives_s)
        checkout.answer()
        answers = checkout.answers()
        if result == "quote":
            assert validate_quoted(json.dumps(answers["c1"]).encode()).coupons[0].discount == 120
        else:
            assert answers == ({} if result is None else {"c1": result})
        assert checkout.counted() == counted, body
        assert checkout.letters() == letters
    assert checkout.transport.idle()


def test_a_source_that_the_settings_do_not_allow_is_told_so_and_nothing_of_the_customer(checkout: Checkout) -> None:
    for allowed, answered in (
        ("/shop", True),
        ("/elsewhere", False),
        ("quote-requested=/elsewhere", False),
        ("*", True),
    ):
        checkout.answering.admission = admission_of(Settings(allowed_sources=allowed))
        for reply_to in ("checkout", "elsewhere"):
            checkout.ask(request_body(source="/shop"), reply_to)
            checkout.answer()
        answers = checkout.answers()
        assert ("data" in answers["c1"]) if answered else answers == {"c1": {"error": "source-not-allowed"}}
        assert checkout.letters() == ["reply-not-allowed" if answered else "malformed"]


def test_the_same_request_is_answered_again_from_the_state_of_then(checkout: Checkout, session: Session) -> None:
    body = request_body(coupons=["few"], credit_requested=100)
    checkout.ask(body)
    checkout.answer()
    first = checkout.answers()["c1"]
    apply(session, placed("o1", coupons=["FEW"], credit=350))
    checkout.ask(body)
    checkout.answer()
    second = checkout.answers()["c1"]
    assert (first["subject"], first["data"]["wallet_balance"], first["data"]["credit"]["applied"]) == ("q1", 400, 100)
    assert (second["subject"], second["data"]["wallet_balance"], second["data"]["credit"]["applied"]) == ("q1", 50, 50)
    assert first["id"] != second["id"]


def test_one_poisonous_request_is_told_and_buried_and_the_others_are_answered(
    checkout: Checkout, monkeypatch: pytest.MonkeyPatch
) -> None:
    decide = placing.place

    def fragile(order: Any, *arguments: Any) -> Any:
        if order.order_id == "q3":
            raise ZeroDivisionError("a bug of ours")
        return decide(order, *arguments)

    monkeypatch.setattr(quoting, "place", fragile)
    for number in range(6):
        checkout.ask(request_body(f"q{number}"), number=number)
    checkout.answer()
    answers = checkout.answers()
    assert answers.pop("c3") == {"error": "unexpected-error"}
    assert {answer["subject"] for answer in answers.values()} == {"q0", "q1", "q2", "q4", "q5"}
    assert checkout.letters() == ["unexpected-error"]
    assert checkout.counted() == {"answered": 5, "unexpected-error": 1, "dead-letter:unexpected-error": 1}


def test_while_the_database_is_away_nothing_is_buried_and_what_expired_is_not_answered(
    checkout: Checkout, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = threading.Event()
    away.set()
    ask = quotes
    now = [datetime.now(UTC).timestamp()]

    def quotes_or_not(*arguments: Any) -> Any:
        if away.is_set():
            now[0] += 5  # so long it takes
            away.clear()
            raise DatabaseUnavailable("it is away")
        return ask(*arguments)

    monkeypatch.setattr(answering, "quotes", quotes_or_not)
    checkout.answering.clock = lambda: now[0]
    checkout.ask(request_body("short"), lives_s=3, number=1)
    checkout.ask(request_body("long"), lives_s=60, number=2)
    checkout.answer()
    assert {name: answer["subject"] for name, answer in checkout.answers().items()} == {"c2": "long"}
    assert checkout.counted() == {"answered": 1, "quote-expired": 1}
    assert checkout.letters() == []


def test_what_is_not_answered_at_a_stop_is_given_back(checkout: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    stop = Stop()

    def never(*arguments: Any) -> Any:
        stop.set()
        raise DatabaseUnavailable("it is away")

    monkeypatch.setattr(answering, "quotes", never)
    checkout.ask(request_body())
    Consumer("test", checkout.transport, checkout.answering, 50, 0.1, 0.1, stop).run()
    assert not checkout.transport.idle()
    assert (checkout.answers(), checkout.letters()) == ({}, [])


def test_a_reply_that_would_be_too_large_goes_without_its_lines(session: Session) -> None:
    load(session, terms("grant", "gift"))
    lines = [line("ü" * 190 + str(number)) for number in range(1_000)]
    data = quote(session, decode_quote(request_body(lines=lines))[0])
    assert len(data["lines"]) == 1_000
    sent: Any = quoting.reply(data)
    assert (sent["data"]["lines"], sent["data"]["quote_id"]) == (None, "q1")


def test_a_replica_answers_where_there_is_one_and_few_are_held_at_a_time() -> None:
    ledger, replica = "postgresql://ledger/x", "postgresql://replica/x"
    for read, wanted in ((None, ledger), (replica, replica)):
        settings = Settings(database_url=ledger, read_database_url=read, rabbitmq_url="amqp://h")
        consumer = open_answerer(RABBITMQ, settings, Stop())
        assert consumer.core.session.url == wanted
        assert consumer.core.session.settings == {"default_transaction_read_only": "on"}
        assert consumer.batch_size == QUESTIONS
        consumer.core.close()
