"""A fault of the system is never blamed on the messages, and a poisoned message never on the system.

Each fault strikes a fleet that works, stays until consuming has paused, and is mended: every good event is applied once, none is
dead, none was counted, and the log says it in two lines. Poison of each kind beside good events costs nobody else anything.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from incentive_fleet.brokers.memory import MemoryBroker, MemoryTransport
from incentive_fleet.brokers.message_headers import DETAIL, FAILURE
from incentive_fleet.brokers.messages import Ack, Delivery, Retry
from incentive_fleet.consumers.consumer import Consumer
from incentive_fleet.consumers.core import Core
from incentive_fleet.embedded import sample_shop
from incentive_fleet.embedded.postgres import Postgres
from incentive_fleet.errors import DatabaseUnfit
from incentive_fleet.ledger.probe import probe
from incentive_fleet.ledger.revision import NEWEST
from incentive_fleet.ledger.session import Session
from incentive_fleet.logs import JsonLines
from incentive_fleet.stopping import Stop
from tests.contract.brokers_under_test import eventually
from tests.parts import fresh_database
from tests.shop import balances, calm_balances, faults, open_shop

SHOP = sample_shop.Shop(20, seed=7, refunds=0.4)
EVENTS = [body for _, body in sample_shop.events(SHOP)]
WARM = 5  # events before the fault
NAME = "incentives faulty"
POISON = "s-000011"  # an order of the shop that is nobody's duplicate
END_SESSIONS = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'incentives faulty'"
IMPATIENT = "-c statement_timeout=300"  # of 60,000 ms
UNCHECKED = "SET session_replication_role = replica; UPDATE campaign_versions SET"


def raising(state: str, table: str, when: str = "INSERT", which: str = "true", constraint: bool = False) -> str:
    """A trigger that refuses rows with an SQLSTATE of the test's choice; a constraint one does so at COMMIT."""
    kind, timing = ("CONSTRAINT", "AFTER") if constraint else ("", "BEFORE")
    deferred = "DEFERRABLE INITIALLY DEFERRED" if constraint else ""
    return f"""
        CREATE FUNCTION fail_{table}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF {which} THEN RAISE EXCEPTION 'could not do it' USING ERRCODE = '{state}'; END IF; RETURN NEW;
        END $$;
        CREATE {kind} TRIGGER fail {timing} {when} ON {table} {deferred} FOR EACH ROW EXECUTE FUNCTION fail_{table}()
    """


def sleeping(table: str, which: str = "true") -> str:
    return f"""
        CREATE FUNCTION fail_{table}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF {which} THEN PERFORM pg_sleep(5); END IF; RETURN NEW;
        END $$;
        CREATE TRIGGER fail BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION fail_{table}()
    """


def dropped(table: str) -> str:
    return f"DROP FUNCTION fail_{table} CASCADE"


def of_database(change: str) -> str:
    """ALTER DATABASE, for all sessions that come."""
    return f"DO $$ BEGIN EXECUTE format('ALTER DATABASE %I {change}', current_database()); END $$; {END_SESSIONS}"


def revision(found: str, at: str = NEWEST) -> tuple[str, str]:
    return (
        f"UPDATE alembic_version SET version_num = '{found}'; DELETE FROM schema_goes_on_with; {END_SESSIONS}",
        f"UPDATE alembic_version SET version_num = '{at}'",
    )


