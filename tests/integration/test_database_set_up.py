"""Databases as administrators hand them over: options in the URL, a search_path, an encoding. They work or are refused in
a sentence."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from urllib.parse import quote

import psycopg
import pytest
from psycopg import sql

from incentive_fleet.consumers.probes import Database
from incentive_fleet.embedded.postgres import SOCKET_NAME, Postgres
from incentive_fleet.errors import DatabaseUnavailable, SchemaUnfit, SettingsError
from incentive_fleet.ledger.connection import connect, mapped_errors
from incentive_fleet.ledger.logins import owner_within_reach
from incentive_fleet.ledger.migrate import upgrade
from incentive_fleet.ledger.revision import NEWEST
from incentive_fleet.ledger.session import Session
from incentive_fleet.ledger.snapshot import snapshot
from tests.chaos.faulty_proxy import FaultyProxy
from tests.command import incentives


def asking(url: str, options: str) -> str:
    return f"{url}&options={quote(options)}"


def shown(url: str, *names: str) -> list[str]:
    with closing(connect(url)) as connection:
        return [str(connection.execute(f"SHOW {name}".encode()).fetchone()[0]) for name in names]  # type: ignore[index]


def test_options_of_the_url_are_kept_and_win(database_url: str) -> None:
    url = asking(database_url, "-c lock_timeout=7s --statement-timeout=90s -c enable_seqscan=on")
    assert shown(url, "lock_timeout", "statement_timeout", "enable_seqscan") == ["7s", "90s", "on"]
    assert shown(database_url, "lock_timeout", "statement_timeout") == ["0", "1min"]
    with closing(Session(url)) as session:
        planner = session.connection.execute("SELECT current_setting('enable_seqscan'), current_setting('jit')")
        assert planner.fetchone() == ("on", "off")


def test_options_do_not_move_what_the_code_stands_on(database_url: str) -> None:
    url = asking(
        database_url, "-c timezone=Europe/Sofia -c datestyle=German -c default_transaction_isolation=serializable"
    )
    named = ("timezone", "datestyle", "transaction_isolation", "client_encoding", "role")
    found = ["UTC", "ISO, MDY", "read committed", "UTF8", "incentives_app"]
    assert shown(f"{url}&client_encoding=latin1", *named) == found


def test_an_option_that_the_server_does_not_know_is_told(database_url: str) -> None:
    with pytest.raises(Exception, match="no_such_setting"):
        connect(asking(database_url, "-c no_such_setting=1"))


def test_a_snapshot_is_one_moment_and_the_next_transaction_is_not(database_url: str) -> None:
    with closing(connect(database_url)) as connection:
        said = "SELECT current_setting('transaction_isolation'), current_setting('transaction_read_only')"
        with snapshot(connection):
            assert connection.execute(said).fetchone() == ("repeatable read", "on")
        with connection.transaction():
            assert connection.execute(said).fetchone() == ("read committed", "off")


def through(*proxies: FaultyProxy, database: str) -> str:
    hosts = ",".join(f"127.0.0.1:{proxy.port}" for proxy in proxies)
    return f"postgresql://postgres@{hosts}/{database}?target_session_attrs=read-write"


@pytest.fixture
def two_hosts(postgres: Postgres) -> Iterator[tuple[FaultyProxy, FaultyProxy]]:
    sockets = psycopg.conninfo.conninfo_to_dict(postgres.url())["host"]
    with (
        closing(FaultyProxy(f"{sockets}{SOCKET_NAME}")) as first,
        closing(FaultyProxy(f"{sockets}{SOCKET_NAME}")) as second,
    ):
        yield first, second


def test_several_hosts_are_tried_in_turn(two_hosts: tuple[FaultyProxy, FaultyProxy], empty_database_url: str) -> None:
    first, second = two_hosts
    url = through(first, second, database=empty_database_url.split("/")[3].split("?", maxsplit=1)[0])
    first.cut()
    env = {"INCENTIVES_DATABASE_URL": url}
    assert incentives("db", "upgrade", env=env).out == f"The schema is at revision {NEWEST}.\n"
    assert incentives("ledger", "verify", env=env).code == 0
    with closing(Database(url)) as probe:
        probe()
    with closing(Session(url)) as session:
        assert session.connection.info.port == second.port
        first.heal()
        second.cut()
        with pytest.raises(DatabaseUnavailable), mapped_errors():
            session.connection.execute("SELECT 1")
        session.close()
        assert session.connection.info.port == first.port


def test_a_host_that_hangs_does_not_keep_from_the_other(
    two_hosts: tuple[FaultyProxy, FaultyProxy], database_url: str
) -> None:
    first, second = two_hosts
    first.hang()
    with closing(
        connect(through(first, second, database=database_url.split("/")[3].split("?", maxsplit=1)[0]))
    ) as connection:
        assert connection.info.port == second.port


def named(text: str, *names: str) -> sql.Composed:
    return sql.SQL(text).format(*map(sql.Identifier, names))


@contextmanager
def owner_of(url: str) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    with psycopg.connect(url, autocommit=True) as connection:
        yield connection


@contextmanager
def login(url: str, *grants: str) -> Iterator[tuple[str, str]]:
    """A login of the test's own: its name, and its URL for the same database."""
    name = f"login_{uuid.uuid4().hex[:12]}"
    with owner_of(url) as owner:
        owner.execute(named("CREATE ROLE {} LOGIN", name))
        for grant in grants:
            owner.execute(named(grant, name))
        try:
            yield name, url.replace("//postgres@", f"//{name}@", 1)
        finally:
            owner.execute(named("DROP OWNED BY {} CASCADE", name))
            owner.execute(named("DROP ROLE {}", name))


