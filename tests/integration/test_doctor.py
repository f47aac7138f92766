"""`incentives doctor` on real parts: well set, badly set, hung and away. What is bad is a finding, never a crash."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pika
import psycopg
import pytest
from psycopg import sql

from incentive_fleet.brokers import declare
from incentive_fleet.brokers.aws.plan import sqs_queues
from incentive_fleet.brokers.rabbitmq import doctor as rabbitmq_doctor
from incentive_fleet.brokers.rabbitmq.plan import rabbitmq_plan
from incentive_fleet.doctor import examination
from incentive_fleet.embedded import postgres_release
from incentive_fleet.embedded.postgres import Postgres
from incentive_fleet.embedded.rabbitmq import RabbitMQ
from incentive_fleet.errors import SettingsError
from incentive_fleet.findings import NOTE, OK
from incentive_fleet.ledger.doctor import examination as postgres_examination
from incentive_fleet.ledger.doctor.rights import migrated_triggers
from incentive_fleet.ledger.migrate import upgrade
from incentive_fleet.settings import Settings
from tests.aws_clients import aws_client
from tests.doctors import doctor, examined, risks, worst
from tests.integration.test_docs import documented
from tests.operators import policy
from tests.parts import LocalStack

BAD = """
fsync = off
full_page_writes = off
synchronous_commit = off
autovacuum = off
"""
LONELY = {"postgres-synchronous-standbys"}  # what is at risk on any server without a second one


@pytest.fixture
def application_url(database_url: str) -> Iterator[str]:
    """The test's database as a login that owns nothing."""
    name = f"login_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(database_url, autocommit=True) as owner:
        owner.execute(sql.SQL("CREATE ROLE {} LOGIN IN ROLE incentives_app").format(sql.Identifier(name)))
    yield database_url.replace("//postgres@", f"//{name}@")
    with psycopg.connect(database_url, autocommit=True) as owner:
        owner.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(sql.Identifier(name)))


def owner_does(url: str, *statements: str) -> None:
    with psycopg.connect(url, autocommit=True) as owner:
        for statement in statements:
            owner.execute(statement.encode())


def login_of(url: str) -> str:
    return str(psycopg.conninfo.conninfo_to_dict(url)["user"])


def test_a_lone_server_is_well_set_but_for_the_standby(application_url: str) -> None:
    ran = doctor({"INCENTIVES_DATABASE_URL": application_url}, "--format", "json")
    assert (ran.code, ran.err) == (1, "")
    findings = ran.document["findings"]
    assert {one["code"] for one in findings if one["severity"] == "risk"} == LONELY
    assert ran.document["counts"]["risk"] == 1
    assert {check.code for check in postgres_examination.checks()} <= {one["code"] for one in findings}
    for one in findings:
        assert one.keys() == {"code", "part", "setting", "value", "severity", "risk", "remedy"}
        assert one["risk"].endswith(".")
        assert one["remedy"].endswith(".")
        assert one["part"] == one["code"].split("-")[0]
    example = documented("doctor")
    assert (example.keys(), example["findings"][0].keys()) == (ran.document.keys(), findings[0].keys())
    assert example["counts"].keys() == ran.document["counts"].keys()


def test_the_migrations_tell_each_trigger(database_url: str) -> None:
    """What a database has after them, and nothing else, or a dropped one would not be missed."""
    there = "SELECT tgname, tgrelid::regclass::text FROM pg_trigger WHERE NOT tgisinternal"
    with psycopg.connect(database_url) as owner:
        assert set(owner.execute(there).fetchall()) == migrated_triggers()


def test_it_is_read_on_a_screen_of_eighty_columns(application_url: str) -> None:
    ran = doctor({"INCENTIVES_DATABASE_URL": application_url})
    lines = ran.out.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0] == "risk  postgres-synchronous-standbys  synchronous_standby_names: empty"
    assert lines[-1].startswith("1 risk, ")


def test_it_writes_nothing(application_url: str, database_url: str) -> None:
    counted = "SELECT coalesce(sum(n_tup_ins + n_tup_upd + n_tup_del), 0) FROM pg_stat_user_tables"
    with psycopg.connect(database_url, autocommit=True) as owner:
        owner.execute("SELECT pg_stat_force_next_flush()")
        before = owner.execute(counted).fetchone()
        examined(database_url=application_url, admin_database_url=database_url)
        owner.execute("SELECT pg_stat_clear_snapshot()")
        assert owner.execute(counted).fetchone() == before


