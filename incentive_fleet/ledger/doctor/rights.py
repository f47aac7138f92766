"""Who the application is to Postgres: what its login and its role could do past the ledger's own guards."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, LiteralString

from incentive_fleet.findings import NOTE, OK, RISK, Finding, Look, Question
from incentive_fleet.ledger.connection import APPLICATION_ROLE, mapped_errors
from incentive_fleet.ledger.doctor.subject import ExaminedDatabase, Record
from incentive_fleet.ledger.logins import COULD_BE_OWNER
from incentive_fleet.ledger.revision import NEWEST, read_revision

LOGIN: Final = Question(
    "postgres-login",
    "INCENTIVES_DATABASE_URL",
    "The application's login could take the owner's rights, switch triggers off and write balances.",
    "Give INCENTIVES_DATABASE_URL a login of its own that owns nothing, and keep the other for `db upgrade`.",
)
ATTRIBUTES: Final = Question(
    "postgres-login-attributes",
    "attributes of the login and the role",
    "Whoever gets hold of this login can do more to the server than book incentives.",
    "ALTER ROLE ... NOSUPERUSER NOCREATEROLE NOCREATEDB NOREPLICATION NOBYPASSRLS, and REVOKE what it is a member of.",
)
TRIGGERS: Final = Question(
    "postgres-triggers",
    "triggers of the ledger",
    "Balances and counts do not follow what is booked, and nothing refuses a change of it.",
    "Enable it, or restore it from the migrations; find out who did it, and run `incentives ledger verify`.",
)
REPLICA_ROLE: Final = Question(
    "postgres-replication-role",
    "session_replication_role",
    "The application can switch every trigger of the ledger off for its own session.",
    "Set it to origin for server, database and login, and revoke SET on it.",
)
PRIVILEGES: Final = Question(
    "postgres-privileges",
    "privileges on the ledger's tables",
    "The application can change what is booked, or the balances, without a posting.",
    "REVOKE them from the login, from incentives_app and from PUBLIC; what is needed `db upgrade` grants.",
)

ROLES: Final[LiteralString] = """
    SELECT rolname::text AS name, rolsuper AS superuser, rolcreaterole AS createrole, rolcreatedb AS createdb,
        rolreplication AS replication, rolbypassrls AS bypassrls, rolcanlogin AS login,
        ARRAY(SELECT strong::text FROM unnest(%s::text[]) AS strong
              WHERE to_regrole(strong) IS NOT NULL AND pg_has_role(rolname, strong, 'MEMBER')) AS member_of
    FROM pg_roles WHERE rolname IN (session_user, %s) ORDER BY rolname
"""
# Roles of Postgres' own that lead past every privilege of the ledger.
STRONG: Final = ("pg_write_all_data", "pg_write_server_files", "pg_execute_server_program", "rds_superuser")
WEAK: Final = {"createdb": "CREATEDB", "replication": "REPLICATION", "bypassrls": "BYPASSRLS"}
DISABLED: Final[LiteralString] = """
    SELECT tgrelid::regclass::text AS on_table, tgname::text AS name FROM pg_trigger JOIN pg_class AS c ON c.oid = tgrelid
    WHERE relnamespace = to_regnamespace('public') AND tgenabled IN ('D', 'R') ORDER BY 1, 2 LIMIT 20
"""
PRESENT: Final[LiteralString] = """
    SELECT tgname::text AS name, relname::text AS on_table FROM pg_trigger JOIN pg_class AS c ON c.oid = tgrelid
    WHERE relnamespace = to_regnamespace('public') AND NOT tgisinternal
"""
MIGRATIONS: Final = Path(__file__).parents[1] / "migrations" / "versions"
TRIGGER: Final = re.compile(
    r"^(?:(CREATE) (?:CONSTRAINT )?|(DROP) )TRIGGER (?:IF EXISTS )?(\w+)\b[^;]*?\bON (\w+)", re.MULTILINE
)
MAY_SET: Final[LiteralString] = """
    SELECT rolname::text AS name FROM pg_roles
    WHERE rolname IN (session_user, %s) AND has_parameter_privilege(rolname, 'session_replication_role', 'SET')