FAULTS: dict[str, tuple[str, str]] = (
    {
        "a grant revoked": ("REVOKE SELECT ON facts FROM incentives_app", "GRANT SELECT ON facts TO incentives_app"),
        "a grant revoked that few events need": (
            "REVOKE UPDATE (totals) ON orders FROM incentives_app",
            "GRANT UPDATE (totals) ON orders TO incentives_app",
        ),
        "a column renamed": (
            "ALTER TABLE decisions RENAME COLUMN decision TO choice",
            "ALTER TABLE decisions RENAME COLUMN choice TO decision",
        ),
        "a table renamed": ("ALTER TABLE outbox RENAME TO outbox_x", "ALTER TABLE outbox_x RENAME TO outbox"),
        "a schema renamed": ("ALTER SCHEMA public RENAME TO elsewhere", "ALTER SCHEMA elsewhere RENAME TO public"),
        "a function dropped": (
            "ALTER FUNCTION post_to_wallets RENAME TO x; ALTER TRIGGER mark ON outbox RENAME TO m;"
            " ALTER TABLE wallets RENAME COLUMN pending TO awaited",
            "ALTER TRIGGER m ON outbox RENAME TO mark; ALTER TABLE wallets RENAME COLUMN awaited TO pending",
        ),
        "a column of another type, which spoils prepared plans": (
            "ALTER TABLE wallets ALTER last_lot_no TYPE bigint",
            "SELECT 1",
        ),
        "an older revision": revision("0001"),
        "a newer revision": revision("9998"),
        "another program's revision": revision("ae1027a6acf"),
        "no revision": (
            f"ALTER TABLE alembic_version RENAME TO alembic_x; {END_SESSIONS}",
            "ALTER TABLE alembic_x RENAME TO alembic_version",
        ),
        "read-only": (of_database("SET default_transaction_read_only = on"), of_database("RESET ALL")),
        "rows hidden by a policy": (
            f"ALTER TABLE campaign_versions ENABLE ROW LEVEL SECURITY; {END_SESSIONS}",
            "ALTER TABLE campaign_versions DISABLE ROW LEVEL SECURITY",
        ),
        "a trigger disabled": (
            "ALTER TABLE transfers DISABLE TRIGGER post_to_wallets",
            "ALTER TABLE transfers ENABLE TRIGGER post_to_wallets",
        ),
        "a trigger gone": (
            "ALTER TRIGGER count_new ON redemptions RENAME TO x; ALTER TABLE redemptions DISABLE TRIGGER x",
            "ALTER TRIGGER x ON redemptions RENAME TO count_new; ALTER TABLE redemptions ENABLE TRIGGER count_new",
        ),
        "triggers off by a setting": (of_database("SET session_replication_role = replica"), of_database("RESET ALL")),
        "a key dropped": (
            "ALTER TABLE orders DROP CONSTRAINT orders_pkey CASCADE",
            "ALTER TABLE orders ADD CONSTRAINT orders_pkey PRIMARY KEY (order_id)",
        ),
        "the lock on a batch's terms is broken": (
            "ALTER TABLE campaign_revision RENAME COLUMN revision TO number",
            "ALTER TABLE campaign_revision RENAME COLUMN number TO revision",
        ),
        "terms that cannot be read": (
            f"{UNCHECKED} terms = terms - 'starts_at'; UPDATE campaign_revision SET revision = revision + 1",
            UNCHECKED + """ terms = terms || '{"starts_at": "2020-01-01T00:00:00+00:00"}'""",
        ),
    }
    | {
        f"every row refused with {state}": (raising(state, "outbox"), dropped("outbox"))
        for state in ("53100", "58030", "XX000", "P0001", "HV000", "0A000", "22003", "23514")
    }
    | {
        "every COMMIT refused": (raising("P0001", "facts", constraint=True), dropped("facts")),
        "every change of a lot refused": (raising("P0001", "lots", "UPDATE"), dropped("lots")),
        "every statement too slow": (sleeping("facts"), dropped("facts")),
    }
)


@dataclass
class Fleet:
    """One consumer on a broker in memory."""

    url: str
    options: str = ""  # of its sessions
    broker: MemoryBroker = field(default_factory=MemoryBroker)
    stop: Stop = field(default_factory=Stop)

    def __post_init__(self) -> None:
        self.core = Core(
            Session(make_conninfo(self.url, options=self.options), NAME),
            (0.01, 0.01),
            lambda: datetime.now(UTC),
            skip_locked=True,
        )
        self.consumer = Consumer("f", MemoryTransport(self.broker), self.core, 500, 0.05, 0.1, self.stop)

    def publish(self, bodies: list[bytes]) -> None:
        for body in bodies:
            self.broker.publish(body, json.loads(body)["type"])

    @contextmanager
    def running(self) -> Iterator[None]:
        thread = threading.Thread(target=self.consumer.run)
        thread.start()
        try:
            yield
        finally:
            self.stop.set()
            thread.join(30)
            assert not thread.is_alive()

    def idle(self) -> bool:
        return MemoryTransport(self.broker).idle()

    def dead(self) -> list[str]:
        return sorted(
            json.loads(letter.body)["subject"] for letters in self.broker.dead_letters.values() for letter in letters
        )


@pytest.fixture(scope="module")
def template(postgres: Postgres, database_template: str) -> Iterator[str]:
    with fresh_database(postgres, database_template) as url:
        open_shop(url, SHOP)
        yield name_of(url)


