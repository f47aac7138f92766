"""What must hold of a database before it holds a ledger, and of a login before it writes one. It changes nothing."""

from __future__ import annotations

from typing import Any

from psycopg import Connection

from incentive_fleet.errors import SettingsError

SCHEMA = "public"
PLACE = """
    SELECT current_schema(), coalesce(has_schema_privilege(to_regnamespace('public')::oid, 'CREATE'), false),
        to_regclass('public.alembic_version') IS NOT NULL
"""
# Names are looked up along the search_path, so a table may be hidden by another of its name, or not be found at all.
HIDDEN = """
    SELECT relname, (SELECT relnamespace::regnamespace::text FROM pg_class WHERE oid = to_regclass(quote_ident(c.relname)))
    FROM pg_class AS c
    WHERE relnamespace = to_regnamespace('public') AND relkind IN ('r', 'p', 'v') AND has_table_privilege(oid, 'SELECT')
      AND to_regclass(quote_ident(relname)) IS DISTINCT FROM oid::regclass
    ORDER BY relname LIMIT 1
"""


def check_encoding(connection: Connection[Any]) -> None:
    """Raises SettingsError unless the database holds every character that an event may hold."""
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise SettingsError(
            f"The database {connection.info.dbname} is encoded in {encoding}, which does not hold every name: the ledger "
            "needs one that was created with ENCODING 'UTF8' (and TEMPLATE template0)."
        )


def check_place(connection: Connection[Any]) -> None:
    """Raises SettingsError unless this login's tables would come to stand in the schema public."""
    row = connection.execute(PLACE).fetchone()
    assert row is not None
    leads_to, may_create, has_ledger = row
    login, database = connection.info.user, connection.info.dbname
    if leads_to != SCHEMA:
        raise SettingsError(
            f"In the database {database} the search_path of {login} leads to {leads_to or 'no schema'}, and the ledger lives "
            f"in {SCHEMA}: {_remedy(login, database)}"
        )
    if not may_create and not has_ledger:
        raise SettingsError(
            f"The login {login} may not create tables in the schema {SCHEMA} of the database {database}: run "
            f"`GRANT CREATE ON SCHEMA {SCHEMA} TO {login}` there as its owner, or set INCENTIVES_ADMIN_DATABASE_URL."
        )


def check_reach(connection: Connection[Any]) -> None:
    """Raises SettingsError where a name of the ledger's would lead this connection to another table, or to none."""
    row = connection.execute(HIDDEN).fetchone()
    if row is None:
        return
    table, schema = row
    login, database = connection.info.user, connection.info.dbname
    instead = f"leads to the one in the schema {schema}" if schema else "leads nowhere"
    raise SettingsError(
        f"In the database {database} the name {table} {instead} by the search_path of {login}, and the ledger lives in "
        f"{SCHEMA}: {_remedy(login, database)}"
    )


def _remedy(login: str, database: str) -> str:
    return (
        f"run `ALTER ROLE {login} IN DATABASE {database} SET search_path = {SCHEMA}`, and leave search_path out of the "
        "options of its URL."
    )
