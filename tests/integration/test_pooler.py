"""Behind the real PgBouncer, where the server's session is another one in each transaction: all works, and nothing of ours
is met by the next client. The login inherits nothing, so whatever forgot to take the role would be refused."""

from __future__ import annotations

import random
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pika
import psycopg
import pytest
from psycopg import sql

from incentive_fleet.dead_letters.run_locks import RunLocks
from incentive_fleet.embedded.postgres import Postgres
from incentive_fleet.embedded.rabbitmq import RabbitMQ
from incentive_fleet.embedded.sample_shop import Shop, events
from incentive_fleet.errors import DatabaseUnfit
from incentive_fleet.events.codec import Event, decode
from incentive_fleet.ledger.batch import Verdict, apply_events
from incentive_fleet.ledger.connection import connect
from incentive_fleet.ledger.migrate import upgrade
from incentive_fleet.ledger.session import Session
from tests.command import Ran, incentives
from tests.dead_letter_world import LetterDatabase, arrival, order
from tests.doctors import examined, worst
from tests.poolers import RELEASES, pooling, program_of
from tests.shop import balances, calm_balances, faults, open_shop

pytestmark = pytest.mark.foreign
SHOP = Shop(150, seed=5, refunds=0.3)
BODIES = [body for _, body in events(SHOP)]
# What a client of the same server session would notice, had we left anything behind.
LEFT_BEHIND = """
    SELECT current_user = session_user, current_setting('statement_timeout'), current_setting('enable_seqscan'),
        current_setting('lock_timeout'), current_setting('TimeZone') = reset_val, (SELECT count(*) FROM pg_prepared_statements),
        (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid())
    FROM pg_settings WHERE name = 'TimeZone'
"""
NOTHING = (True, "0", "on", "0", True, 0, 0)


@dataclass(frozen=True, slots=True)
class Pooled:
    """One database behind a pooler and directly, for its owner and for the application."""

    direct: str
    owner: str
    application: str
    port: int


@pytest.fixture(params=sorted(RELEASES))
def program(request: pytest.FixtureRequest) -> Path:
    return program_of(request.param)


@pytest.fixture
def login(postgres: Postgres) -> Iterator[str]:
    name = f"login_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(postgres.url("postgres"), autocommit=True) as owner:
        owner.execute(sql.SQL("CREATE ROLE {} LOGIN NOINHERIT").format(sql.Identifier(name)))
    yield name
    with psycopg.connect(postgres.url("postgres"), autocommit=True) as owner:
        owner.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


@pytest.fixture
def pooled(program: Path, login: str, postgres: Postgres, empty_database_url: str, tmp_path: Path) -> Iterator[Pooled]:
    database = psycopg.conninfo.conninfo_to_dict(empty_database_url)["dbname"]
    with pooling(program, postgres, tmp_path / "pooler") as port:
        owner, application = (f"postgresql://{user}@127.0.0.1:{port}/{database}" for user in ("postgres", login))
        upgrade(owner, application)
        yield Pooled(empty_database_url, owner, application, port)


def left_behind(url: str) -> tuple[object, ...] | None:
    with psycopg.connect(url, autocommit=True, prepare_threshold=None) as stranger:
        return stranger.execute(LEFT_BEHIND).fetchone()


def test_many_at_once_share_few_sessions_and_all_is_applied_once(pooled: Pooled) -> None:
    open_shop(pooled.application, SHOP)
    chance = random.Random(7)
    decoded = [decode(body) for body in BODIES]
    work = [events for _ in range(6) for events in _cut(chance, decoded)]
    chance.shuffle(work)
    strangers: list[tuple[object, ...] | None] = []
    done = threading.Event()

    def stranger() -> None:
        while not done.is_set():
            strangers.append(left_behind(pooled.application))

    def consumer(number: int) -> set[Verdict]:
        with closing(Session(pooled.application)) as session:
            return {v for events in work[number::5] for v in apply_events(session, events).verdicts}

    with ThreadPoolExecutor(6) as threads:
        watching = threads.submit(stranger)
        try:
            verdicts = set().union(*threads.map(consumer, range(5)))
        finally:
            done.set()
        watching.result()
    assert verdicts <= {Verdict.APPLIED, Verdict.WAITING, Verdict.DUPLICATE}
    assert set(strangers) == {NOTHING}
    assert faults(pooled.application) == {}
    with psycopg.connect(pooled.direct) as owner:
        assert owner.execute("SELECT count(*) FROM facts").fetchone() == (len(BODIES),)
        # Balances depend on who came first where limits bind; what they add up to was verified above.