@pytest.fixture
def url(postgres: Postgres, template: str) -> Iterator[str]:
    """A ledger with the shop's campaigns and grants."""
    with fresh_database(postgres, template) as url:
        yield url


@pytest.fixture(scope="module")
def calm(postgres: Postgres, template: str) -> dict[str, int]:
    with fresh_database(postgres, template) as url:
        return calm_balances(url, EVENTS)


def name_of(url: str) -> str:
    return str(conninfo_to_dict(url)["dbname"])


def run(url: str, statements: str) -> None:
    with psycopg.connect(url, autocommit=True, options="-c default_transaction_read_only=off") as connection:
        connection.execute(statements.encode())


def count(url: str, query: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute(query.encode()).fetchone()
    assert row is not None
    return int(row[0])


def said(caplog: pytest.LogCaptureFixture, logger: str = "pausing") -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == f"incentive_fleet.{logger}"]


def endure(
    fleet: Fleet, caplog: pytest.LogCaptureFixture, strike: Callable[[], None], mend: Callable[[], None]
) -> None:
    """A fleet that works, a fault until it has paused and tried again, and its end."""
    caplog.set_level(logging.INFO, "incentive_fleet")
    with fleet.running():
        for body in EVENTS[:WARM]:  # batch by batch, so that statements are prepared
            fleet.publish([body])
            eventually(fleet.idle)
        strike()
        fleet.publish(EVENTS[WARM:])
        eventually(lambda: said(caplog), within_s=30)
        mend()
        eventually(fleet.idle, within_s=30)
        eventually(lambda: not fleet.consumer.pause.paused)


def assert_nothing_was_blamed(fleet: Fleet, calm: dict[str, int], caplog: pytest.LogCaptureFixture) -> None:
    assert fleet.dead() == []
    assert said(caplog) == ["consuming paused", "consuming resumed"]
    assert said(caplog, "consumers.core") == [], "an error was counted against a message"
    assert fleet.core.counts.keys() == {"applied"}, fleet.core.counts
    assert sum(fleet.core.counts.values()) == len(EVENTS), "applied more than once, or not at all"
    assert balances(fleet.url) == calm
    assert faults(fleet.url) == {}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_the_system_pauses_with_one_line_and_is_blamed_on_nobody(
    fault: str, url: str, calm: dict[str, int], caplog: pytest.LogCaptureFixture
) -> None:
    strike, mend = FAULTS[fault]
    fleet = Fleet(url, IMPATIENT if fault == "every statement too slow" else "")
    endure(fleet, caplog, lambda: run(url, strike), lambda: run(url, mend))
    assert_nothing_was_blamed(fleet, calm, caplog)
    assert sum(len(JsonLines().format(record)) for record in caplog.records) < 20_000


def test_a_prepared_statement_lost_behind_our_back_mends_itself(
    url: str, calm: dict[str, int], caplog: pytest.LogCaptureFixture
) -> None:
    fleet = Fleet(url)

    def deallocate() -> None:
        fleet.core.session.connection.pgconn.exec_(b"DEALLOCATE ALL")  # not through psycopg, which would take note

    endure(fleet, caplog, deallocate, lambda: None)
    assert_nothing_was_blamed(fleet, calm, caplog)


def test_a_database_that_is_renamed_away_is_waited_for(
    postgres: Postgres, url: str, calm: dict[str, int], caplog: pytest.LogCaptureFixture
) -> None:
    name = name_of(url)

    def rename(old: str, new: str) -> None:
        with psycopg.connect(postgres.url("postgres"), autocommit=True) as admin:
            admin.execute(f"ALTER DATABASE {old} ALLOW_CONNECTIONS false".encode())
            gone = "SELECT count(*) = 0 FROM pg_stat_activity WHERE datname = %s"
            while admin.execute(gone, (old,)).fetchone() != (True,):
                admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (old,))
                time.sleep(0.01)
            admin.execute(f"ALTER DATABASE {old} RENAME TO {new}".encode())
            admin.execute(f"ALTER DATABASE {new} ALLOW_CONNECTIONS true".encode())

    fleet = Fleet(url)
    endure(fleet, caplog, lambda: rename(name, f"{name}_x"), lambda: rename(f"{name}_x", name))
    assert_nothing_was_blamed(fleet, calm, caplog)


