"""The script in the image that makes the application's login, against a real server."""

from __future__ import annotations

import os
import subprocess
import sys
from urllib.parse import quote

import psycopg
import pytest

from incentive_fleet.embedded.postgres import Postgres
from tests.deploy.judges import DEPLOY

NAME = "shop login"  # what must be quoted in SQL and in an address


def make(owner: str, application: str) -> subprocess.CompletedProcess[str]:
    addresses = {"INCENTIVES_ADMIN_DATABASE_URL": owner, "INCENTIVES_DATABASE_URL": application}
    return subprocess.run(
        [sys.executable, str(DEPLOY / "docker/login.py")],
        env={**os.environ, **addresses},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def server(postgres: Postgres) -> Postgres:
    with psycopg.connect(postgres.url("postgres"), autocommit=True) as connection:
        connection.execute('DROP ROLE IF EXISTS "shop login"')
    return postgres


def of_login(server: Postgres) -> tuple[object, ...] | None:
    with psycopg.connect(server.url("postgres")) as connection:
        return connection.execute(
            "SELECT rolcanlogin, rolsuper OR rolcreaterole, rolpassword FROM pg_authid WHERE rolname = %s", (NAME,)
        ).fetchone()


def test_the_login_is_made_and_given_another_password_and_owns_nothing(server: Postgres) -> None:
    address = f"postgresql://{quote(NAME)}:{{}}@/postgres"
    made = make(server.url("postgres"), address.format("first"))
    assert (made.returncode, made.stdout) == (0, "the login shop login is there\n"), made.stderr
    first = of_login(server)
    assert first is not None
    assert first[:2] == (True, False)
    assert str(first[2]).startswith("SCRAM-SHA-256$")
    assert make(server.url("postgres"), address.format("other")).returncode == 0
    second = of_login(server)
    assert second is not None
    assert second[2] != first[2]


def test_a_login_that_may_do_more_is_left_alone(server: Postgres) -> None:
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        connection.execute('CREATE ROLE "shop login" LOGIN CREATEROLE')
    before = of_login(server)
    refused = make(server.url("postgres"), f"postgresql://{quote(NAME)}:x@/postgres")
    assert refused.returncode == 1
    assert "may do more than log in" in refused.stderr
    assert of_login(server) == before


def test_a_login_of_somebody_else_is_good_as_it_is(server: Postgres) -> None:
    """The server's superuser made both; since Postgres 16 the owner may change only logins that it was given."""
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        connection.execute("DROP ROLE IF EXISTS shop_owner")
        connection.execute("CREATE ROLE shop_owner LOGIN CREATEROLE")
        connection.execute('CREATE ROLE "shop login" LOGIN')
    before = of_login(server)
    owner = server.url("postgres").replace("://postgres@", "://shop_owner@")
    kept = make(owner, f"postgresql://{quote(NAME)}:x@/postgres?" + owner.partition("?")[2])
    assert (kept.returncode, kept.stdout) == (0, "the login shop login is there\n"), kept.stderr
    assert of_login(server) == before
    assert make(owner, f"postgresql://{quote(NAME)}:x@127.0.0.1:1/postgres").returncode == 1


def test_an_address_without_a_password_is_named(server: Postgres) -> None:
    refused = make(server.url("postgres"), "postgresql://shop@/postgres")
    assert (refused.returncode, refused.stderr) == (1, "INCENTIVES_DATABASE_URL names no user or no password\n")
