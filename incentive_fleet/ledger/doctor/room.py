"""Whether there is room: connections, time, and disk as far as a database tells."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, LiteralString

from incentive_fleet.findings import NOTE, OK, RISK, UNKNOWN, Finding, Look, Question
from incentive_fleet.ledger.doctor.subject import ExaminedDatabase

CONNECTIONS: Final = Question(
    "postgres-connections",
    "max_connections",
    "Workers that find no connection free wait, and a deployment that starts the new before it stops the old gets none.",
    "Raise max_connections or the limit of the login or the database, run fewer processes, or put a pooler before it.",
)
STATEMENT_TIMEOUT: Final = Question(
    "postgres-statement-timeout",
    "statement_timeout",
    "Without one a statement that is stuck holds its locks for ever; one too short cuts good batches off.",
    "Leave it out of the options of the address; the fleet sets 60 s.",
)
IDLE_TIMEOUT: Final = Question(
    "postgres-idle-in-transaction-timeout",
    "idle_in_transaction_session_timeout",
    "Without one a process that stopped in a transaction holds its orders for ever; one too short cuts batches off.",
    "Leave it out of the options of the address; the fleet sets 120 s.",
)
SESSION_LIMITS: Final = Question(
    "postgres-session-limits",
    "idle_session_timeout, transaction_timeout",
    "The server ends sessions that wait for messages, and each batch after a quiet time connects anew.",
    "Set them to 0 for the fleet's login.",
)
AUTOVACUUM: Final = Question(
    "postgres-autovacuum",
    "autovacuum",
    "Tables grow without end, plans go stale, and in the end Postgres refuses to write to avoid wraparound.",
    "Set autovacuum = on, and vacuum now.",
)
DISK: Final = Question(
    "postgres-disk",
    "size of the database",
    "A full disk stops the server in the middle of its work.",
    "Watch the free space with the host's or the provider's monitoring: SQL does not tell it.",
)
DESTINATIONS: Final = Question(
    "postgres-destinations",
    "destinations",
    "Outcomes are kept for each destination until it has them: for one that nobody relays to they are kept for ever.",
    "Run `incentives db upgrade --destination` with those that you have, before the first event.",
)

OTHERS: Final = 15  # health of each task, collector, relay with a lane a destination, scheduled and operators' commands
TOO_SHORT_MS: Final = 5_000  # a full batch on a busy server takes a second or two
WRAPAROUND_AGE: Final = 1_000_000_000  # half of what there is

# Anybody may count sessions, though not see whose they are.
USED: Final[LiteralString] = """
    SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
            - coalesce(current_setting('reserved_connections', true)::int, 0) AS most,
        (SELECT count(*) FROM pg_stat_activity WHERE backend_type IS NULL OR backend_type = 'client backend')::int AS used,
        (SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'incentives%%')::int AS ours,
        rolconnlimit AS of_login, datconnlimit AS of_database
    FROM pg_roles, pg_database WHERE rolname = session_user AND datname = current_database()
"""
AGE: Final[LiteralString] = """
    SELECT age(datfrozenxid) AS age, current_setting('autovacuum') AS autovacuum
    FROM pg_database WHERE datname = current_database()
"""
SIZE: Final[LiteralString] = "SELECT pg_size_pretty(pg_database_size(current_database())) AS size"


def _connections(database: ExaminedDatabase) -> Iterator[Finding]:
    found = database.row(USED)
    need = database.processes * max(1, len(database.destinations)) + OTHERS
    limits = {"max_connections": int(found["most"])}
    limits |= {
        f"limit of the {one}": int(found[f"of_{one}"]) for one in ("login", "database") if found[f"of_{one}"] >= 0
    }
    name, most = min(limits.items(), key=lambda limit: limit[1])
    free = most - (int(found["used"]) - int(found["ours"]) if name == "max_connections" else 0)
    value = f"{free} for the fleet, which needs {need} with {database.processes} processes; {found['used']} in use"
    yield CONNECTIONS.found(OK if free >= need else RISK, value, setting=name)


def _times(database: ExaminedDatabase) -> Iterator[Finding]:
    for check in (STATEMENT_TIMEOUT, IDLE_TIMEOUT):
        limit_ms = database.milliseconds(check.setting)
        severity = RISK if limit_ms == 0 or limit_ms < TOO_SHORT_MS else OK
        yield check.found(severity, "none" if limit_ms == 0 else f"{limit_ms:,} ms")
    limits = {name: database.milliseconds(name) for name in ("idle_session_timeout", "transaction_timeout")}
    short = {name: limit_ms for name, limit_ms in limits.items() if limit_ms}
    said = ", ".join(f"{name} {limit_ms:,} ms" for name, limit_ms in short.items())
    yield SESSION_LIMITS.found(NOTE if short else OK, said or "none")


def _vacuum(database: ExaminedDatabase) -> Iterator[Finding]:
    found = database.row(AGE)
    risky = found["autovacuum"] != "on" or found["age"] > WRAPAROUND_AGE
    yield AUTOVACUUM.found(RISK if risky else OK, f"{found['autovacuum']}, oldest transaction {found['age']:,} ago")


def _disk(database: ExaminedDatabase) -> Iterator[Finding]:
    yield DISK.found(UNKNOWN, f"{database.row(SIZE)['size']}; free space is not knowable by SQL")


def _destinations(database: ExaminedDatabase) -> Iterator[Finding]:
    kept = [str(row["destination"]) for row in database.rows("SELECT destination FROM destinations ORDER BY 1")]
    others = [one for one in kept if one not in database.destinations]
    told = f", of which {' and '.join(others)} has no address here" if others and database.destinations else ""
    yield DESTINATIONS.found(NOTE if told else OK, (" and ".join(kept) or "none") + told)


LOOKS: Final = (
    Look((CONNECTIONS,), _connections),
    Look((STATEMENT_TIMEOUT, IDLE_TIMEOUT, SESSION_LIMITS), _times),
    Look((AUTOVACUUM,), _vacuum),
    Look((DISK,), _disk),
    Look((DESTINATIONS,), _destinations),
)