@pytest.fixture(scope="module")
def bad_postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """A server that its owner made fast."""
    server = Postgres(tmp_path_factory.mktemp("bad") / "postgres")
    try:
        server.start()
        server.stop()
        with (server.folder / "data" / "postgresql.conf").open("a", encoding="utf-8") as configuration:
            configuration.write(BAD)
        server.start()
        make = "CREATE DATABASE ascii ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C' LOCALE_PROVIDER libc TEMPLATE template0"
        owner_does(server.url("postgres"), make)
        upgrade(server.url(), server.application_url())
        yield server
    finally:
        server.stop()


def test_a_server_that_was_made_fast_is_told_setting_by_setting(bad_postgres: Postgres) -> None:
    codes = ("postgres-fsync", "postgres-full-page-writes", "postgres-synchronous-commit", "postgres-autovacuum")
    found = examined(database_url=bad_postgres.application_url())
    assert worst(found, *codes) == dict.fromkeys(codes, "risk")
    assert [found[code][0].value.split(",")[0] for code in codes] == ["off"] * 4


def test_a_database_that_cannot_hold_every_name_is_told_and_the_rest_is_looked_at(bad_postgres: Postgres) -> None:
    found = examined(database_url=bad_postgres.url("ascii"))
    assert found["postgres-encoding"][0].value == "SQL_ASCII"
    codes = ("postgres-encoding", "postgres-schema", "postgres-fsync", "postgres-login-attributes")
    assert worst(found, *codes) == dict.fromkeys(codes, "risk")
    assert worst(found, "postgres-reached", "postgres-locale") == {"postgres-reached": "ok", "postgres-locale": "ok"}


