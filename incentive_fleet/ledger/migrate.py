"""Brings a database's schema up to date with Alembic. The only code that runs as the schema's owner. It never goes back: what a
migration removes is gone, so an older schema is a restored one (docs/deploy/restore.md).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import psycopg
import tenacity
from alembic import command, op
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, NullPool, create_engine, text
from sqlalchemy.exc import DBAPIError

from incentive_fleet.errors import DatabaseContention
from incentive_fleet.ledger.address import Parameters, parameters_of, settings_in
from incentive_fleet.ledger.connection import mapped_errors, open_connection
from incentive_fleet.ledger.logins import application_login, let_in
from incentive_fleet.ledger.pooler import refuse_statement_pooling
from incentive_fleet.ledger.preconditions import check_encoding, check_place
from incentive_fleet.ledger.revision import declare, require_upgradable

MIGRATIONS = Path(__file__).parent / "migrations"
UPGRADE_LOCK = 0x1CE_0001  # one upgrade at a time in a database
# Whoever waits for a table's lock keeps everybody who comes later waiting too: the fleet stands still for so long at the most.
LOCK_TIMEOUT: Final = "2s"
PATIENCE_S: Final = 120.0
BETWEEN_S: Final = (1.0, 3.0)  # in which the fleet goes on

# New outcomes are marked for these alone. What is marked already stays so, and waits for whoever publishes there.
WANTED_ADDED: Final = "INSERT INTO destinations SELECT unnest(%s::text[]) ON CONFLICT DO NOTHING"
WANTED_NO_MORE: Final = "DELETE FROM destinations WHERE destination <> ALL (%s)"


def upgrade(
    admin_url: str,
    application_url: str | None = None,
    *,
    destinations: Collection[str] = (),
    patience_s: float = PATIENCE_S,
) -> str:
    """Apply every pending migration in one transaction and return the revision reached. Idempotent.

    A fleet may run meanwhile: a lock that cannot be had at once is given up and tried again for `patience_s`, then
    DatabaseContention. A schema that is newer, and works with this release, is left as it is.
    `application_url` is the consumers' where it is another one than the owner's: its login is let into the application's
    role. `destinations`, where there are any, are where outcomes go from now on. Raises DatabaseUnavailable when Postgres cannot
    be reached (a retry helps then), SettingsError when the two lead to different databases or the database is not fit for a
    ledger, SchemaUnfit for a schema that is too new or another program's, and DatabaseUnfit for whatever else Postgres refuses;
    nothing was changed then.
    """
    owner = parameters_of(admin_url, "INCENTIVES_ADMIN_DATABASE_URL" if application_url else "INCENTIVES_DATABASE_URL")
    application = parameters_of(application_url) if application_url else None
    engine = create_engine("postgresql+psycopg://", creator=partial(_open_as_owner, owner), poolclass=NullPool)
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    lock_timeout = settings_in(owner.get("options") or "").get("lock_timeout", LOCK_TIMEOUT)
    try:
        return _patiently(patience_s)(_upgrade_once, engine, config, application, lock_timeout, destinations)
    except DatabaseContention as error:
        raise DatabaseContention(
            f"A table that the migration changes could not be locked within {patience_s:g} s, {lock_timeout} at a "
            f"time; nothing was changed. End what holds it, a long report or a dump as a rule, and run it again. {error}"
        ) from error
    finally:
        engine.dispose()


def _patiently(patience_s: float) -> tenacity.Retrying:
    return tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(DatabaseContention),
        stop=tenacity.stop_after_delay(patience_s),
        wait=tenacity.wait_random(*BETWEEN_S),
        reraise=True,
    )


def _upgrade_once(
    engine: Engine, config: Config, application: Parameters | None, lock_timeout: str, destinations: Collection[str]
) -> str:
    with _mapped_errors(), engine.begin() as connection:
        raw = connection.connection.driver_connection
        assert isinstance(raw, psycopg.Connection)
        check_place(raw)
        login = application_login(raw, application) if application else None
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": UPGRADE_LOCK})
        raw.execute("SELECT set_config('lock_timeout', %s, true)", (lock_timeout,))
        newer = require_upgradable(raw)
        if newer is None:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            declare(raw, _goes_on_with(config))
        let_in(raw, login)
        if destinations:
            raw.execute(WANTED_ADDED, (list(destinations),))
            raw.execute(WANTED_NO_MORE, (list(destinations),))
        return newer or str(connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one())


def _goes_on_with(config: Config) -> str:
    """The oldest revision whose release goes on with the newest schema: a migration that does not say is its own oldest."""
    revisions = ScriptDirectory.from_config(config).walk_revisions()
    return max(str(getattr(one.module, "goes_on_with", one.revision)) for one in revisions)


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
