"""Where the address leads: which server and database, by which way, and whether a ledger can live there."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any, Final, LiteralString

from psycopg import Connection

from incentive_fleet.addresses import is_loopback
from incentive_fleet.errors import DatabaseUnfit, SchemaUnfit, SettingsError
from incentive_fleet.findings import NOTE, OK, RISK, Finding, Look, Question, clock_finding, version_finding
from incentive_fleet.ledger.connection import mapped_errors, open_connection
from incentive_fleet.ledger.doctor.subject import CONNECT_S, NAME, ExaminedDatabase
from incentive_fleet.ledger.pooler import is_pooled, refuse_statement_pooling
from incentive_fleet.ledger.preconditions import check_encoding, check_reach
from incentive_fleet.ledger.revision import read_revision, require_fit

VERSION: Final = Question(
    "postgres-version",
    "server_version",
    "Nobody has run this release of the fleet on that release of Postgres.",
    "Take a release of docs/deploy/support.md, or run the suite on yours.",
)
ENCODING: Final = Question(
    "postgres-encoding",
    "server_encoding",
    "It does not hold every name: events are refused, and the fleet does not start.",
    "Create the database with ENCODING 'UTF8' and TEMPLATE template0, and move there.",
)
LOCALE: Final = Question(
    "postgres-locale",
    "collation of the database",
    "An upgrade of the operating system can change the order, and indexes on text then find nothing, or the same twice.",
    "Prefer C or builtin C.UTF-8; after an upgrade REINDEX, then ALTER DATABASE ... REFRESH COLLATION VERSION.",
)
SCHEMA: Final = Question(
    "postgres-schema",
    "revision",
    "The fleet waits, or refuses to start, until code and schema fit.",
    "Run `incentives db upgrade`, or the release that fits.",
)
SEARCH_PATH: Final = Question(
    "postgres-search-path",
    "search_path",
    "A name of the ledger's leads to another table, or to none.",
    "ALTER ROLE ... IN DATABASE ... SET search_path = public, and leave it out of the address.",
)
WRITABLE: Final = Question(
    "postgres-writable",
    "transaction_read_only",
    "Nothing can be booked there: it is a standby, or somebody made it read-only.",
    "Name every host and target_session_attrs=read-write in the address, or make it writable.",
)
POOLER: Final = Question(
    "postgres-pooler",
    "pooler",
    "A pooler whose mode takes no transaction is of no use; any other costs each batch some planning.",
    "Set its pool_mode to transaction or session; leave idle_transaction_timeout and query_wait_timeout alone.",
)
TLS: Final = Question(
    "postgres-tls",
    "sslmode",
    "Whoever is on the way can read customers, amounts and the password, or stand in for the server.",
    "Use sslmode=verify-full and sslrootcert in the address.",
)
CLOCK: Final = Question(
    "postgres-clock",
    "clock against this host's",
    "Grants, holds and the audit trail are dated wrong, and ages in lists and alarms with them.",
    "Let NTP keep both clocks.",
)
OWNER: Final = Question(
    "postgres-owner",
    "INCENTIVES_ADMIN_DATABASE_URL",
    "What the application's login may not see is not seen, and `db upgrade` cannot run.",
    "Mend the owner's address, or leave it out where nobody upgrades.",
)

UNFOLDED: Final = frozenset({"C", "POSIX", "C.UTF-8", "C.utf8", "PG_C_UTF8", "ucs_basic"})
DATABASE: Final[LiteralString] = (
    "SELECT to_jsonb(d) AS database FROM pg_database AS d WHERE datname = current_database()"
)
ACTUAL: Final[LiteralString] = """
    SELECT pg_database_collation_actual_version(oid) AS version FROM pg_database WHERE datname = current_database()