"""
SUPERUSER: Final[LiteralString] = "SELECT rolname::text AS name FROM pg_roles WHERE rolname = session_user AND rolsuper"
# What refuses changes is protected from UPDATE and DELETE; balances are written by triggers, which are the owner's, alone;
# and nobody but the owner truncates or adds a trigger.
TOO_MUCH: Final[LiteralString] = """
    WITH ledger AS (SELECT oid AS relation, relname::text AS name, EXISTS (
            SELECT FROM pg_trigger WHERE tgrelid = pg_class.oid AND tgname = 'append_only') AS kept
        FROM pg_class WHERE relnamespace = to_regnamespace('public') AND relkind IN ('r', 'p')),
    unwanted AS (
        SELECT relation, name, privilege, '' AS field FROM ledger, unnest(ARRAY['TRUNCATE', 'TRIGGER']) AS privilege
        UNION ALL SELECT relation, name, privilege, '' FROM ledger, unnest(ARRAY['UPDATE', 'DELETE']) AS privilege WHERE kept
        UNION ALL SELECT relation, name, privilege, '' FROM ledger, unnest(ARRAY['INSERT', 'UPDATE', 'DELETE']) AS privilege
            WHERE name IN ('balances', 'redemption_counts')
        UNION ALL SELECT relation, name, 'UPDATE', field FROM ledger, unnest(ARRAY['balance', 'pending', 'debt']) AS field
            WHERE name = 'wallets')
    SELECT DISTINCT rolname::text AS grantee, name, privilege FROM unwanted, pg_roles
    WHERE rolname IN (session_user, %s) AND NOT rolsuper AND CASE
        WHEN field <> '' THEN has_column_privilege(rolname, relation, field, privilege)
        WHEN privilege IN ('INSERT', 'UPDATE') THEN has_any_column_privilege(rolname, relation, privilege)
        ELSE has_table_privilege(rolname, relation, privilege) END
    ORDER BY 1, 2, 3 LIMIT 20
"""


def _roles(database: ExaminedDatabase) -> Iterator[Finding]:
    roles = database.rows(ROLES, (list(STRONG), APPLICATION_ROLE))
    strong = [
        f"{one['name']} {said}" for one in roles for said in _too_strong(one, database.connection.info.server_version)
    ]
    weak = [
        f"{one['name']} has {name}" for one in roles for key, name in WEAK.items() if one[key] and not one["superuser"]
    ]
    if any(one["name"] == APPLICATION_ROLE and one["login"] for one in roles):
        weak.append(f"{APPLICATION_ROLE} may log in")
    severity = RISK if strong else NOTE if weak else OK
    yield ATTRIBUTES.found(severity, "; ".join([*strong, *weak]) or "no more than it needs")


def _too_strong(role: Record, server_version: int) -> Iterator[str]:
    if role["superuser"]:
        yield "is a superuser"
        return
    if (
        role["createrole"] and server_version < 160_000
    ):  # until 16 it may make itself a member of any role but superusers
        yield "has CREATEROLE"
    yield from (f"is in {name}" for name in role["member_of"])


def _owner(database: ExaminedDatabase) -> Iterator[Finding]:
    found = database.rows(COULD_BE_OWNER)
    login = database.connection.info.user
    if not found:
        yield LOGIN.found(OK, f"{login} owns nothing of the ledger")
    else:
        what = "is a superuser" if found[0]["rolsuper"] else "owns the ledger's tables, or can become who does"
        yield LOGIN.found(RISK, f"{login} {what}")


def _triggers(database: ExaminedDatabase) -> Iterator[Finding]:
    wrong = [f"{one['name']} on {one['on_table']} is disabled" for one in database.rows(DISABLED)]
    with mapped_errors(blameless=True):
        revision = read_revision(database.connection)
    if revision == NEWEST:  # of another one these migrations do not tell
        there = {(one["name"], one["on_table"]) for one in database.rows(PRESENT)}
        wrong += [f"{name} on {table} is gone" for name, table in sorted(migrated_triggers() - there)]
    yield TRIGGERS.found(RISK if wrong else OK, ", ".join(wrong) or "all there and enabled")
    value = database.value("session_replication_role")
    able = _able_to_set(database)
    if value != "origin":
        yield REPLICA_ROLE.found(
            RISK, value, risk="Triggers do not fire in the fleet's sessions: balances stand still."
        )
    else:
        yield REPLICA_ROLE.found(RISK if able else OK, f"origin; may be set by {', '.join(able)}" if able else "origin")


def migrated_triggers() -> set[tuple[str, str]]:
    """Each trigger's name and table, as the migrations leave them."""
    triggers: set[tuple[str, str]] = set()
    for script in sorted(MIGRATIONS.glob("*.sql")):
        for made, _dropped, name, table in TRIGGER.findall(script.read_text(encoding="utf-8")):
            (triggers.add if made else triggers.discard)((name, table))
    return triggers


def _able_to_set(database: ExaminedDatabase) -> Sequence[str]:
    since_15 = (
        database.connection.info.server_version >= 150_000
    )  # before, superusers alone could, and nobody was granted it
    found = database.rows(MAY_SET, (APPLICATION_ROLE,)) if since_15 else database.rows(SUPERUSER)
    return [str(one["name"]) for one in found]


def _privileges(database: ExaminedDatabase) -> Iterator[Finding]:
    found = database.rows(TOO_MUCH, (APPLICATION_ROLE,))
    said = [f"{one['grantee']}: {one['privilege']} on {one['name']}" for one in found]
    yield PRIVILEGES.found(RISK if said else OK, "; ".join(said) or "no more than it needs")


LOOKS: Final = (
    Look((LOGIN,), _owner),
    Look((ATTRIBUTES,), _roles),
    Look((TRIGGERS, REPLICA_ROLE), _triggers),
    Look((PRIVILEGES,), _privileges),
)
