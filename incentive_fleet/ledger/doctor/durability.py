"""Whether what was acknowledged outlives a crash of the server, and the loss of its machine."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, LiteralString

from incentive_fleet.findings import NOTE, OK, RISK, UNKNOWN, Finding, Look, Question
from incentive_fleet.ledger.doctor.subject import ExaminedDatabase, Record

FSYNC: Final = Question(
    "postgres-fsync",
    "fsync",
    "A crash of the machine can lose what was committed and leave the ledger corrupt.",
    "Set fsync = on, and restore a backup if the machine has crashed meanwhile.",
)
FULL_PAGES: Final = Question(
    "postgres-full-page-writes",
    "full_page_writes",
    "A crash in the middle of a page leaves it half written, and nothing can mend it.",
    "Set full_page_writes = on, whatever the file system promises.",
)
COMMIT: Final = Question(
    "postgres-synchronous-commit",
    "synchronous_commit",
    "A crash loses what was committed in the last moments, and the broker was told already that it is safe.",
    "Set synchronous_commit = on for the server, the database and the login, and leave it out of the address.",
)
STANDBY_NAMES: Final = Question(
    "postgres-synchronous-standbys",
    "synchronous_standby_names",
    "Whoever loses this server's disk loses what was acknowledged: a fail-over goes to a copy that is behind.",
    "Name at least one standby, ANY 1 (...) of two, or let Patroni do it with synchronous_mode.",
)
STANDBYS: Final = Question(
    "postgres-standbys",
    "pg_stat_replication",
    "Without the synchronous standby every COMMIT waits, and the fleet stands still.",
    "Bring the standby back, or name another one.",
)
CHECKSUMS: Final = Question(
    "postgres-data-checksums",
    "data_checksums",
    "What a disk corrupts silently is read as if it were right, and copied into backups.",
    "Stop the server and run pg_checksums --enable.",
)
ARCHIVE: Final = Question(
    "postgres-archiving",
    "archive_mode",
    "Without a WAL archive a backup restores to its own time alone; with one that fails WAL fills the disk.",
    "Archive WAL (or let the provider do it), and mend an archive_command that fails.",
)
SLOTS: Final = Question(
    "postgres-replication-slots",
    "pg_replication_slots",
    "A slot that nobody reads keeps WAL until the disk is full and the server stops.",
    "Drop the slot if nobody needs it, and set max_slot_wal_keep_size.",
)

SETTINGS: Final[LiteralString] = """
    SELECT current_setting('fsync') AS fsync, current_setting('full_page_writes') AS full_pages,
        current_setting('data_checksums') AS checksums, current_setting('archive_mode') AS archive,
        current_setting('synchronous_standby_names') AS names,
        to_regproc('pg_catalog.aurora_version') IS NOT NULL AS aurora, to_regrole('rds_superuser') IS NOT NULL AS rds
"""
STREAMS: Final[LiteralString] = "SELECT application_name AS name, state, sync_state FROM pg_stat_replication"
ARCHIVER: Final[LiteralString] = """
    SELECT failed_count, last_failed_wal, coalesce(last_failed_time > last_archived_time, failed_count > 0) AS failing
    FROM pg_stat_archiver
"""
IDLE_SLOTS: Final[LiteralString] = (
    "SELECT slot_name AS name FROM pg_replication_slots WHERE NOT active ORDER BY slot_name"
)
OF_A_NUMBER: Final = re.compile(r"\s*(?:(?:FIRST|ANY)\s+)?(\d+)\s*\(", re.IGNORECASE)


def _disk(database: ExaminedDatabase) -> Iterator[Finding]:
    found = database.row(SETTINGS)
    yield _on(FSYNC, found["fsync"])
    yield _on(FULL_PAGES, found["full_pages"])
    yield CHECKSUMS.found(OK if found["checksums"] == "on" else NOTE, found["checksums"])
    yield _commit(database.value("synchronous_commit"), bool(found["names"]))
    yield from _standbys(database, found)


def _on(check: Question, value: str) -> Finding:
    return check.found(OK if value == "on" else RISK, value)


def _commit(value: str, has_names: bool) -> Finding:
    if value == "off":
        return COMMIT.found(RISK, value)
    if value == "local" and has_names:
        return COMMIT.found(RISK, value, risk="No COMMIT waits for the standby that is named: a fail-over can lose it.")
    if value == "remote_write" and has_names:
        return COMMIT.found(NOTE, value, risk="The standby has it in memory alone: both machines down at once lose it.")
    return COMMIT.found(OK, value)


def _standbys(database: ExaminedDatabase, found: Record) -> Iterator[Finding]:
    names = str(found["names"])
    streams = database.seen_by_most(STREAMS)
    shown = ", ".join(f"{one['name']}: {one['state']}, {one['sync_state']}" for one in streams) or "none is connected"
    if found["aurora"]:
        yield STANDBY_NAMES.found(OK, "Aurora: its storage has six copies in three zones")
    elif names:
        yield STANDBY_NAMES.found(OK, names)
    elif found["rds"]:
        yield STANDBY_NAMES.found(UNKNOWN, "RDS: whether it is Multi-AZ cannot be seen from inside")
    else:
        yield STANDBY_NAMES.found(RISK, "empty")
    if any(one["state"] is None for one in streams):
        yield STANDBYS.found(UNKNOWN, f"{len(streams)} connected; the login may not see more without pg_read_all_stats")
    elif not names:
        yield STANDBYS.found(OK if streams or found["aurora"] else NOTE, shown, risk="There is no other copy to go to.")
    else:
        counted = sum(one["state"] == "streaming" and one["sync_state"] in ("sync", "quorum") for one in streams)
        yield STANDBYS.found(OK if counted >= _wanted(names) else RISK, f"{shown}; {_wanted(names)} must answer")


def _wanted(names: str) -> int:
    """How many standbys must have a commit."""
    match = OF_A_NUMBER.match(names)
    return int(match[1]) if match else 1


def _wal(database: ExaminedDatabase) -> Iterator[Finding]:
    mode, archiver = database.value("archive_mode"), database.row(ARCHIVER)
    if mode != "off" and archiver["failing"]:
        yield ARCHIVE.found(RISK, f"{mode}, and failing: {archiver['last_failed_wal']}")
    else:
        yield ARCHIVE.found(NOTE if mode == "off" else OK, mode)
    idle = [str(one["name"]) for one in database.rows(IDLE_SLOTS)]
    yield SLOTS.found(RISK if idle else OK, f"not read: {', '.join(idle)}" if idle else "each is read")


LOOKS: Final = (
    Look((FSYNC, FULL_PAGES, CHECKSUMS, COMMIT, STANDBY_NAMES, STANDBYS), _disk),
    Look((ARCHIVE, SLOTS), _wal),
)
