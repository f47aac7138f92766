"""Brings a database's schema up to date with Alembic. The only code that runs as the schema's owner."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
from alembic import command, op
from alembic.config import Config
from sqlalchemy import NullPool, create_engine, text
from sqlalchemy.exc import DBAPIError

from incentive_fleet.ledger.address import Parameters, parameters_of
from incentive_fleet.ledger.connection import mapped_errors, open_connection
from incentive_fleet.ledger.logins import application_login, let_in
from incentive_fleet.ledger.pooler import refuse_statement_pooling
from incentive_fleet.ledger.preconditions import check_encoding, check_place
from incentive_fleet.ledger.revision import require_upgradable

MIGRATIONS = Path(__file__).parent / "migrations"
UPGRADE_LOCK = 0x1CE_0001  # one upgrade at a time in a database


def upgrade(admin_url: str, application_url: str | None = None) -> str:
    """Apply every pending migration in one transaction and return the revision reached. Idempotent.

    `application_url` is the consumers' where it is another one than the owner's: its login is let into the application's
    role. Raises DatabaseUnavailable when Postgres cannot be reached (a retry helps then), SettingsError when the two lead to
    different databases or the database is not fit for a ledger, SchemaUnfit for a schema that is newer or another program's,
    and DatabaseUnfit for whatever else Postgres refuses; nothing was changed then.
    """
    owner = parameters_of(admin_url, "INCENTIVES_ADMIN_DATABASE_URL" if application_url else "INCENTIVES_DATABASE_URL")
    application = parameters_of(application_url) if application_url else None
    engine = create_engine("postgresql+psycopg://", creator=partial(_open_as_owner, owner), poolclass=NullPool)
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    try:
        with _mapped_errors(), engine.begin() as connection:
            raw = connection.connection.driver_connection
            assert isinstance(raw, psycopg.Connection)
            check_place(raw)
            login = application_login(raw, application) if application else None
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": UPGRADE_LOCK})
            require_upgradable(raw)
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            let_in(raw, login)
            return str(connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one())
    finally:
        engine.dispose()


def _open_as_owner(parameters: Parameters) -> psycopg.Connection[Any]:
    """psycopg opens it, and not SQLAlchemy, which reads no address with several hosts."""
    connection = open_connection(parameters, "incentives db upgrade")
    try:
        refuse_statement_pooling(connection)
        check_encoding(connection)
        connection.prepare_threshold = None
        connection.autocommit = False
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def _mapped_errors() -> Iterator[None]:
    """The driver's errors, whether SQLAlchemy has wrapped them or not, as ours."""
    with mapped_errors(blameless=True):
        try:
            yield
        except DBAPIError as error:
            raise error.orig or error from None


def run_sql_beside(revision_file: str) -> None:
    """Execute the .sql file that stands beside a revision's .py file."""
    script = Path(revision_file).with_suffix(".sql").read_text(encoding="utf-8")
    raw = op.get_bind().connection.driver_connection
    raw.execute(script)  # type: ignore[union-attr]
