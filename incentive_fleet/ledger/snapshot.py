"""One moment of the ledger to read from: a read-only transaction that sees no commit made after it began. Never writes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from psycopg import Connection, IsolationLevel

from incentive_fleet.ledger.connection import mapped_errors

LONG_READ_MAX_MS = 6 * 3_600_000  # a check or an export of a large ledger takes minutes; what takes hours is stuck

# A session of the batch core tells the planner to look up by index only. Reading whole tables wants the opposite.
FOR_WHOLE_TABLES = f"""
    SELECT set_config(name, value, true) FROM (VALUES
        ('enable_seqscan', 'on'), ('enable_hashjoin', 'on'), ('enable_mergejoin', 'on'),
        ('plan_cache_mode', 'auto'), ('work_mem', '128MB'), ('statement_timeout', '{LONG_READ_MAX_MS}'),
        ('idle_in_transaction_session_timeout', '{LONG_READ_MAX_MS}')) AS setting (name, value)
"""


@contextmanager
def snapshot(connection: Connection[Any], *, whole_tables: bool = False) -> Iterator[None]:
    """Everything read inside sees the ledger at one moment, whatever a live fleet commits meanwhile; it blocks nobody.

    `whole_tables` plans and waits for reading everything, else for a few look-ups. The connection must be outside a
    transaction. Raises DatabaseUnavailable or DatabaseContention; a retry helps.
    """
    connection.isolation_level, connection.read_only = IsolationLevel.REPEATABLE_READ, True
    try:
        with mapped_errors(blameless=True), connection.transaction():
            if whole_tables:
                connection.execute(FOR_WHOLE_TABLES)
            yield
    finally:
        if not connection.closed:
            connection.isolation_level = connection.read_only = None
