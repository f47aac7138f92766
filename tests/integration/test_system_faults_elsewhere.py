"""Faults of the system beside the consumer: commands say one sentence, collector and relay pause, and sums outgrow a bigint.

What can be told apart is told apart: one row, one wallet or one letter that the database refuses costs nothing else.
"""

from __future__ import annotations

import json
import logging
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner

from incentive_fleet.brokers.aws import AWS
from incentive_fleet.brokers.messages import Ack, Arrival, Delivery, Message, Rejection, Retry
from incentive_fleet.cli.root import cli
from incentive_fleet.consumers.core import Core
from incentive_fleet.dead_letters.collector import _collect
from incentive_fleet.dead_letters.keeping import keep
from incentive_fleet.dead_letters.rehearsal import rehearse
from incentive_fleet.dead_letters.store import get_letters
from incentive_fleet.errors import DatabaseUnfit, FleetError, Refused, SchemaUnfit
from incentive_fleet.ledger.batch import Verdict
from incentive_fleet.ledger.campaign_reports import list_campaigns
from incentive_fleet.ledger.expiry import expire_lots
from incentive_fleet.ledger.grants import Grant, Granted, grant
from incentive_fleet.ledger.revision import NEWEST, OLDEST
from incentive_fleet.ledger.session import Session
from incentive_fleet.pausing import Pause
from incentive_fleet.producers.relay_loop import RelayPace, run_relay
from incentive_fleet.settings import Settings
from incentive_fleet.stopping import Stop
from tests.command import incentives
from tests.contract.brokers_under_test import eventually
from tests.dead_letter_world import arrival, cloud_event, order
from tests.domain import NOON, day, line, placed, terms
from tests.integration.test_system_faults import UNCHECKED, count, dropped, raising, revision, run
from tests.shop import balances, faults
from tests.small_world import apply, give, load

BIGINT_MAX = 2**63 - 1
RENAMED = ("ALTER TABLE outbox RENAME TO outbox_x", "ALTER TABLE outbox_x RENAME TO outbox")


@pytest.fixture
def session(session: Session) -> Session:
    load(session, terms("coupon", "k", code="K", amount=100, total=50), terms("grant", "gift"))
    load(session, terms("earn", "e", rate_bps=10_000))
    return session


COMMANDS = [
    ["anomalies"],
    ["campaigns", "list"],
    ["dlq", "list"],
    ["dlq", "show", "1"],
    ["dlq", "replay", "1", "--yes"],
    ["dlq", "discard", "1", "--yes", "--reason", "x"],
    ["expire", "--as-of", "2026-01-01T00:00:00Z"],
    ["grant", "--key=k", "--customer-id=c", "--currency=EUR", "--amount=1", "--campaign-id=gift"],
    ["grant", "reverse", "k", "--reason", "x"],
    ["ledger", "balances"],
    ["ledger", "verify"],
    ["order", "o"],
    ["waiting"],
    ["wallet", "ann"],
]
REVISIONS = {
    "0001": f"needs {OLDEST} at least: run `incentives db upgrade`",
    "9999": "newer than this release knows",
    "ae1027a6acf": "another program's",
}


@pytest.mark.parametrize("found", REVISIONS)
def test_every_command_says_in_one_sentence_that_the_revision_does_not_fit(
    found: str, session: Session, tmp_path: Path
) -> None:
    session.close()
    run(session.url, revision(found)[0])
    rows, events = tmp_path / "grants.csv", tmp_path / "events.jsonl"
    rows.write_text("key,customer_id,currency,amount,campaign_id,expires_at\nk,c,EUR,1,gift,\n")
    events.write_bytes(order() + b"\n")
    env = {"INCENTIVES_DATABASE_URL": session.url}
    for command in [*COMMANDS, ["grants", "load", str(rows)], ["backfill", str(events)]]:
        result = CliRunner().invoke(cli, command, env=env)
        assert isinstance(result.exception, SchemaUnfit), (command, result.output, result.exception)
        assert REVISIONS[found] in str(result.exception)
    upgraded = incentives("db", "upgrade", env=env)
    if found == "0001":
        run(session.url, revision(NEWEST)[0])
    else:
        assert upgraded.code == 2
        assert REVISIONS[found] in upgraded.err
        assert len(upgraded.err.strip().splitlines()) == 1
    assert count(session.url, "SELECT count(*) FROM facts") == 0


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_table_that_lacks_is_one_sentence_in_every_command(command: list[str], database_url: str) -> None:
    for table in (
        "facts",
        "campaigns",
        "wallets",
        "dead_letters",
        "lots",
        "anomalies",
        "waiting",
        "grants",
        "accounts",
    ):
        run(database_url, f"ALTER TABLE {table} RENAME TO {table}_x")
    result = CliRunner().invoke(cli, command, env={"INCENTIVES_DATABASE_URL": database_url})
    assert isinstance(result.exception, FleetError), (result.output, result.exception)
    assert "\n" not in str(result.exception)