def test_a_calm_run_ends_as_it_does_without_a_pooler(pooled: Pooled, database_url: str) -> None:
    for url in (database_url, pooled.application):
        open_shop(url, SHOP)
    assert calm_balances(pooled.application, BODIES) == calm_balances(database_url, BODIES)
    assert balances(pooled.application) == balances(database_url)


def _cut(chance: random.Random, decoded: list[Event]) -> Iterator[list[Event]]:
    """All events in batches of one to a few hundred: by pipeline and by COPY."""
    start = 0
    while start < len(decoded):
        size = chance.choice((1, 2, 20, 64, 65, 300))
        yield decoded[start : start + size]
        start += size


COMMANDS = [
    ("db", "upgrade"),
    ("ledger", "verify"),
    ("ledger", "balances"),
    ("ledger", "export"),
    ("campaigns", "list"),
    ("anomalies",),
    ("waiting",),
    ("dlq", "list"),
    ("dlq", "history"),
    ("expire", "--as-of", "2027-01-01T00:00:00Z"),
]


def test_every_command_that_asks_the_database_works(pooled: Pooled, tmp_path: Path) -> None:
    open_shop(pooled.application, SHOP)
    file = tmp_path / "events.jsonl"
    file.write_bytes(b"\n".join(BODIES) + b"\n")
    env = {"INCENTIVES_DATABASE_URL": pooled.application, "INCENTIVES_ADMIN_DATABASE_URL": pooled.owner}
    assert incentives("backfill", file, env=env).code == 0
    for words in COMMANDS:
        ran = incentives(*words, env=env)
        assert (ran.code, ran.err) == (0, ""), words
    assert left_behind(pooled.application) == NOTHING


def test_options_of_the_url_are_taken_by_each_transaction(pooled: Pooled) -> None:
    url = f"{pooled.application}?options=-c%20lock_timeout%3D7s%20-c%20timezone%3DEurope/Sofia"
    said = "SELECT current_setting('lock_timeout'), current_setting('TimeZone'), current_user"
    with closing(Session(url)) as session:
        assert session.connection.execute(said).fetchone() == ("7s", "UTC", "incentives_app")
        with session.connection.transaction():
            assert session.connection.execute(said).fetchone() == ("7s", "UTC", "incentives_app")
    assert left_behind(pooled.application) == NOTHING


def test_the_claim_of_a_replay_lasts_as_long_as_its_run(pooled: Pooled) -> None:
    with closing(RunLocks(pooled.application, 1)) as mine:
        with closing(RunLocks(pooled.application, 2)) as other:
            for _ in range(20):  # whichever session of the server is asked
                assert not other.is_dead(1)
            mine.check()
            assert other.is_dead(3)
        assert mine.is_dead(2)
    with closing(RunLocks(pooled.application, 4)) as later:
        assert later.is_dead(1)
    assert left_behind(pooled.application) == NOTHING


def test_dead_letters_are_kept_edited_and_discarded(pooled: Pooled) -> None:
    database = LetterDatabase(pooled.application)
    database.load()
    database.keep(arrival(order(1), name="m-1"))
    database.keep(arrival(order(1), name="m-2"))
    (letter,) = database.letters()
    assert letter.times_seen == 2
    assert database.rehearse(letter)[0].good


