"""The database for requests: bounded pools, each transaction under the visitor's role and within a deadline.

A read may come from a replica (INCENTIVES_READ_DATABASE_URL); whatever decides or writes goes to the ledger itself.
It never keeps a role from one request to the next: each transaction takes role and deadline for itself.
"""

from __future__ import annotations

import logging
import select
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Final

import psycopg
from psycopg_pool import ConnectionPool, PoolTimeout, TooManyRequests

from incentive_fleet.console.visitors import SERVICE, Visitor, Work
from incentive_fleet.errors import DatabaseUnavailable
from incentive_fleet.ledger.address import parameters_of
from incentive_fleet.ledger.connection import NEEDED, STATEMENT_TIMEOUT_MS, USUAL, mapped_errors, open_connection
from incentive_fleet.ledger.pooler import (
    LedgerConnection,
    is_pooled,
    take_for_each_transaction,
    take_for_session,
    take_from_now_on,
)
from incentive_fleet.ledger.revision import require_fit
from incentive_fleet.ledger.session import Session

CONNECTIONS_MAX: Final = 10  # of each pool; Starlette answers with 40 threads, and the rest of them wait
WAITING_MAX: Final = 100  # requests that wait for a connection; one more is told at once to come again
SESSIONS_MAX: Final = 4  # of the core, for quotes, rehearsals and what writes in the ledger
WAIT_S: Final = 2.0
DEADLINE_S: Final = 10.0  # for one statement of a request that names no deadline
EACH: Final = ("statement_timeout", "role")  # what differs from one request to the next
LONGEST_S: Final = STATEMENT_TIMEOUT_MS / 1_000  # for one of the core's, likewise
PREPARED_AFTER: Final = 5  # times; a page's statements are the same for everybody
NAME: Final = "incentives serve"
TAKEN: Final = "no connection to the database came free in time, or none can be made"

logging.getLogger("psycopg.pool").setLevel(logging.ERROR)  # it warns of each attempt while a database is away


class _Opened(LedgerConnection):
    """How the pool opens a connection: as the rest of the product does, with the same words when it cannot."""

    @classmethod
    def connect(cls, conninfo: str = "", **_: Any) -> Any:
        connection = open_connection(parameters_of(conninfo), NAME)
        try:
            usual, pooled = {**USUAL, **NEEDED}, is_pooled(connection)
            if not pooled:  # what is the same for everybody, a session of our own keeps
                take_for_session(connection, {name: value for name, value in usual.items() if name not in EACH})
                usual = {name: usual[name] for name in EACH}
            take_for_each_transaction(connection, usual)
            if not pooled:
                connection.prepare_threshold = PREPARED_AFTER
            require_fit(connection)
        except BaseException:
            connection.close()
            raise
        return connection


class Connections:
    """The pools. Thread-safe. They fill as requests come, so that the console starts while a database is away."""

    def __init__(self, url: str, read_url: str | None) -> None:
        self._url = url
        self._ledger = _pool(url)
        self._replica = _pool(read_url) if read_url else self._ledger
        self._idle: list[Session] = []
        self._free = threading.BoundedSemaphore(SESSIONS_MAX)

    def close(self) -> None:
        """Close all connections that nobody holds; the others as they are given back. Idempotent."""
        for pool in {self._ledger, self._replica}:
            pool.close()
        while self._idle:
            self._idle.pop().close()

    @contextmanager
    def to(self, work: Work, visitor: Visitor, deadline_s: float = DEADLINE_S) -> Iterator[psycopg.Connection[Any]]:
        """A connection for this work of this visitor, outside of a transaction.

        Raises Refused (role-missing), DatabaseUnavailable, also when all connections stay taken, or DatabaseUnfit; a retry
        helps with the latter two. A statement that outlasts the deadline is StatementTimedOut.
        """
        visitor.require(work)
        bounds = {"statement_timeout": _milliseconds(deadline_s), "role": work.role}
        if work in (Work.LOOK, Work.READ):
            with _taken(self._replica, {**bounds, "transaction_read_only": "on"}) as connection:
                yield connection
        else:
            with _taken(self._ledger, bounds) as connection:
                yield connection

    @contextmanager
    def own(self) -> Iterator[psycopg.Connection[Any]]:
        """A connection in the console's own name, to find out who asks. Raises as `to`."""
        with _taken(self._ledger, {}) as connection:
            yield connection

    @contextmanager
    def session(self, work: Work, visitor: Visitor, deadline_s: float = LONGEST_S) -> Iterator[Session]:
        """A session of the core, for work that the service does in the visitor's name. Raises as `to`, and what Session raises."""
        visitor.require(work)
        assert work.role == SERVICE
        if not self._free.acquire(timeout=WAIT_S):
            raise DatabaseUnavailable(TAKEN)
        try:
            with mapped_errors(blameless=True):
                session = self._idle.pop() if self._idle else Session(self._url, application_name=NAME)
                try:
                    take_from_now_on(session.connection, {"statement_timeout": _milliseconds(deadline_s)})
                    yield session
                except BaseException:
                    session.close()
                    raise
                self._idle.append(session)
        finally:
            self._free.release()


def _milliseconds(seconds: float) -> str:
    return str(max(1, round(seconds * 1_000)))  # 0 would be none at all


@contextmanager
def _taken(pool: ConnectionPool[LedgerConnection], bounds: Mapping[str, str]) -> Iterator[LedgerConnection]:
    with ExitStack() as stack:
        stack.enter_context(mapped_errors(blameless=True))
        try:
            connection = stack.enter_context(pool.connection())
        except (PoolTimeout, TooManyRequests):
            raise DatabaseUnavailable(TAKEN) from None
        connection.each_transaction = {**connection.usual, **bounds}
        yield connection


def _pool(url: str) -> ConnectionPool[LedgerConnection]:
    return ConnectionPool(
        url,
        connection_class=_Opened,
        min_size=0,
        max_size=CONNECTIONS_MAX,
        max_waiting=WAITING_MAX,
        timeout=WAIT_S,
        max_idle=60.0,
        check=_ask_if_told,
        open=True,
        name="console",
    )


def _ask_if_told(connection: LedgerConnection) -> None:
    """A server that ended, or ended this session, has said so, and nothing else is said between two requests: only then the
    connection is tried, for that is a round trip. Raises psycopg.Error where it is lost."""
    news = select.poll()
    news.register(connection, select.POLLIN)
    if news.poll(0):
        ConnectionPool.check_connection(connection)