"""
COLLATION_VERSIONS_SINCE: Final = 150_000


def _server(database: ExaminedDatabase) -> Iterator[Finding]:
    info = database.connection.info
    yield version_finding(VERSION, "Postgres", info.parameter_status("server_version") or "")
    yield _refusal(ENCODING, database.connection, check_encoding, info.parameter_status("server_encoding") or "")
    found = database.row(
        "SELECT pg_is_in_recovery() AS standby, current_setting('default_transaction_read_only') AS ro"
    )
    fixed = database.asked.get("default_transaction_read_only", found["ro"])
    yield WRITABLE.found(
        RISK if found["standby"] or fixed not in ("off", "false", "0", "no") else OK,
        "a standby" if found["standby"] else f"default_transaction_read_only = {fixed}",
    )


def _refusal(
    check: Question, connection: Connection[Any], need: Callable[[Connection[Any]], None], value: str
) -> Finding:
    """What would keep the fleet from starting, in the words in which it would say so."""
    try:
        with mapped_errors(blameless=True), connection.transaction():
            need(connection)
    except (SettingsError, SchemaUnfit) as error:
        return check.found(RISK, value or "unfit", risk=" ".join(str(error).split()))
    return check.found(OK, value)


def _locale(database: ExaminedDatabase) -> Iterator[Finding]:
    found = database.row(DATABASE)["database"]
    provider = {"b": "builtin", "c": "libc", "i": "icu"}.get(found.get("datlocprovider", "c"), "another")
    name = str((found.get("datlocale") or found.get("daticulocale")) if provider != "libc" else found["datcollate"])
    value, recorded = f"{name} ({provider})", found.get("datcollversion")
    if database.connection.info.server_version >= COLLATION_VERSIONS_SINCE and recorded is not None:
        actual = database.row(ACTUAL)["version"]
        if actual is not None and actual != recorded:
            yield LOCALE.found(RISK, f"{value}, made with version {recorded}, now {actual}")
            return
    yield LOCALE.found(OK if name in UNFOLDED else NOTE, value)


def _schema(database: ExaminedDatabase) -> Iterator[Finding]:
    with mapped_errors(blameless=True):
        revision = read_revision(database.connection)
    yield _refusal(SCHEMA, database.connection, require_fit, revision or "none")
    yield _refusal(SEARCH_PATH, database.connection, check_reach, database.value("search_path"))


def _tls(database: ExaminedDatabase) -> Iterator[Finding]:
    info, mode = database.connection.info, str(database.parameters.get("sslmode") or "prefer")
    if info.host.startswith(("/", "@")):
        yield TLS.found(OK, "a Unix socket")
        return
    encrypted = bool(info.pgconn.ssl_in_use)
    value = f"{mode}, {'encrypted' if encrypted else 'in the clear'}"
    verified = encrypted and mode == "verify-full"
    yield TLS.found(OK if verified else NOTE if is_loopback(info.hostaddr) else RISK, value)


def _pooler(database: ExaminedDatabase) -> Iterator[Finding]:
    with mapped_errors(blameless=True):
        pooled = is_pooled(database.connection)
    if not pooled:
        yield POOLER.found(OK, "none: the server itself answers")
        return
    try:
        with mapped_errors(blameless=True):
            refuse_statement_pooling(database.connection)
    except DatabaseUnfit as error:
        yield POOLER.found(RISK, "pool_mode statement", risk=" ".join(str(error).split()))
        return
    shared = _is_shared(database)
    mode = "transaction" if shared else "session, or transaction with more than one session free"
    yield POOLER.found(NOTE, f"pool_mode {mode}", risk="Statements are planned anew in each batch; it is worked with.")


def _is_shared(database: ExaminedDatabase) -> bool:
    """Whether two clients that stay connected are given the same session of the server, one after the other."""
    bounds = {"connect_timeout": CONNECT_S}
    with mapped_errors(blameless=True), closing(open_connection({**database.parameters, **bounds}, NAME)) as other:
        ours, theirs = (
            one.execute("SELECT pg_backend_pid()", prepare=False).fetchone() for one in (database.connection, other)
        )
    return ours == theirs


def _clock(database: ExaminedDatabase) -> Iterator[Finding]:
    before, started = datetime.now(UTC), time.monotonic()
    there = database.row("SELECT clock_timestamp() AS now")["now"]
    took = timedelta(seconds=time.monotonic() - started)
    yield clock_finding(CLOCK, (there - before - took / 2).total_seconds(), took.total_seconds() / 2)


def _owners(database: ExaminedDatabase) -> Iterator[Finding]:
    if database.owner_away:
        yield OWNER.found(NOTE, database.owner_away)
    else:
        yield OWNER.found(OK, "answers" if database.owner else "not set")


LOOKS: Final = (
    Look((POOLER,), _pooler),
    Look((TLS,), _tls),
    Look((VERSION, ENCODING, WRITABLE), _server),
    Look((SCHEMA, SEARCH_PATH), _schema),
    Look((LOCALE,), _locale),
    Look((CLOCK,), _clock),
    Look((OWNER,), _owners),
)