POISONS = {
    "a sum that no bigint holds": raising("22003", "facts", which=f"NEW.order_id = '{POISON}'"),
    "a constraint": raising("23514", "outbox", which=f"NEW.order_id = '{POISON}'"),
    "at COMMIT": raising("23503", "outbox", which=f"NEW.order_id = '{POISON}'", constraint=True),
    "an error on no list": raising("XX000", "decisions", which=f"NEW.order_id = '{POISON}'"),
    "a limit of the program": raising("54000", "facts", which=f"NEW.order_id = '{POISON}'"),
    "too slow": sleeping("facts", which=f"NEW.order_id = '{POISON}' AND NEW.fact = 'placing'"),
}


@pytest.mark.parametrize("poison", POISONS)
def test_poison_costs_its_culprit_alone(poison: str, url: str, caplog: pytest.LogCaptureFixture) -> None:
    run(url, POISONS[poison])
    caplog.set_level(logging.INFO, "incentive_fleet")
    fleet = Fleet(url, IMPATIENT if poison == "too slow" else "")
    fleet.publish(EVENTS)
    with fleet.running():
        eventually(fleet.idle, within_s=30)
    its_events = [body for body in EVENTS if json.loads(body)["subject"] == POISON]
    assert set(fleet.dead()) == {POISON}
    [letter, *_] = [letter for letters in fleet.broker.dead_letters.values() for letter in letters]
    reason, history = letter.headers[DETAIL], json.loads(letter.headers[FAILURE])
    assert "(after 3 attempts)" in reason
    assert history["attempts"] == 3
    assert history["error_class"] in reason
    assert said(caplog) == [], "one sender's poison paused everybody"
    good = len(EVENTS) - len(its_events)
    assert count(url, f"SELECT count(*) FROM facts WHERE order_id <> '{POISON}'") == good
    assert faults(url) == {}


def test_a_fault_and_a_poison_at_once_are_told_apart(url: str, caplog: pytest.LogCaptureFixture) -> None:
    run(url, raising("22003", "facts", which=f"NEW.order_id = '{POISON}'"))
    fleet = Fleet(url)
    endure(fleet, caplog, lambda: run(url, raising("XX000", "outbox")), lambda: run(url, dropped("outbox")))
    assert set(fleet.dead()) == {POISON}
    assert said(caplog) == ["consuming paused", "consuming resumed"]
    assert faults(url) == {}


def test_a_sender_of_many_poisons_pauses_nobody_and_fills_no_log(
    url: str, caplog: pytest.LogCaptureFixture, say: Callable[[str], None]
) -> None:
    run(url, raising("22003", "facts", which="NEW.source = '/poison'"))
    caplog.set_level(logging.INFO, "incentive_fleet")
    fleet = Fleet(url)
    placing = next(json.loads(body) for body in EVENTS if json.loads(body)["type"] == "order-placed.v1")
    poisons = [
        json.dumps(
            placing
            | {"id": f"x{number}", "source": "/poison", "subject": f"x-{number}"}
            | {"data": placing["data"] | {"order_id": f"x-{number}"}}
        ).encode()
        for number in range(120)
    ]
    fleet.publish([body for pair in zip(poisons, EVENTS, strict=False) for body in pair] + poisons[len(EVENTS) :])
    started = time.perf_counter()
    with fleet.running():
        eventually(fleet.idle, within_s=60)
    seconds = time.perf_counter() - started
    assert len(fleet.dead()) == 120
    assert said(caplog) == []
    ours = [record for record in caplog.records if record.name.startswith("incentive_fleet")]
    written = sum(len(JsonLines().format(record)) for record in ours)
    assert written < 100_000
    say(f"120 poisons, three attempts each: {seconds:.1f} s, {written:,} characters of log")


