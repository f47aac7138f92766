"""One moment of the ledger to read from: a read-only transaction that sees no commit made after it began, and another one
that sees exactly the same. Never writes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

from psycopg import Connection, IsolationLevel
from psycopg.sql import SQL

from incentive_fleet.errors import TransientError
from incentive_fleet.ledger.connection import mapped_errors
from incentive_fleet.ledger.pooler import LedgerConnection

Another = Callable[[], AbstractContextManager[Connection[Any]]]  # opens a connection, and closes it

LONG_READ_MAX_MS = 6 * 3_600_000  # a check or an export of a large ledger takes minutes; what takes hours is stuck

# A session of the batch core tells the planner to look up by index only. Reading whole tables wants the opposite.
FOR_WHOLE_TABLES = f"""
    SELECT set_config(name, value, true) FROM (VALUES
        ('enable_seqscan', 'on'), ('enable_hashjoin', 'on'), ('enable_mergejoin', 'on'),
        ('plan_cache_mode', 'auto'), ('work_mem', '128MB'), ('statement_timeout', '{LONG_READ_MAX_MS}'),
        ('idle_in_transaction_session_timeout', '{LONG_READ_MAX_MS}')) AS setting (name, value)
"""


@contextmanager
def snapshot(connection: Connection[Any], *, whole_tables: bool = False, moment: str | None = None) -> Iterator[None]:
    """Everything read inside sees the ledger at one moment, whatever a live fleet commits meanwhile; it blocks nobody.

    `whole_tables` plans and waits for reading everything, else for a few look-ups. `moment` is an open transaction's, by the
    name under which it was exported. The connection must be outside a transaction. Raises DatabaseUnavailable or
    DatabaseContention; a retry helps.
    """
    connection.isolation_level, connection.read_only = IsolationLevel.REPEATABLE_READ, True
    try:
        with mapped_errors(blameless=True), connection.transaction():
            if moment is not None:  # before anything is read
                connection.execute(SQL("SET TRANSACTION SNAPSHOT {}").format(moment))
            if whole_tables:
                connection.execute(FOR_WHOLE_TABLES)
            yield
    finally:
        if not connection.closed:
            connection.isolation_level = connection.read_only = None


@contextmanager
def beside(connection: Connection[Any], another: Another) -> Iterator[Connection[Any] | None]:
    """A second connection, for a thread of its own, that sees what `connection` sees in the snapshot that it is in.

    None where there can be none: none is free, an address of several hosts led to another one, or a pooler stands between,
    where a transaction has read its settings before it could be told of a moment.
    """
    with ExitStack() as opened:
        yield _joined(opened, connection, another)


def _joined(opened: ExitStack, connection: Connection[Any], another: Another) -> Connection[Any] | None:
    if isinstance(connection, LedgerConnection) and connection.each_transaction is not None:
        return None
    try:
        second = opened.enter_context(another())
        row = connection.execute("SELECT pg_export_snapshot()").fetchone()
        assert row is not None
        opened.enter_context(snapshot(second, whole_tables=True, moment=row[0]))
    except TransientError:
        return None
    return second
