"""A ledger that is brought back: from a dump taken while events came in, and to a moment of the past by base backup and log.

The brokers know nothing of either. What they still hold that the ledger has again is a duplicate; what the ledger had and
has no longer is published again. Both are safe, in any order, and the books end as if nothing had happened.
"""

from __future__ import annotations

import json
import re
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import errors as pg

from incentive_fleet.brokers.rabbitmq import RABBITMQ
from incentive_fleet.brokers.registry import open_outcomes
from incentive_fleet.consumers.worker import run_worker
from incentive_fleet.dead_letters import changes, store
from incentive_fleet.dead_letters.audit import Attribution
from incentive_fleet.dead_letters.collector import run_collector
from incentive_fleet.embedded import postgres_release, sample_shop
from incentive_fleet.events.codec import decode
from incentive_fleet.events.models import TYPES
from incentive_fleet.ledger.batch import Verdict, apply_events
from incentive_fleet.ledger.connection import connect
from incentive_fleet.ledger.finalizing import finalize_as_placed
from incentive_fleet.ledger.migrate import upgrade
from incentive_fleet.ledger.session import Session
from incentive_fleet.names import outcomes_exchange
from incentive_fleet.producers.relay_loop import RelayPace, run_relay
from incentive_fleet.settings import Settings
from incentive_fleet.stopping import Stop
from tests.archived_postgres import Server, restored
from tests.brokers_and_workers import Brokers, environment_of, settings_of
from tests.command import incentives
from tests.domain import NOON, asked, cancelled, delivered, estimated, finalized, line, placed, refunded, terms
from tests.parts import ROOT
from tests.shop import balances, calm_balances, faults, open_shop
from tests.small_world import apply, load

SHOP = sample_shop.Shop(300, seed=41, refunds=0.4, groceries=0.3)
EVENTS = [body for _, body in sample_shop.events(SHOP)]
CONFLICT = next(body for reason, _, body in sample_shop.poison(SHOP) if reason == "conflict")
NOT_JSON = next(body for reason, _, body in sample_shop.poison(SHOP) if reason == "not-json")
DEBIAN = Path("/usr/lib/postgresql/15/bin")
IDLE_S = 0.3
NO_AWS = {"AWS_REGION": "", "AWS_DEFAULT_REGION": ""}
LOGINS = """
    CREATE ROLE incentives_owner LOGIN CREATEROLE;
    CREATE ROLE incentives LOGIN
"""
DATABASE = """
    CREATE DATABASE incentives OWNER incentives_owner ENCODING 'UTF8' TEMPLATE template0;
    REVOKE ALL ON DATABASE incentives FROM PUBLIC;
    GRANT CONNECT ON DATABASE incentives TO incentives
"""
# What protects the ledger, as the catalogue tells it: owners, grants, triggers, constraints, functions that run as the owner.
PROTECTION = {
    "database": "SELECT datdba::regrole::text, datacl::text FROM pg_database WHERE datname = current_database()",
    "owners": "SELECT relname, relowner::regrole::text, relacl::text FROM pg_class WHERE relnamespace = 'public'::regnamespace",
    "columns": """SELECT attrelid::regclass::text, attname, attacl::text FROM pg_attribute
        WHERE attacl IS NOT NULL AND attrelid IN (SELECT oid FROM pg_class WHERE relnamespace = 'public'::regnamespace)""",
    "triggers": "SELECT pg_get_triggerdef(oid), tgenabled::text FROM pg_trigger WHERE NOT tgisinternal",
    "constraints": """SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint
        WHERE connamespace = 'public'::regnamespace""",
    "functions": """SELECT proname, prosecdef, proconfig::text, proowner::regrole::text FROM pg_proc
        WHERE pronamespace = 'public'::regnamespace""",
}


@pytest.fixture(scope="module", params=["embedded", pytest.param("15", marks=pytest.mark.deploy)])
def programs(request: pytest.FixtureRequest) -> Path:
    """Postgres 18 of the wheel, and the distribution's 15."""
    if request.param == "embedded":
        return postgres_release.binaries()
    if not (DEBIAN / "initdb").exists():
        pytest.skip("this machine has no Postgres 15 of its distribution")
    return DEBIAN


