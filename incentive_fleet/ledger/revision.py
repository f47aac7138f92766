"""Which revisions of the schema this release works with, and whether a database has one of them. It changes nothing.

A release goes out in two steps, in either order: its code and `incentives db upgrade`. Whoever meets a revision outside
OLDEST to NEWEST waits for the other step and goes on by itself; widen the range where the code works with both, and nobody
waits. A newer revision is worked with where its migration says so: `goes_on_with` in its file names the oldest revision
whose release needs nothing changed, and `db upgrade` writes that into the database, for a release cannot know what comes
after it. So its code can be rolled back without the schema. All of it is looked at once a connection, never once a batch:
whatever changes under an open connection and matters is an error of the next statement, and what fails so is tried again
on a new connection.
"""

from __future__ import annotations

import re
from typing import Any, Final

from psycopg import Connection

from incentive_fleet.errors import SchemaUnfit

OLDEST: Final = "0003"  # the oldest revision that this release reads and writes
NEWEST: Final = "0004"  # the head of migrations/versions: what `db upgrade` reaches
OURS: Final = re.compile(r"[0-9]{4}")  # what a revision of this product looks like; another program's does not

UPGRADE: Final = "run `incentives db upgrade`"
FIND = "SELECT to_regclass('public.alembic_version') IS NOT NULL, to_regclass('public.outbox_unpublished') IS NOT NULL"
READ = "SELECT version_num FROM public.alembic_version ORDER BY version_num LIMIT 2"
DECLARES = "SELECT to_regclass('public.schema_goes_on_with') IS NOT NULL"
DECLARED = "SELECT revision FROM public.schema_goes_on_with"
DECLARE = """
    CREATE TABLE IF NOT EXISTS public.schema_goes_on_with (
        only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row), revision text NOT NULL);
    GRANT SELECT ON public.schema_goes_on_with TO incentives_app, incentives_viewer
"""
DECLARE_THIS = """
    INSERT INTO public.schema_goes_on_with (revision) VALUES (%s)
    ON CONFLICT (only_row) DO UPDATE SET revision = excluded.revision
"""


def require_fit(connection: Connection[Any]) -> None:
    """Return when the schema's revision is one that this release works with; one or two round trips.

    Raises SchemaUnfit, in a sentence that says what to run; a retry helps once that was done.
    """
    revision = read_revision(connection)
    if revision is None:
        raise SchemaUnfit(f"The database {connection.info.dbname} has no ledger yet: {UPGRADE} first.")
    if OURS.fullmatch(revision) and revision < OLDEST:
        where = f"The schema of the database {connection.info.dbname} is at revision {revision}"
        raise SchemaUnfit(f"{where}, and this release needs {OLDEST} at least: {UPGRADE}.")
    refuse_stranger(connection, revision)


def require_upgradable(connection: Connection[Any]) -> str | None:
    """The revision that `db upgrade` has nothing to add to, for it is newer and works with this release; None where it may
    begin: nothing is there yet, or a revision up to this release's own.

    Raises SchemaUnfit, in a sentence that says what to do.
    """
    revision = read_revision(connection)
    if revision is None:
        return None
    refuse_stranger(connection, revision)
    return revision if revision > NEWEST else None


def declare(connection: Connection[Any], oldest: str) -> None:
    """Write down the oldest revision whose release goes on with the schema as it is now. Idempotent; the owner's to do."""
    connection.execute(DECLARE)
    connection.execute(DECLARE_THIS, (oldest,))


def refuse_stranger(connection: Connection[Any], revision: str) -> None:
    """Raise SchemaUnfit for a revision of no release of this product, or of a newer one that this does not go on with."""
    where = f"The schema of the database {connection.info.dbname} is at revision {revision}"
    if not OURS.fullmatch(revision):
        raise SchemaUnfit(
            f"{where}, which is another program's: name the ledger's own database, or an empty one and {UPGRADE}."
        )
    if revision > NEWEST and _declared(connection, revision) > NEWEST:
        raise SchemaUnfit(f"{where}, newer than this release knows ({NEWEST}): run the release that upgraded it.")


def _declared(connection: Connection[Any], revision: str) -> str:
    """The oldest revision whose release goes on with this schema; without a word about it, none but its own."""
    declares = connection.execute(DECLARES).fetchone()
    assert declares is not None
    row = connection.execute(DECLARED).fetchone() if declares[0] else None
    return revision if row is None else str(row[0])


def read_revision(connection: Connection[Any]) -> str | None:
    """The revision, None for a database without any. Raises SchemaUnfit where it and the tables contradict each other."""
    found = connection.execute(FIND).fetchone()
    assert found is not None
    has_revision, has_ledger = found
    rows = connection.execute(READ).fetchall() if has_revision else []
    revision = " and ".join(str(row[0]) for row in rows) or None
    name = connection.info.dbname
    if revision is None and has_ledger:
        raise SchemaUnfit(f"The database {name} has a ledger without its revision: restore its table alembic_version.")
    if revision is not None and OURS.fullmatch(revision) and not has_ledger:
        raise SchemaUnfit(
            f"The database {name} is at revision {revision} without the ledger's tables: restore it, or name another one."
        )
    return revision