class Queues:
    """Dead-letter queues in memory."""

    def __init__(self, arrivals: list[Arrival]) -> None:
        self.waiting, self.removed = arrivals, list[str]()

    def receive(self, most: int, wait_s: float) -> list[Arrival]:
        threading.Event().wait(0 if self.waiting else wait_s)
        taken, self.waiting = self.waiting[:most], self.waiting[most:]
        return taken

    def remove(self, arrivals: list[Arrival]) -> None:
        self.removed += [arrival.name for arrival in arrivals]

    def let_go(self, arrivals: list[Arrival]) -> None:
        pass

    def empty(self) -> bool:
        return not self.waiting

    def close(self) -> None:
        pass


@contextmanager
def collecting(url: str, queues: Queues, counts: Counter[str]) -> Iterator[None]:
    stop = Stop()
    settings = Settings(database_url=url, wait_s=0.02, pause_max_s=0.1)
    thread = threading.Thread(
        target=_collect, args=(AWS, queues, settings, Pause("collecting", settings.pause_max_s, stop), None, counts)
    )
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(30)
        assert not thread.is_alive()


LETTER_FAULTS = {
    "a column": (
        "ALTER TABLE dead_letters RENAME COLUMN detail TO d",
        "ALTER TABLE dead_letters RENAME COLUMN d TO detail",
    ),
    "an error on no list": (raising("XX000", "dead_letter_audit"), dropped("dead_letter_audit")),
    "at COMMIT": (raising("P0001", "dead_letters", constraint=True), dropped("dead_letters")),
    "a newer revision": revision("9998"),
}


@pytest.mark.parametrize("fault", LETTER_FAULTS)
def test_the_collector_pauses_for_the_system_and_keeps_every_letter_once(
    fault: str, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "incentive_fleet")
    strike, mend = LETTER_FAULTS[fault]
    queues = Queues([arrival(order(number), name=f"n{number}") for number in range(7)])
    counts: Counter[str] = Counter()
    run(database_url, strike)
    with collecting(database_url, queues, counts):
        eventually(lambda: "collecting paused" in caplog.messages)
        run(database_url, mend)
        eventually(lambda: len(queues.removed) == 7)
        eventually(lambda: "collecting resumed" in caplog.messages)
    assert counts == {"new": 7}
    states = [message for message in caplog.messages if message.startswith("collecting")]
    assert states == ["collecting paused", "collecting resumed"]
    assert "dead letter cannot be kept and stays where it is" not in caplog.messages
    assert count(database_url, "SELECT count(*) FROM dead_letters") == 7


def test_a_letter_that_cannot_be_kept_stays_alone_and_is_told_once(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    run(database_url, raising("22003", "dead_letters", which="NEW.order_id = 'o-3'"))
    culprit = arrival(order(3), name="n3")

    def told(times: int) -> bool:
        return caplog.messages.count("dead letter cannot be kept and stays where it is") == times

    queues = Queues([arrival(order(number), name=f"n{number}") for number in range(7)])
    with collecting(database_url, queues, Counter()):
        for tries in range(1, 4):
            eventually(partial(told, tries))
            queues.waiting = [*queues.waiting, culprit] if tries < 3 else []
    assert sorted(queues.removed) == [f"n{number}" for number in range(7) if number != 3]
    assert "collecting paused" not in caplog.messages
    assert sum(hasattr(record, "traceback") for record in caplog.records) == 1


class Sink:
    """A publisher that takes everything."""

    def __init__(self) -> None:
        self.ids: list[str | None] = []

    def check(self) -> None:
        pass

    def publish(self, messages: Sequence[Message]) -> list[Rejection]:
        self.ids += [message.id for message in messages]
        return []

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    "fault",
    [RENAMED, (raising("XX000", "outbox_unpublished", "DELETE").replace("NEW", "OLD"), dropped("outbox_unpublished"))],
    ids=["a table", "an error on no list"],
)
def test_the_relay_pauses_for_the_system_and_publishes_all_afterwards(
    fault: tuple[str, str], session: Session, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "incentive_fleet")
    apply(session, *(placed(f"o{number}") for number in range(5)))
    sink, stop = Sink(), Stop()
    run(session.url, fault[0])
    thread = threading.Thread(
        target=run_relay, args=(session.url, {"sns": sink}), kwargs={"stop": stop, "pace": RelayPace(pause_max_s=0.1)}
    )
    thread.start()
    try:
        eventually(lambda: "relay to sns paused" in caplog.messages)
        run(session.url, fault[1])
        eventually(lambda: count(session.url, "SELECT count(*) FROM outbox_unpublished WHERE destination = 'sns'") == 0)
        eventually(lambda: "relay to sns resumed" in caplog.messages)
    finally:
        stop.set()
        thread.join(30)
    assert len(set(sink.ids)) == 5
    assert [message for message in caplog.messages if "paused" in message] == ["relay to sns paused"]


