"""Brings a database's schema up to date with Alembic. The only code that runs as the schema's owner."""

from __future__ import annotations

from pathlib import Path

from alembic import command, op
from alembic.config import Config
from psycopg import sql
from sqlalchemy import NullPool, create_engine, text
from sqlalchemy.exc import OperationalError

from incentive_fleet.errors import DatabaseUnavailable
from incentive_fleet.ledger.connection import APPLICATION_ROLE

MIGRATIONS = Path(__file__).parent / "migrations"
UPGRADE_LOCK = 0x1CE_0001  # one upgrade at a time in a database


def upgrade(admin_url: str, application_user: str | None = None) -> str:
    """Apply every pending migration in one transaction and return the revision reached. Idempotent.

    `application_user` is the login that the consumers use, where it is another one than the owner's: it is let into
    the application's role. Raises DatabaseUnavailable when Postgres cannot be reached; a retry helps then.
    """
    engine = create_engine(_sqlalchemy_url(admin_url), poolclass=NullPool)
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    try:
        with engine.begin() as connection:
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": UPGRADE_LOCK})
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            _let_in(connection.connection.driver_connection, application_user)
            return str(connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one())
    except OperationalError as error:
        raise DatabaseUnavailable(str(error.orig).strip()) from error
    finally:
        engine.dispose()


def run_sql_beside(revision_file: str) -> None:
    """Execute the .sql file that stands beside a revision's .py file."""
    script = Path(revision_file).with_suffix(".sql").read_text(encoding="utf-8")
    raw = op.get_bind().connection.driver_connection
    raw.execute(script)  # type: ignore[union-attr]


def _let_in(raw: object, application_user: str | None) -> None:
    user = sql.Identifier(application_user) if application_user else sql.SQL("CURRENT_USER")
    grant = sql.SQL("GRANT {} TO {}").format(sql.Identifier(APPLICATION_ROLE), user)
    with raw.cursor() as cursor:  # type: ignore[attr-defined]
        cursor.execute("SELECT rolsuper FROM pg_roles WHERE rolname = coalesce(%s, current_user)", (application_user,))
        row = cursor.fetchone()
        if row and not row[0]:  # a superuser may take any role already
            cursor.execute(grant)


def _sqlalchemy_url(url: str) -> str:
    for scheme in ("postgresql://", "postgres://"):
        if url.startswith(scheme):
            return "postgresql+psycopg://" + url.removeprefix(scheme)
    return url