def test_commits_that_wait_for_a_standby_need_one(
    own_postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A receiver of WAL, which writes it to a disk of its own, is a synchronous standby to Postgres."""
    url = own_postgres.url()
    owner_does(url, "ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 (second, third)'", "SELECT pg_reload_conf()")
    codes = ("postgres-synchronous-standbys", "postgres-standbys")
    assert worst(examined(database_url=url), *codes) == dict(zip(codes, ("ok", "risk"), strict=True))
    monkeypatch.delenv(
        postgres_release.HOME, raising=False
    )  # the receiver is the wheel's, which takes from older servers
    with receiving(own_postgres, tmp_path):
        found = examined(database_url=url)
        assert worst(found, *codes) == dict.fromkeys(codes, "ok")
        assert found["postgres-standbys"][0].value == "second: streaming, quorum; 1 must answer"
        # The application's login may not look, so it says so, unless the owner's is there to ask.
        blind = own_postgres.application_url()
        assert worst(examined(database_url=blind), "postgres-standbys") == {"postgres-standbys": "unknown"}
        seeing = examined(database_url=blind, admin_database_url=url)
        assert worst(seeing, "postgres-standbys") == {"postgres-standbys": "ok"}


@contextmanager
def receiving(server: Postgres, folder: Path) -> Iterator[None]:
    address = f"{server.url('postgres')}&application_name=second"
    command = [
        str(postgres_release.binaries() / "pg_receivewal"),
        "-d",
        address,
        "-D",
        str(folder),
        "--synchronous",
        "--no-loop",
    ]
    with subprocess.Popen(command) as receiver, psycopg.connect(server.url("postgres"), autocommit=True) as owner:
        try:
            deadline = time.monotonic() + 30
            streaming = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'"
            while owner.execute(streaming).fetchone() != (1,):
                assert receiver.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)
            yield
        finally:
            receiver.send_signal(signal.SIGINT)
            receiver.wait(10)


def test_the_owners_login_is_a_risk(database_url: str) -> None:
    codes = ("postgres-login", "postgres-login-attributes", "postgres-replication-role")
    assert worst(examined(database_url=database_url), *codes) == dict.fromkeys(codes, "risk")


# What an operator does to one setting, and the code that tells it. {login} is the application's.
SPOILT = {
    "no commit waits, for this login": (
        "ALTER ROLE {login} SET synchronous_commit = off",
        "postgres-synchronous-commit",
    ),
    "triggers do not fire, for this login": (
        "ALTER ROLE {login} SET session_replication_role = replica",
        "postgres-replication-role",
    ),
    "triggers may be switched off": (
        "GRANT SET ON PARAMETER session_replication_role TO {login}",
        "postgres-replication-role",
    ),
    "a trigger is disabled": ("ALTER TABLE transfers DISABLE TRIGGER post_to_wallets", "postgres-triggers"),
    "a trigger is gone": ("DROP TRIGGER append_only ON facts", "postgres-triggers"),
    "balances may be written": ("GRANT UPDATE ON balances TO {login}", "postgres-privileges"),
    "a wallet may be written": ("GRANT UPDATE (balance) ON wallets TO PUBLIC", "postgres-privileges"),
    "what is booked may be deleted": ("GRANT DELETE ON transfers TO incentives_app", "postgres-privileges"),
    "what is booked may be truncated": ("GRANT TRUNCATE ON orders TO {login}", "postgres-privileges"),
    "all tables may be written": (
        "GRANT pg_write_all_data TO {login}",
        "postgres-login-attributes",
        "postgres-privileges",
    ),
    "the login has a limit": ("ALTER ROLE {login} CONNECTION LIMIT 3", "postgres-connections"),
    "the database is read-only": ("ALTER ROLE {login} SET default_transaction_read_only = on", "postgres-writable"),
    "another schema comes first": (
        "CREATE SCHEMA other CREATE TABLE facts (x int); GRANT USAGE ON SCHEMA other TO PUBLIC; "
        "ALTER ROLE {login} SET search_path = other, public",
        "postgres-search-path",
    ),
    "the schema is another program's": ("UPDATE alembic_version SET version_num = 'd0e1f2'", "postgres-schema"),
    "the schema is ahead": (
        "UPDATE alembic_version SET version_num = '9999'; UPDATE schema_goes_on_with SET revision = '9999'",
        "postgres-schema",
    ),
}


@pytest.mark.parametrize("case", SPOILT)
def test_each_spoilt_setting_is_a_risk_by_its_code(case: str, application_url: str, database_url: str) -> None:
    statements, *codes = SPOILT[case]
    owner_does(database_url, statements.format(login=login_of(application_url)))
    assert risks(examined(database_url=application_url)) - LONELY == set(codes)


OPTIONS = {
    "synchronous_commit=off": "postgres-synchronous-commit",
    "session_replication_role=local": "postgres-replication-role",
    "statement_timeout=0": "postgres-statement-timeout",
    "statement_timeout=2s": "postgres-statement-timeout",
    "idle_in_transaction_session_timeout=0": "postgres-idle-in-transaction-timeout",
}


@pytest.mark.parametrize("option", OPTIONS)
def test_options_of_the_address_count(option: str, database_url: str) -> None:
    url = f"{database_url}&options=-c%20{option.replace('=', '%3D')}"
    assert OPTIONS[option] in risks(examined(database_url=url))


def test_outcomes_that_are_kept_for_a_broker_without_an_address_are_worth_knowing(
    application_url: str, database_url: str
) -> None:
    [told] = examined(database_url=application_url, rabbitmq_url="amqp://127.0.0.1:1")["postgres-destinations"]
    assert (told.severity, told.value) == (NOTE, "rabbitmq and sns, of which sns has no address here")
    upgrade(database_url, destinations=["rabbitmq"])
    [told] = examined(database_url=application_url, rabbitmq_url="amqp://127.0.0.1:1")["postgres-destinations"]
    assert (told.severity, told.value) == (OK, "rabbitmq")


def test_more_processes_need_more_connections(application_url: str) -> None:
    assert risks(examined(500, database_url=application_url)) - LONELY == {"postgres-connections"}


@pytest.fixture
def on_rabbitmq(rabbitmq: RabbitMQ, prefix: str) -> Settings:
    return Settings(
        prefix=prefix, rabbitmq_url=rabbitmq.url, rabbitmq_management_url=rabbitmq.management_url, retry_delays_s=(5,)
    )


def of(settings: Settings) -> dict[str, Any]:
    return settings.model_dump(exclude_defaults=True)


def test_a_lone_node_is_well_set_but_for_the_quorum(on_rabbitmq: Settings) -> None:
    declare.apply(on_rabbitmq)
    found = examined(**of(on_rabbitmq))
    assert risks(found) == {"rabbitmq-quorum"}
    assert {check.code for check in rabbitmq_doctor.checks()} <= found.keys()
    assert {one.value for one in found["rabbitmq-quorum"]} == {"1 members, 1 online"}
    queues = len(rabbitmq_plan(on_rabbitmq).queues)
    assert len(found["rabbitmq-quorum"]) == len(found["rabbitmq-queue-type"]) == queues > 9
    assert worst(found, "rabbitmq-login", "rabbitmq-tls") == {"rabbitmq-login": "note", "rabbitmq-tls": "note"}


def test_a_queue_on_one_node_and_a_missing_one_are_told(on_rabbitmq: Settings) -> None:
    source = f"{on_rabbitmq.prefix}.order-placed"
    with closing(pika.BlockingConnection(pika.URLParameters(on_rabbitmq.need_rabbitmq_url()))) as connection:
        connection.channel().queue_declare(source, durable=True, arguments={"x-message-ttl": 60_000})
        declare.apply(on_rabbitmq)
        connection.channel().queue_delete(f"{on_rabbitmq.prefix}.order-refunded.dlq")
    found = examined(**of(on_rabbitmq))
    assert risks(found) == {"rabbitmq-quorum", "rabbitmq-queue-type", "rabbitmq-topology"}
    assert [(one.setting, one.value) for one in found["rabbitmq-queue-type"] if one.value != "quorum"] == [
        (source, "classic")
    ]
    told = {one.setting for one in found["rabbitmq-topology"]}
    assert {f"x-message-ttl of {source}", f"exists of {on_rabbitmq.prefix}.order-refunded.dlq"} <= told


HURTING = [
    {"message-ttl": 60_000},
    {"max-length": 5},
    {"max-length-bytes": 99},
    {"expires": 3_600_000},
    {"overflow": "drop-head"},
]


@pytest.mark.parametrize("definition", HURTING, ids=lambda definition: next(iter(definition)))
def test_a_policy_that_takes_messages_is_a_risk(definition: dict[str, object], on_rabbitmq: Settings) -> None:
    declare.apply(on_rabbitmq)
    with policy(on_rabbitmq, "policies", definition):
        found = examined(**of(on_rabbitmq))
    assert risks(found) == {"rabbitmq-quorum", "rabbitmq-policies"}
    assert found["rabbitmq-policies"][0].setting.startswith(next(iter(definition)))


def test_without_the_management_api_what_cannot_be_seen_is_unknown(on_rabbitmq: Settings) -> None:
    declare.apply(on_rabbitmq)
    found = examined(**of(on_rabbitmq) | {"rabbitmq_management_url": None})
    assert risks(found) == set()
    unknown = {code for code, severity in worst(found).items() if severity == "unknown"}
    assert unknown == {
        f"rabbitmq-{code}"
        for code in (["topology", "policies", "queue-type", "quorum", "nodes", "alarms", "disk", "clock"])
    }
    assert "INCENTIVES_RABBITMQ_MANAGEMENT_URL" in found["rabbitmq-quorum"][0].value


@pytest.fixture
def on_aws(localstack: LocalStack, prefix: str) -> Settings:
    return Settings(prefix=prefix, aws_region="eu-central-1", aws_endpoint_url=localstack.endpoint_url)


def test_what_apply_made_on_aws_is_well_set(on_aws: Settings) -> None:
    assert risks(examined(**of(on_aws))) == {"aws-topology"}
    declare.apply(on_aws)
    found = examined(**of(on_aws))
    assert risks(found) == set()
    assert worst(found, "aws-tls", "aws-clock", "aws-retention", "aws-redrive") == {
        "aws-tls": "note",  # on the loopback
        "aws-clock": "ok",
        "aws-retention": "ok",
        "aws-redrive": "ok",
    }


SPOILT_QUEUES = {
    "aws-retention": {"MessageRetentionPeriod": "345600"},
    "aws-redrive": {"RedrivePolicy": ""},
    "aws-encryption": {"SqsManagedSseEnabled": "false"},
    "aws-access-policies": {"Policy": ""},
}


def test_each_attribute_of_a_queue_is_told_by_its_code(on_aws: Settings) -> None:
    declare.apply(on_aws)
    sqs: Any = aws_client("sqs", on_aws.aws_endpoint_url)
    queue = sqs_queues(on_aws)[0].source
    url = sqs.get_queue_url(QueueName=queue)["QueueUrl"]
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"VisibilityTimeout": "3"})
    found = examined(**of(on_aws))
    assert (risks(found), worst(found, "aws-visibility")) == (set(), {"aws-visibility": "note"})
    for attributes in SPOILT_QUEUES.values():
        sqs.set_queue_attributes(QueueUrl=url, Attributes=attributes)
    found = examined(**of(on_aws))
    assert risks(found) == set(SPOILT_QUEUES)
    assert found["aws-retention"][0].value == "345600, should be 1209600"
    assert found["aws-retention"][0].setting == f"MessageRetentionPeriod of {queue}"


def test_a_statement_that_lets_everybody_in_is_a_risk(on_aws: Settings) -> None:
    declare.apply(on_aws)
    sqs: Any = aws_client("sqs", on_aws.aws_endpoint_url)
    url = sqs.get_queue_url(QueueName=sqs_queues(on_aws)[0].source)["QueueUrl"]
    there = json.loads(sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["Policy"])["Attributes"]["Policy"])
    statement = {"Sid": "Partners", "Effect": "Allow", "Principal": {"AWS": ["*"]}, "Action": "sqs:SendMessage"}
    statement["Resource"] = there["Statement"][0]["Resource"]
    for condition, expected in (({"StringEquals": {"aws:PrincipalAccount": "1"}}, set()), ({}, {"aws-open-policies"})):
        theirs = statement | ({"Condition": condition} if condition else {})
        document = json.dumps(there | {"Statement": [*there["Statement"], theirs]})
        sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": document})
        assert risks(examined(**of(on_aws))) == expected


@contextmanager
def silent() -> Iterator[int]:
    """A port that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        yield listener.getsockname()[1]


def test_parts_that_hang_are_findings_within_the_bound() -> None:
    with silent() as port:
        started = time.monotonic()
        found = examined(
            within_s=2.0,
            database_url=f"postgresql://me:secret@127.0.0.1:{port}/incentives",
            rabbitmq_url=f"amqp://me:secret@127.0.0.1:{port}/%2F",
            aws_region="eu-central-1",
            aws_endpoint_url=f"http://127.0.0.1:{port}",
        )
        assert time.monotonic() - started < 5
    assert risks(found) == {"postgres-reached", "rabbitmq-reached", "aws-reached"}
    told = [one.value for code in risks(found) for one in found[code]]
    assert all("within 2 s" in value and "secret" not in value for value in told)


def test_one_part_that_is_away_keeps_no_other_from_being_looked_at(application_url: str) -> None:
    with silent() as port:
        pass
    ran = doctor(
        {
            "INCENTIVES_DATABASE_URL": application_url,
            "INCENTIVES_RABBITMQ_URL": f"amqp://me:secret@127.0.0.1:{port}/%2F",
            "AWS_REGION": "eu-central-1",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        },
        "--format",
        "json",
    )
    assert ran.code == 1
    told = {one["code"] for one in ran.document["findings"] if one["severity"] == "risk"}
    assert told == LONELY | {"rabbitmq-reached", "aws-reached"}
    assert "secret" not in ran.out + ran.err


def test_nothing_at_risk_is_exit_code_0(on_aws: Settings) -> None:
    declare.apply(on_aws)
    env = {
        "AWS_REGION": "eu-central-1",
        "AWS_ENDPOINT_URL": str(on_aws.aws_endpoint_url),
        "INCENTIVES_PREFIX": on_aws.prefix,
    }
    ran = doctor(env)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.splitlines()[-1].startswith("0 risk, ")


WRONG = {
    "nothing is set": ({}, "there is nothing to examine"),
    "a database that is none": ({"INCENTIVES_DATABASE_URL": "http://host"}, "INCENTIVES_DATABASE_URL cannot be read"),
    "an owner's that is none": (
        {"INCENTIVES_DATABASE_URL": "postgresql://h/d", "INCENTIVES_ADMIN_DATABASE_URL": "nowhere"},
        "INCENTIVES_ADMIN_DATABASE_URL cannot be read",
    ),
    "a broker that is none": ({"INCENTIVES_RABBITMQ_URL": "amqp://a b"}, "INCENTIVES_RABBITMQ_URL cannot be read"),
    "a number that is none": ({"AWS_REGION": "x", "INCENTIVES_BATCH_SIZE": "many"}, "INCENTIVES_BATCH_SIZE is 'many'"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_settings_are_told_by_name(case: str) -> None:
    env, said = WRONG[case]
    with pytest.raises(SettingsError) as caught:
        examination.examine(Settings.from_environment(env), 1)
    assert said in str(caught.value)


def test_wrong_settings_are_one_sentence_and_exit_code_2() -> None:
    ran = doctor({})
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("Error: ")
    assert len(ran.err.splitlines()) == 1
