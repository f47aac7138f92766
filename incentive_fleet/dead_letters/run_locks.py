"""Which runs of `replay` live: each holds an advisory lock for as long as it does. It never touches a letter.

The lock belongs to a transaction on a connection of its own, which stays open and does nothing else: it reads no row,
so it holds up no vacuum. A pooler leaves the server's session with its client for as long as that transaction lasts.
"""

from __future__ import annotations

import contextlib
from typing import Any

import psycopg
from psycopg import Connection

from incentive_fleet.dead_letters.runs import RUN_LOCK
from incentive_fleet.ledger.connection import connect, mapped_errors, require_leading

# Waiting is all that this transaction does; and a host that vanished is noticed within a minute, by the server too, so that
# another process goes on. Names that this server does not know are not among its settings.
WAIT_AS_LONG_AS_IT_TAKES = """
    SELECT set_config(name, setting, true)
    FROM (VALUES ('idle_in_transaction_session_timeout', '0'), ('transaction_timeout', '0'), ('tcp_keepalives_idle', '30'),
        ('tcp_keepalives_interval', '10'), ('tcp_keepalives_count', '3')) AS ours (name, setting)
    WHERE name IN (SELECT name FROM pg_settings)
"""


class RunLocks:
    """The locks that one run holds: its own, and those of dead runs that it takes over from. Belongs to one thread."""

    def __init__(self, url: str, number: int) -> None:
        """Try to take the lock of run `number`; `held` says whether it was free. Raises as `connect` does."""
        self.number = number
        self.held = False
        self._dead: set[int] = set()
        self._connection: Connection[Any] = connect(url, application_name="incentives replay lock")
        self._open = contextlib.ExitStack()
        try:
            with mapped_errors(blameless=True):
                self._open.enter_context(self._connection.transaction())
                self._connection.execute(WAIT_AS_LONG_AS_IT_TAKES)
                self.held = self._try(number)
        except BaseException:
            self.close()
            raise

    def check(self) -> None:
        """Raises DatabaseUnavailable when the lock is lost, and with it the right to go on."""
        with mapped_errors(blameless=True):
            self._connection.execute("SELECT 1")
        require_leading(self._connection)  # a lock that a replaced leader keeps is kept from nobody

    def is_dead(self, number: int) -> bool:
        """Whether run `number` lives no more; then its lock is kept until this run ends, so that nobody else takes over."""
        if number != self.number and number not in self._dead:
            with mapped_errors(blameless=True):
                if self._try(number):
                    self._dead.add(number)
        return number in self._dead

    def _try(self, number: int) -> bool:
        row = self._connection.execute("SELECT pg_try_advisory_xact_lock(%s)", (RUN_LOCK + number,)).fetchone()
        return row is not None and bool(row[0])

    def close(self) -> None:
        """Let go of all locks. Idempotent."""
        with contextlib.suppress(
            psycopg.Error
        ):  # a transaction that broke is as over as can be, and its locks are free
            self._open.close()
        self._connection.close()