@pytest.mark.parametrize(
    "fault", [RENAMED, (raising("XX000", "outbox"), dropped("outbox"))], ids=["a table", "no list"]
)
def test_a_backfill_stops_with_one_sentence_and_does_the_rest_when_it_is_run_again(
    fault: tuple[str, str], session: Session, tmp_path: Path
) -> None:
    events, rejects = tmp_path / "events.jsonl", tmp_path / "rejects.jsonl"
    events.write_bytes(b"".join(order(number) + b"\n" for number in range(20)))
    env = {"INCENTIVES_DATABASE_URL": session.url, "INCENTIVES_BATCH_SIZE": "5"}
    run(session.url, fault[0])
    stopped = incentives("backfill", events, "--rejects", rejects, env=env)
    assert stopped.code == 1
    assert "backfilling again is safe" in stopped.err
    assert "Traceback" not in stopped.err
    assert list(tmp_path.iterdir()) == [events], "half a list of rejects was left behind"
    run(session.url, fault[1])
    again = incentives("backfill", events, "--rejects", rejects, "--format", "json", env=env)
    assert again.document["applied"] == 20
    assert again.document["rejected"] == {}
    assert faults(session.url) == {}


def test_a_rehearsal_blames_no_letter_for_the_system(session: Session) -> None:
    with psycopg.connect(session.url, autocommit=True) as connection:
        keep(connection, [arrival(order(number), name=f"n{number}") for number in range(3)], NOON)
        letters = get_letters(connection, [1, 2, 3])
    run(session.url, raising("XX000", "outbox"))
    with pytest.raises(DatabaseUnfit, match="a made-up order fails as well"):
        rehearse(session, letters, None)
    run(session.url, dropped("outbox") + "; " + raising("XX000", "outbox", which="NEW.order_id = 'o-2'"))
    assert [effect.good for effect in rehearse(session, letters, None)] == [True, True, False]


def test_a_grant_that_no_wallet_can_hold_is_refused_alone(session: Session) -> None:
    rich = "INSERT INTO wallets (customer_id, currency, balance) VALUES ('rich', 'EUR', {})"
    run(session.url, rich.format(BIGINT_MAX - 5))
    grants = [
        Grant(f"g{number}", "rich" if number == 3 else f"c{number}", "EUR", 10, "gift", None) for number in range(7)
    ]
    results = grant(session, grants, NOON)
    assert [result for result in results if result is Granted.NEW] == [Granted.NEW] * 6
    refused = results[3]
    assert isinstance(refused, Refused)
    assert refused.reason == "cannot-be-booked"
    assert "bigint out of range" in refused.detail
    assert [one is Granted.ALREADY for one in grant(session, grants, NOON)] == [n != 3 for n in range(7)]


def test_a_wallet_that_cannot_be_swept_stays_alone(session: Session) -> None:
    for customer in ("ann", "bob", "cat"):
        give(session, f"g-{customer}", 100, customer_id=customer, expires_at=day(1))
    run(session.url, raising("XX000", "lots", "UPDATE", which="NEW.customer_id = 'bob'"))
    summary = expire_lots(session, day(9), timedelta(hours=24))
    assert (summary.wallets, summary.lots, summary.moved) == (2, 2, {"EUR": 200})
    assert [(one["customer_id"], "could not do it" in one["detail"]) for one in summary.refused] == [("bob", True)]
    run(session.url, dropped("lots"))
    assert expire_lots(session, day(9), timedelta(hours=24)).moved == {"EUR": 100}
    assert faults(session.url) == {}