def tables_in(url: str) -> int:
    with owner_of(url) as owner:
        row = owner.execute(
            "SELECT count(*) FROM pg_tables WHERE schemaname NOT LIKE ALL ('{pg_%,information_schema}')"
        ).fetchone()
        assert row is not None
        return int(str(row[0]))


@pytest.fixture(params=["LATIN1", "SQL_ASCII"])
def database_in_another_encoding(request: pytest.FixtureRequest, postgres: Postgres) -> Iterator[str]:
    name = f"test_{uuid.uuid4().hex}"
    create = "CREATE DATABASE {} TEMPLATE template0 LOCALE_PROVIDER libc LOCALE 'C' ENCODING {}"
    with owner_of(postgres.url("postgres")) as owner:
        owner.execute(named(create, name, request.param))
        yield postgres.url(name)
        owner.execute(named("DROP DATABASE {} WITH (FORCE)", name))


def test_a_database_that_does_not_hold_every_character_is_refused(database_in_another_encoding: str) -> None:
    with pytest.raises(SettingsError, match="which does not hold every name: the ledger needs one"):
        upgrade(database_in_another_encoding)
    assert tables_in(database_in_another_encoding) == 0


SEARCH_PATHS = [
    ("ALTER DATABASE {database} SET search_path = app, pg_catalog", "pg_catalog"),
    ("ALTER ROLE {login} IN DATABASE {database} SET search_path = app, public; CREATE SCHEMA app", "app"),
    ("CREATE SCHEMA {login}", "{login}"),
    ("DROP SCHEMA public", "no schema"),
]


@pytest.mark.parametrize(("statements", "leads_to"), SEARCH_PATHS)
def test_an_upgrade_into_a_schema_that_nothing_reads_is_refused(
    empty_database_url: str, statements: str, leads_to: str
) -> None:
    with login(empty_database_url, "ALTER ROLE {} SUPERUSER") as (name, url), owner_of(empty_database_url) as owner:
        both = {"login": sql.Identifier(name), "database": sql.Identifier(owner.info.dbname)}
        for statement in statements.split(";"):
            owner.execute(sql.SQL(statement).format(**both))
        with pytest.raises(SettingsError) as caught:
            upgrade(url)
        assert f"the search_path of {name} leads to {leads_to.format(login=name)}, and the ledger lives" in str(
            caught.value
        )
        assert tables_in(empty_database_url) == 0