def test_a_pooler_without_transactions_is_refused_by_name(
    program: Path, login: str, postgres: Postgres, database_url: str, tmp_path: Path
) -> None:
    with psycopg.connect(database_url, autocommit=True) as owner:
        owner.execute(sql.SQL("GRANT incentives_app TO {}").format(sql.Identifier(login)))
        database = owner.info.dbname
    with pooling(program, postgres, tmp_path / "pooler", pool_mode="statement") as port:
        for act, user in ((connect, login), (upgrade, "postgres")):
            with pytest.raises(
                DatabaseUnfit, match=rf"pooler at 127\.0\.0\.1:{port} \(PgBouncer or one like it\) takes no"
            ):
                act(f"postgresql://{user}@127.0.0.1:{port}/{database}")


@pytest.mark.parametrize(("mode", "severity"), [("transaction", "note"), ("session", "note"), ("statement", "risk")])
def test_the_doctor_tells_the_mode(
    program: Path, postgres: Postgres, database_url: str, tmp_path: Path, mode: str, severity: str
) -> None:
    database = psycopg.conninfo.conninfo_to_dict(database_url)["dbname"]
    with pooling(program, postgres, tmp_path / "pooler", pool_mode=mode) as port:
        found = examined(database_url=f"postgresql://postgres@127.0.0.1:{port}/{database}")
    assert worst(found, "postgres-pooler", "postgres-reached") == {
        "postgres-pooler": severity,
        "postgres-reached": "ok",
    }
    assert found["postgres-pooler"][0].value.startswith(f"pool_mode {mode}")


def test_a_fleet_consumes_publishes_and_replays(
    pooled: Pooled, rabbitmq: RabbitMQ, prefix: str, tmp_path: Path
) -> None:
    open_shop(pooled.application, SHOP)
    poison = BODIES[0].replace(b'"EUR"', b'"XXX"')
    file = tmp_path / "events.jsonl"
    file.write_bytes(b"\n".join([*BODIES, *BODIES[:40], poison]) + b"\n")
    env = {
        "INCENTIVES_DATABASE_URL": pooled.application,
        "INCENTIVES_ADMIN_DATABASE_URL": pooled.owner,
        "INCENTIVES_RABBITMQ_URL": rabbitmq.url,
        "INCENTIVES_RABBITMQ_MANAGEMENT_URL": rabbitmq.management_url,
        "INCENTIVES_PREFIX": prefix,
        "INCENTIVES_BATCH_SIZE": "40",
        "AWS_REGION": "",
        "AWS_DEFAULT_REGION": "",
    }

    def run(*words: str | Path) -> Ran:
        ran = incentives(*words, env=env)
        assert ran.code == 0, ran.err
        return ran

    run("topology", "apply")
    incentives("publish", file, "--to", "rabbitmq", "--skip-bad", env=env)
    with closing(pika.BlockingConnection(pika.URLParameters(rabbitmq.url))) as by_hand:
        by_hand.channel().basic_publish("", f"{prefix}.order-placed", poison)
    done = run("consume", "--from", "rabbitmq", "--processes", "2", "--until-idle", "2", "--format", "json").document
    counts = done["counts"]
    assert counts["applied"] + counts.get("waiting", 0) == len(BODIES)  # two processes keep no order
    assert (counts["duplicate"], counts["dead-letter:unknown-currency"]) == (40, 1)
    relayed = run("relay", "--until-idle", "1", "--format", "json").document
    assert relayed["published"]["rabbitmq"] > 0
    assert "rabbitmq" not in relayed["unpublished"]
    (letter,) = run("dlq", "list", "--format", "json").document["dead_letters"]
    run("dlq", "replay", str(letter["id"]), "--yes")
    run("consume", "--from", "rabbitmq", "--until-idle", "2")
    (letter,) = run("dlq", "list", "--format", "json").document["dead_letters"]
    assert (letter["status"], letter["life"]) == ("open", 2)
    assert faults(pooled.application) == {}
    assert left_behind(pooled.application) == NOTHING