@pytest.fixture(scope="module")
def server(programs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("archived")
    made = Server(programs, folder, folder / "archive").make()
    try:
        yield made.start()
    finally:
        made.remove()


def one(url: str, query: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute(query.encode()).fetchone()
    assert row is not None
    return int(row[0])


def stored(url: str) -> int:
    return one(url, "SELECT count(*) FROM facts")


def execute(url: str, *statements: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def protection(url: str) -> dict[str, set[Any]]:
    with psycopg.connect(url) as connection:
        return {name: set(connection.execute(query.encode()).fetchall()) for name, query in PROTECTION.items()}


def statement_of_the_page() -> str:
    """What tells the facts of a ledger as events again."""
    page = (ROOT / "docs/deploy/restore.md").read_text(encoding="utf-8")
    [statement] = [block for block in re.findall(r"```sql\n(.*?)```", page, re.DOTALL) if "FROM facts" in block]
    return str(statement)


@contextmanager
def topology(rabbitmq_url: str, **values: Any) -> Iterator[tuple[Settings, Brokers]]:
    settings = settings_of(f"t{uuid.uuid4().hex[:8]}", rabbitmq_url=rabbitmq_url, aws_region=None, **values)
    brokers = Brokers(settings)
    brokers.apply()
    try:
        yield settings, brokers
    finally:
        brokers.close()


def serve(settings: Settings) -> Counter[str]:
    """Fleet, collector and relay until nothing is left; what the fleet did, by kind."""
    done = run_worker([RABBITMQ], settings, IDLE_S, Stop())
    run_collector([RABBITMQ], settings, Stop(), IDLE_S)
    with closing(open_outcomes(settings, RABBITMQ)) as publisher:
        pace = RelayPace(until_idle_s=0.1)
        run_relay(settings.need_database_url(), {"rabbitmq": publisher}, stop=Stop(), pace=pace)
    return done


def write(path: Path, bodies: list[bytes]) -> Path:
    path.write_bytes(b"".join(body + b"\n" for body in bodies))
    return path


# ── A dump ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def elsewhere(programs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that knows nothing of the first, not even its roles."""
    folder = tmp_path_factory.mktemp("elsewhere")
    made = Server(programs, folder, folder / "archive").make()
    try:
        yield made.start()
    finally:
        made.remove()


def test_a_dump_taken_while_events_come_in_is_a_whole_ledger_elsewhere(
    server: Server, elsewhere: Server, rabbitmq: Any, database_url: str, tmp_path: Path
) -> None:
    execute(server.url(), *LOGINS.split(";"), *DATABASE.split(";"))
    url, copy_url = server.url("incentives", "incentives"), elsewhere.url("incentives", "incentives")
    upgrade(server.url("incentives", "incentives_owner"), url)
    for empty in (url, database_url):
        open_shop(empty, SHOP)
    with topology(rabbitmq.url, database_url=url, batch_size=20, prefetch=40) as (settings, brokers):
        stop = Stop()
        worker = threading.Thread(target=run_worker, args=([RABBITMQ], settings, None, stop))
        worker.start()
        brokers.publish("rabbitmq", EVENTS[:400])
        dump, roles = server.folder / "ledger.dump", write(tmp_path / "roles.sql", [])
        server.run(
            "pg_dump",
            "-h",
            server.sockets,
            "-U",
            "postgres",
            "--format=custom",
            "-f",
            server.data / "dump",
            "incentives",
        )
        brokers.publish("rabbitmq", EVENTS[400:])
        roles.write_text(
            server.run("pg_dumpall", "-h", server.sockets, "-U", "postgres", "--roles-only", "--no-role-passwords")
        )
        (server.data / "dump").rename(dump)
        stop.set()
        worker.join(60)
        assert not worker.is_alive()
        psql(elsewhere, "\n".join(line for line in roles.read_text().splitlines() if "ROLE postgres" not in line))
        here = ("-h", elsewhere.sockets, "-U", "postgres", "-d", "postgres", "--exit-on-error", "--create", dump)
        elsewhere.run("pg_restore", *here)
        elsewhere.run("pg_restore", "--clean", "--if-exists", *here)  # over what is there, as on the page of Docker

        assert 0 <= stored(elsewhere.url("incentives")) <= len(EVENTS)
        assert protection(elsewhere.url("incentives")) == protection(server.url("incentives"))
        assert faults(copy_url) == {}
        examined = incentives(
            "doctor", "--format", "json", env={"INCENTIVES_DATABASE_URL": copy_url, **NO_AWS}
        ).document
        found = {one["code"]: one["severity"] for one in examined["findings"]}
        assert {
            found[code] for code in ("postgres-login", "postgres-privileges", "postgres-schema", "postgres-triggers")
        } == {"ok"}
        with closing(connect(copy_url)) as application, pytest.raises(pg.InsufficientPrivilege):
            application.execute("UPDATE transfers SET amount = amount + 1")
        with psycopg.connect(elsewhere.url("incentives")) as superuser, pytest.raises(pg.RestrictViolation):
            superuser.execute("DELETE FROM transfers")
        upgrade(
            elsewhere.url("incentives", "incentives_owner"), copy_url
        )  # finds nothing to do, and everything in order

        moved = settings.model_copy(update={"database_url": copy_url})
        brokers.publish("rabbitmq", EVENTS)  # what came after the dump, and all before it once more
        serve(moved)
    assert stored(copy_url) == len(EVENTS)
    assert faults(copy_url) == {}
    assert balances(copy_url) == calm_balances(database_url, EVENTS)


def psql(server: Server, script: str) -> None:
    with psycopg.connect(server.url(), autocommit=True) as connection:
        for statement in re.split(r";\s*\n", script):
            lines = [line for line in statement.splitlines() if line and not line.startswith(("--", "\\"))]
            if lines:
                connection.execute("\n".join(lines).encode())


# ── A moment of the past ─────────────────────────────────────────────────────────────────────────────────────────────

EARLY, BEFORE, GAP, AHEAD = EVENTS[:150], EVENTS[150:300], EVENTS[300:450], EVENTS[450:]
REPEATED = BEFORE[-60:]  # published again with the gap, because nobody knows its beginning to the second


@dataclass(frozen=True, slots=True)
class Disaster:
    """A ledger that is gone, and what is left: a base backup, an archive, and the world's memory of what was published."""

    server: Server
    backup: Path
    moment: datetime
    outcomes: dict[str, Any]  # published before, by id
    letter: int  # open at the moment, discarded after it


@pytest.fixture(scope="module")
def disaster(server: Server, rabbitmq: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Disaster]:
    execute(server.url(), "CREATE DATABASE shop")
    url = server.url("shop")
    upgrade(url)
    open_shop(url, SHOP)
    with topology(rabbitmq.url, database_url=url) as (settings, brokers), reader(brokers) as read:
        brokers.publish("rabbitmq", EARLY)
        brokers.publish("rabbitmq", [NOT_JSON], "order-placed.v1")
        serve(settings)
        backup = server.base_backup(tmp_path_factory.mktemp("backups") / "base")
        brokers.publish("rabbitmq", BEFORE)
        serve(settings)
        with closing(connect(url)) as connection:
            row = connection.execute("SELECT clock_timestamp()").fetchone()
            assert row is not None
            [letter] = store.list_letters(connection, store.Filters(), limit=10)
        brokers.publish("rabbitmq", [*GAP, CONFLICT])
        serve(settings)
        with closing(connect(url)) as connection:
            assert store.count_letters(connection, store.Filters()) == 2
            by = Attribution("ann", datetime.now(UTC), "nobody needs it")
            changes.discard(connection, [letter.id], by)
        outcomes = read()
        assert len(outcomes) == one(url, "SELECT count(*) FROM outbox")
        server.archive_all()
        server.kill()
        yield Disaster(server, backup, row[0], outcomes, letter.id)
        server.start()


@contextmanager
def reader(brokers: Brokers) -> Iterator[Callable[[], dict[str, Any]]]:
    """A queue of somebody who reads outcomes; gives what came since it was asked last, the last of each id."""
    name = f"{brokers.settings.prefix}.reader"
    with brokers.channel() as channel:
        channel.queue_declare(name, durable=True)
        channel.queue_bind(name, outcomes_exchange(brokers.settings.prefix), "#")

    def read() -> dict[str, Any]:
        found = {}
        with brokers.channel() as channel:
            while (got := channel.basic_get(name, auto_ack=True))[0] is not None:
                outcome = json.loads(got[2])
                found[outcome["id"]] = outcome["data"]
        return found

    yield read
    with brokers.channel() as channel:
        channel.queue_delete(name)


def letters(url: str) -> Counter[tuple[str, str]]:
    with closing(connect(url)) as connection:
        return Counter((one.reason, one.status) for one in store.list_letters(connection, store.Filters(), limit=10))


def differing(before: dict[str, Any], after: dict[str, Any]) -> Counter[str]:
    """In how many outcomes that were published twice each member differs."""
    both = before.keys() & after.keys()
    return Counter(name for id_ in both for name in before[id_] if before[id_][name] != after[id_][name])


def test_the_fleet_goes_on_and_the_gap_is_published_after_it(
    disaster: Disaster, rabbitmq: Any, database_url: str, tmp_path: Path, say: Callable[[str], None]
) -> None:
    """The queues are ahead of the ledger (what came while it was away) and behind it (what was never acknowledged)."""
    back = restored(disaster.backup, tmp_path / "back", disaster.server, disaster.moment)
    url = back.url("shop")
    try:
        assert stored(url) == len(EARLY) + len(BEFORE)
        assert faults(url) == {}
        assert letters(url) == {("not-json", "open"): 1}, "the discard came later; the other letter was never there"
        with topology(rabbitmq.url, database_url=url) as (settings, brokers), reader(brokers) as read:
            brokers.publish("rabbitmq", [*BEFORE[-20:], *AHEAD])
            first = serve(settings)
            assert first["duplicate"] == 20
            assert first["applied"] + first["waiting"] == len(AHEAD)
            assert first["waiting"] > 0, "some of it is about orders of the gap"
            gap = write(tmp_path / "gap.jsonl", [*REPEATED, *GAP, CONFLICT])
            published = incentives("publish", gap, "--to", "rabbitmq", env=environment_of(settings, **NO_AWS))
            assert published.code == 0, published.err
            second = serve(settings)
            after = read()
        applied = second.pop("applied") + second.pop("waiting")  # a delivery of the gap is before its final basket
        assert applied == len(GAP)
        assert second == {"duplicate": len(REPEATED), "conflict": 1, "dead-letter:conflict": 1}
        assert letters(url) == {("not-json", "open"): 1, ("conflict", "open"): 1}
        assert stored(url) == len(EVENTS)
        assert faults(url) == {}
        open_shop(database_url, SHOP)
        assert balances(url) == calm_balances(database_url, EVENTS)
        again = disaster.outcomes.keys() & after.keys()
        assert disaster.outcomes.keys() | after.keys() == outcome_ids(url)
        assert len(again) == len(GAP), "what the gap had brought is told again, by the same ids"
        changed = differing(disaster.outcomes, after)
        assert changed.keys().isdisjoint({"credit", "earned"}), "no placing was decided otherwise"
        say(
            f"facts before {len(EVENTS) - len(AHEAD)}, lost by the restore {len(GAP)}; from the queues {len(AHEAD)} new and"
            f" 20 that were there, of the new {first['waiting']} wait for the gap; published again {len(REPEATED) + len(GAP)}:"
            f" {applied} applied, {second['duplicate']} duplicates; facts after {stored(url)}, balances equal."
            f" Outcomes told twice {len(again)}, of which differ: {dict(changed)}"
        )
    finally:
        back.remove()


def outcome_ids(url: str) -> set[str]:
    with psycopg.connect(url) as connection:
        return {str(json.loads(row[0])["id"]) for row in connection.execute("SELECT body FROM outbox")}


def test_the_gap_backfilled_before_the_fleet_starts_tells_everything_as_before(
    disaster: Disaster, rabbitmq: Any, database_url: str, tmp_path: Path, say: Callable[[str], None]
) -> None:
    """The damaged ledger can still be read: the gap comes out of its facts, by the statement of the page."""
    disaster.server.start()
    with psycopg.connect(disaster.server.url("shop")) as connection:
        since = statement_of_the_page().replace("2026-11-26T03:00:00Z", disaster.moment.isoformat())
        bodies = [str(row[0]).encode() for row in connection.execute(since.encode())]
    disaster.server.kill()
    assert len(bodies) == len(GAP)
    back = restored(disaster.backup, tmp_path / "back", disaster.server, disaster.moment)
    url = back.url("shop")
    try:
        with topology(rabbitmq.url, database_url=url) as (settings, brokers), reader(brokers) as read:
            gap = write(tmp_path / "gap.jsonl", bodies)
            filled = incentives("backfill", gap, "--format", "json", env=environment_of(settings, **NO_AWS))
            assert filled.document["applied"] + filled.document["waiting"] == len(GAP), filled.out
            brokers.publish("rabbitmq", [*REPEATED, *GAP, *AHEAD])
            done = serve(settings)
            after = read()
        assert done == {"applied": len(AHEAD), "duplicate": len(REPEATED) + len(GAP)}
        assert stored(url) == len(EVENTS)
        assert faults(url) == {}
        open_shop(database_url, SHOP)
        assert balances(url) == calm_balances(database_url, EVENTS)
        again = disaster.outcomes.keys() & after.keys()
        assert len(again) == len(GAP)
        assert differing(disaster.outcomes, after) == {}, "receivers that drop repeats by id have missed nothing"
        say(f"gap of {len(GAP)} backfilled first; outcomes told twice {len(again)}, of which none differs")
    finally:
        back.remove()


def test_a_fact_of_every_kind_is_told_as_the_event_that_it_was(session: Session) -> None:
    """Each is a duplicate where it is, and the kinds are all that there are."""
    load(session, terms("grant", "gift"))
    apply(session, estimated(placed("o1", credit=5)), estimated(placed("o2")), estimated(placed("o3")), asked("g", 100))
    apply(session, finalized("o1", line(unit_price=900)), delivered("o1"), refunded("r", order="o1"), cancelled("o2"))
    finalize_as_placed(session, "o3", "the shop closed", NOON)
    told = session.connection.execute(statement_of_the_page().replace("2026-11-26", "2026-01-01").encode()).fetchall()
    events = [decode(str(row[0]).encode()) for row in told]
    assert {type(event.data) for event in events} == set(TYPES.values())
    assert len(events) == 9
    assert set(apply_events(session, events).verdicts) == {Verdict.DUPLICATE}