def test_a_campaign_beyond_what_a_bigint_holds_serves_everybody_still(session: Session) -> None:
    """The account of a campaign is shared by all customers, and has no bound that a sender could reach."""
    booked = (
        "INSERT INTO transfers (kind, debit_account, credit_account, currency, amount, customer_id, order_id, cause, happened_at)"
        " SELECT 'coupon', 'campaign:k', 'order:x' || n, 'EUR', 9223372036854775807, 'c' || n, 'x' || n, 'placing', now()"
        " FROM generate_series(1, 3) AS n"
    )
    run(session.url, booked)
    verdicts = apply(session, *(placed(f"o{number}", coupons=["K"], customer=f"d{number}") for number in range(3)))
    assert verdicts == [Verdict.APPLIED] * 3
    assert balances(session.url)["campaign:k|EUR"] == 3 * BIGINT_MAX + 300
    [spent] = [row["net_spend"] for row in list_campaigns(session.connection) if row["campaign_id"] == "k"]
    assert spent == 3 * BIGINT_MAX + 300
    assert json.loads(json.dumps(spent)) == spent
    shown = incentives("ledger", "balances", "--format", "json", env={"INCENTIVES_DATABASE_URL": session.url})
    assert shown.document["campaign:k|EUR"] == spent
    assert {name for name in faults(session.url) if "balance" in name} == set(), "sums are sound"


def test_a_wallet_that_is_full_costs_its_own_event_alone(session: Session) -> None:
    """An earning that no wallet can hold: its delivery is the culprit, those of others vest, and balances stay sound."""
    apply(session, *(placed(f"o-{n}", line("a", 1, 1_000), customer=f"c{n}") for n in range(5)))
    run(session.url, f"UPDATE wallets SET balance = {BIGINT_MAX - 5} WHERE customer_id = 'c2'")
    arrived = {"delivery_id": "d", "delivered_at": "2026-02-01T00:00:00Z"}
    bodies = [cloud_event(f"d{n}", "delivery-completed.v1", {"order_id": f"o-{n}", **arrived}) for n in range(5)]
    core = Core(session, (1.0,), lambda: datetime.now(UTC))
    deliveries = [Delivery(body, "q", "memory", "", 1, None) for body in bodies]
    outcome_of = dict(core.process(deliveries, carries_failures=True))
    assert [type(outcome_of[delivery]) for delivery in deliveries] == [Ack, Ack, Retry, Ack, Ack]
    failed = outcome_of[deliveries[2]]
    assert isinstance(failed, Retry)
    assert failed.failure.error_class == "psycopg.errors.NumericValueOutOfRange"
    run(session.url, "UPDATE wallets SET balance = 0 WHERE customer_id = 'c2'")
    assert faults(session.url) == {}


def test_terms_are_read_anew_from_whatever_database_answers_next(session: Session) -> None:
    """A ledger restored from a backup, or made anew, may have other terms by a number that is known already."""
    apply(session, placed("o-1", coupons=["K"]))
    session.close()
    run(session.url, f"{UNCHECKED} terms = terms || '{{\"amount\": 70}}' WHERE campaign_id = 'k'")
    apply(session, placed("o-2", coupons=["K"]))
    assert [balances(session.url)[f"order:o-{n}|EUR"] for n in (1, 2)] == [100, 70]


def test_nothing_is_granted_or_expired_while_balances_would_stand_still(session: Session) -> None:
    give(session, "g", 100, customer_id="ann", expires_at=day(1))
    before = balances(session.url)
    run(session.url, "ALTER TABLE transfers DISABLE TRIGGER post_to_balances")
    for act in (
        lambda: give(session, "h", 5, customer_id="bob"),
        lambda: expire_lots(session, day(9), timedelta(hours=24)),
    ):
        with pytest.raises(SchemaUnfit, match="do not fire: post_to_balances on transfers"):
            act()
    run(session.url, "ALTER TABLE transfers ENABLE TRIGGER post_to_balances")
    assert balances(session.url) == before
    assert expire_lots(session, day(9), timedelta(hours=24)).moved == {"EUR": 100}
    assert faults(session.url) == {}