def test_a_failure_in_the_middle_loses_and_repeats_no_decision(url: str) -> None:
    """Counting one culprit fails after another was counted and the rest was committed."""
    run(url, raising("22003", "facts", which="NEW.source IN ('/a', '/b')"))
    run(url, raising("P0001", "attempts", which="NEW.message_id = 'm-b'"))
    placing = next(json.loads(body) for body in EVENTS if json.loads(body)["type"] == "order-placed.v1")

    def made(name: str) -> Delivery:
        document = placing | {
            "id": name,
            "source": f"/{name}",
            "subject": name,
            "data": placing["data"] | {"order_id": name},
        }
        return Delivery(json.dumps(document).encode(), "q", "sqs", f"m-{name}", 1, None)

    a, b, good = made("a"), made("b"), made("good")
    core = Core(Session(url), (1.0,), lambda: datetime.now(UTC))
    with pytest.raises(DatabaseUnfit):
        core.process([a, good, b], carries_failures=False)
    decided = dict(core.take_decided())
    assert isinstance(decided[good], Ack)
    assert isinstance(decided[a], Retry)
    assert b not in decided
    run(url, dropped("attempts"))
    [(delivery, outcome)] = core.process([], carries_failures=False)
    assert delivery is b
    assert isinstance(outcome, Retry)
    assert count(url, "SELECT sum(attempts) FROM attempts") == 2, "each was counted once"
    assert core.undecided() == []
    for one, fate in (*decided.items(), (delivery, outcome)):
        core.on_taken(one, fate)
    assert core.counts == {"applied": 1, "retry": 2}
    core.session.close()


def test_what_is_deferred_survives_a_failure_to_forget(url: str) -> None:
    placings = [body for body in EVENTS if json.loads(body)["type"] == "order-placed.v1"]
    busy = json.loads(placings[0])["data"]["customer_id"]
    theirs = [body for body in placings if json.loads(body)["data"]["customer_id"] == busy]
    others = [body for body in placings if body not in theirs]
    assert len(others) > len(theirs)
    given = [Delivery(body, "q", "sqs", f"m{number}", 2, None) for number, body in enumerate(theirs + others)]
    core = Core(Session(url), (1.0,), lambda: datetime.now(UTC), skip_locked=True)
    with psycopg.connect(url) as other:
        other.execute("SELECT FROM wallets WHERE customer_id = %s FOR NO KEY UPDATE", (busy,))
        run(url, "REVOKE DELETE ON attempts FROM incentives_app")
        with pytest.raises(DatabaseUnfit):
            core.process(given, carries_failures=False)
    assert [delivery.body for delivery, _ in core.deferred] == theirs
    first = core.take_decided()
    run(url, "GRANT DELETE ON attempts TO incentives_app")
    second = core.process([], carries_failures=False)
    assert sorted(d.message_id for d, _ in [*first, *second]) == sorted(d.message_id for d in given)
    assert core.counts == {"applied": len(given)}, "one was processed twice"
    core.session.close()


def test_the_probe_writes_wherever_a_batch_writes_and_leaves_nothing(url: str) -> None:
    tables = [
        "facts",
        "decisions",
        "waiting",
        "transfers",
        "lots",
        "redemptions",
        "outbox",
        "anomalies",
        "orders",
        "wallets",
        "balances",
    ]
    tables += ["redemption_counts", "outbox_unpublished"]
    dump = "SELECT coalesce(md5(string_agg(t::text, '|' ORDER BY t::text)), '') FROM {} t"
    with psycopg.connect(url, autocommit=True) as connection:
        before = [connection.execute(dump.format(table).encode()).fetchone() for table in tables]
    session = Session(url)
    probe(session)
    session.close()  # which hands in its statistics, those of what was rolled back included
    with psycopg.connect(url, autocommit=True) as connection:
        assert [connection.execute(dump.format(table).encode()).fetchone() for table in tables] == before
    written = {
        "INSERT": {*tables},
        "UPDATE": {"orders", "lots", "redemptions", "wallets", "balances"},
        "DELETE": {"waiting"},
    }
    for act, expected in written.items():
        for table in sorted(expected):
            run(
                url,
                raising("P0001", table, act).replace("RETURN NEW", "RETURN OLD" if act == "DELETE" else "RETURN NEW"),
            )
            with pytest.raises(psycopg.errors.RaiseException):
                probe(session)
            run(url, dropped(table))
    probe(session)
    session.close()


def test_probes_and_batches_wait_for_nobody(url: str) -> None:
    """Whoever holds the whole shop's wallets, orders and campaigns does not hold up a probe."""
    session = Session(url)
    with psycopg.connect(url) as other:
        other.execute("SELECT FROM wallets FOR UPDATE")
        other.execute("SELECT FROM orders FOR UPDATE")
        other.execute("SELECT FROM campaigns FOR UPDATE")
        session.connection.execute("SET lock_timeout = '200ms'")
        probe(session)
    session.close()
