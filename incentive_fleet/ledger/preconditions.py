"""What must hold of a database before it holds a ledger, and of a login before it writes one. It changes nothing."""

from __future__ import annotations

from typing import Any, Final

from psycopg import Connection

from incentive_fleet.errors import SchemaUnfit, SettingsError

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
# Balances and counts follow what is booked, and outcomes wait for the relay, by these triggers alone. Without one of them
# nothing fails: money stands where it stood. So whoever is about to write looks, in a round trip that it makes anyway.
BOOKKEEPERS: Final = (
    ("outbox", "mark"),
    ("redemptions", "count_new"),
    ("redemptions", "count_released"),
    ("transfers", "post_to_balances"),
    ("transfers", "post_to_wallets"),
)
KEEPS_BOOKS: Final = f"""
    (SELECT count(*) = {len(BOOKKEEPERS)} AND current_setting('session_replication_role') <> 'replica' FROM pg_trigger
     WHERE (tgrelid, tgname) IN ({", ".join(f"('{table}'::regclass, '{name}')" for table, name in BOOKKEEPERS)})
       AND tgenabled IN ('O', 'A'))
"""
AT_WORK = """
    SELECT tgrelid::regclass::text, tgname::text FROM pg_trigger
    WHERE tgenabled IN ('O', 'A') AND current_setting('session_replication_role') <> 'replica'
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


def refuse_to_write(connection: Connection[Any]) -> None:
    """Raises SchemaUnfit for a session whose KEEPS_BOOKS is not true, and names the triggers."""
    at_work = set(connection.execute(AT_WORK).fetchall())
    still = [f"{name} on {table}" for table, name in BOOKKEEPERS if (table, name) not in at_work]
    raise SchemaUnfit(
        f"In the database {connection.info.dbname} triggers that balances and counts follow by do not fire: {', '.join(still)}. "
        "Enable or restore them, with session_replication_role at origin; then run `incentives ledger verify`."
    )


def _remedy(login: str, database: str) -> str:
    return (
        f"run `ALTER ROLE {login} IN DATABASE {database} SET search_path = {SCHEMA}`, and leave search_path out of the "
        "options of its URL."
    )