def test_a_search_path_in_the_url_is_told_as_well(empty_database_url: str) -> None:
    with pytest.raises(SettingsError, match="leads to no schema, and the ledger lives in public"):
        upgrade(asking(empty_database_url, "-c search_path=elsewhere"))


def test_a_schema_that_the_login_may_not_write_is_refused(empty_database_url: str) -> None:
    with (
        login(empty_database_url) as (name, url),
        pytest.raises(SettingsError, match=f"The login {name} may not create tables in the schema public"),
    ):
        upgrade(url)


def test_a_connection_that_would_reach_other_tables_is_refused(database_url: str) -> None:
    with login(database_url, "GRANT incentives_app TO {}") as (name, url), owner_of(database_url) as owner:
        connect(url).close()
        owner.execute(named("CREATE SCHEMA {} CREATE TABLE transfers (x int)", name))
        owner.execute(named("GRANT USAGE ON SCHEMA {} TO incentives_app", name))
        with pytest.raises(SchemaUnfit, match=rf"the name transfers leads to the one in the schema {name}"):
            connect(asking(url, f"-c search_path={name},public"))
        with pytest.raises(SchemaUnfit, match="leads nowhere by the search_path of"):
            connect(asking(url, "-c search_path=pg_catalog"))


def test_two_addresses_of_one_database_let_the_applications_login_in(empty_database_url: str) -> None:
    with login(empty_database_url) as (name, url):
        upgrade(empty_database_url, url)
        upgrade(empty_database_url, url)
        with closing(connect(url)) as connection:
            assert connection.execute("SELECT current_user, session_user").fetchone() == ("incentives_app", name)
        assert owner_within_reach(url) is None
        assert "is a superuser in the database" in str(owner_within_reach(empty_database_url))


def test_an_owner_that_is_no_superuser_is_told_too(empty_database_url: str) -> None:
    with login(empty_database_url, "ALTER ROLE {} CREATEROLE", "GRANT CREATE ON SCHEMA public TO {}") as (name, url):
        with owner_of(empty_database_url) as owner:
            owner.execute(named("GRANT incentives_app TO {} WITH ADMIN OPTION", name))
        upgrade(url)
        assert f"The login {name} owns the ledger's tables" in str(owner_within_reach(url))


def test_two_addresses_of_different_databases_are_refused(empty_database_url: str, database_url: str) -> None:
    with pytest.raises(SettingsError, match="name different databases: the first leads to test_"):
        upgrade(empty_database_url, database_url)
    assert tables_in(empty_database_url) == 0


def test_the_same_database_by_another_spelling_is_the_same(empty_database_url: str, postgres: Postgres) -> None:
    with owner_of(empty_database_url) as owner:
        spelled = f"host={owner.info.host} user=postgres dbname={owner.info.dbname}"
    upgrade(empty_database_url, spelled)
    connect(spelled).close()


def test_outcomes_are_kept_for_the_destinations_that_the_upgrade_is_told(database_url: str) -> None:
    """And for those of before where it is told none."""
    env = {"INCENTIVES_DATABASE_URL": database_url}

    def kept(*words: str) -> list[str]:
        ran = incentives("db", "upgrade", *words, "--format", "json", env=env)
        assert (ran.code, ran.document["revision"]) == (0, NEWEST), ran.err
        assert ran.document["destinations"] == (list(words[1::2]) or None)
        with psycopg.connect(database_url) as connection:
            return [row[0] for row in connection.execute("SELECT destination FROM destinations ORDER BY 1")]

    assert kept() == ["rabbitmq", "sns"]
    assert kept("--destination", "rabbitmq") == ["rabbitmq"]
    assert kept() == ["rabbitmq"]
    assert kept("--destination", "sns", "--destination", "rabbitmq") == ["rabbitmq", "sns"]
    wrong = incentives("db", "upgrade", "--destination", "kafka", env=env)
    assert (wrong.code, "kafka" in wrong.err) == (2, True)
