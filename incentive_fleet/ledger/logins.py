"""The two logins: the owner's, who makes tables, and the application's, who may do no more than its role. It makes neither."""

from __future__ import annotations

import logging
import secrets
import threading
from contextlib import closing
from typing import Any

from psycopg import Connection, sql

from incentive_fleet.errors import FleetError, SettingsError, TransientError
from incentive_fleet.ledger.address import Parameters
from incentive_fleet.ledger.connection import (
    APPLICATION_ROLE,
    connect,
    mapped_errors,
    open_connection,
)
from incentive_fleet.ledger.pooler import refuse_statement_pooling
from incentive_fleet.pausing import DATABASE_MAX_S

log = logging.getLogger(__name__)

# A bigint key shows as its halves. Everybody may read pg_locks, and a lock is seen on its own server and database only.
SEES_LOCK = """
    SELECT session_user, EXISTS (
        SELECT FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 1 AND granted
        AND (classid::bigint << 32 | objid::bigint) = %s
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))
"""
COULD_BE_OWNER = """
    SELECT session_user::text, current_database()::text, rolsuper FROM pg_roles, pg_class AS ledger
    WHERE rolname = session_user AND ledger.oid = 'public.transfers'::regclass
      AND (rolsuper OR pg_has_role(session_user, relowner, 'MEMBER'))
"""


def application_login(owner: Connection[Any], parameters: Parameters) -> str:
    """The login that the application's address leads to, by the word of the server.

    `owner` is in a transaction. Raises SettingsError when that address leads to another database, and psycopg's errors.
    """
    key = secrets.randbits(62)
    owner.execute("SELECT pg_advisory_xact_lock(%s)", (key,))
    with closing(open_connection(parameters, "incentives db upgrade")) as connection:
        refuse_statement_pooling(connection)
        row = connection.execute(SEES_LOCK, (key,)).fetchone()
        assert row is not None
        login, same = row
        if not same:
            raise SettingsError(
                "INCENTIVES_ADMIN_DATABASE_URL and INCENTIVES_DATABASE_URL name different databases: the first leads to "
                f"{_place(owner)}, the second to {_place(connection)}. Nothing was changed."
            )
    return str(login)


def let_in(owner: Connection[Any], login: str | None) -> None:
    """Let a login, the owner's own where None is given, take the application's role. Idempotent."""
    row = owner.execute("SELECT rolsuper FROM pg_roles WHERE rolname = coalesce(%s, current_user)", (login,)).fetchone()
    if row is None or not row[0]:  # a superuser may take any role already
        name = sql.Identifier(login) if login else sql.SQL("CURRENT_USER")
        owner.execute(sql.SQL("GRANT {} TO {}").format(sql.Identifier(APPLICATION_ROLE), name))
    _let_stage(owner)


def _let_stage(owner: Connection[Any]) -> None:
    """Let the application make temporary tables, by which it loads long files, where a database was closed to everybody."""
    row = owner.execute(
        "SELECT has_database_privilege(%s, current_database(), 'TEMPORARY'), current_database()::text",
        (APPLICATION_ROLE,),
    ).fetchone()
    if row is not None and not row[0]:
        owner.execute(
            sql.SQL("GRANT TEMPORARY ON DATABASE {} TO {}").format(
                sql.Identifier(row[1]), sql.Identifier(APPLICATION_ROLE)
            )
        )


def say_if_owner(url: str) -> None:
    """Log one line, as soon as the database answers, if the login of `url` could give itself the owner's rights back.

    Returns at once; a thread that nobody waits for does it.
    """
    threading.Thread(target=_say_if_owner, args=(url,), name="owner-check", daemon=True).start()


def _say_if_owner(url: str) -> None:
    away = threading.Event()  # never set: it only waits
    while True:
        try:
            sentence = owner_within_reach(url)
        except TransientError:
            away.wait(DATABASE_MAX_S)
            continue
        except FleetError:
            return  # whoever works with this database says it
        if sentence:
            log.warning(sentence)
        return


def owner_within_reach(url: str) -> str | None:
    """A sentence when this login could leave the application's role for the owner's, else None. Raises as `connect`."""
    with closing(connect(url, application_name="incentives owner check")) as connection, mapped_errors():
        row = connection.execute(COULD_BE_OWNER).fetchone()
    if row is None:
        return None
    login, database, superuser = row
    what = "is a superuser" if superuser else "owns the ledger's tables"
    return (
        f"The login {login} {what} in the database {database}, so RESET ROLE would undo what the role {APPLICATION_ROLE} "
        "gives up: keep it in INCENTIVES_ADMIN_DATABASE_URL for `incentives db upgrade`, and give "
        "INCENTIVES_DATABASE_URL a login of its own."
    )


def _place(connection: Connection[Any]) -> str:
    return f"{connection.info.dbname} at {connection.info.host or 'a local socket'}:{connection.info.port}"
