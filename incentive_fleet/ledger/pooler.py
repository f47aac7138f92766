"""Works behind a pooler that gives the server's session to somebody else after each transaction, as PgBouncer does.

Nothing that outlives a transaction is relied on there: each transaction takes the role and the settings for itself
alone, so that nothing leaks to the next client of that session; a single statement is a transaction too; and no statement is
prepared by name. A direct connection is psycopg's own in all of this and pays nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Self

import psycopg
from psycopg import errors as pg
from psycopg.abc import RV, PQGen
from psycopg.pq import PipelineStatus, TransactionStatus
from psycopg.sql import Literal

from incentive_fleet.errors import DatabaseUnfit
from incentive_fleet.ledger.leadership import LOOK_S, Superseded, is_alone
from incentive_fleet.ledger.replication import NOT_REPLICATED, NotReplicated, is_not_replicated

TAKE = "SELECT set_config(name, value, %s) FROM unnest(%s::text[], %s::text[]) AS s (name, value)"


class LedgerConnection(psycopg.Connection[Any]):
    """psycopg's connection, and three things more: what each of its transactions takes for itself (nothing, unless it is
    pooled, or goes from one request to the next), that a COMMIT which no standby has confirmed is none (replication.py), and
    that it does not wait for a server in whose place another one leads (leadership.py)."""

    each_transaction: Mapping[str, str] | None = None
    usual: Mapping[str, str] = MappingProxyType({})  # of that, what no single request has asked for
    alone: bool = False  # what was committed last is on this server only
    superseded: Callable[[], str] | None = None  # who leads instead, in a sentence; None where there is one host alone
    _look_at: float = 0.0

    def heed_replication(self) -> None:
        """From now on, take no COMMIT for one that was not replicated as it should be."""
        self.add_notice_handler(self._heed)

    def _heed(self, notice: pg.Diagnostic) -> None:
        self.alone = self.alone or is_not_replicated(notice)

    def wait(self, gen: PQGen[RV], *args: Any, **options: Any) -> RV:
        """As psycopg's, through which every answer of the server comes. Raises NotReplicated and Superseded, on a
        connection then closed."""
        try:
            answer = super().wait(gen if self.superseded is None else self._watched(gen), *args, **options)
        except Superseded:
            self.close()
            raise
        if self.alone:
            self.close()
            raise NotReplicated(NOT_REPLICATED)
        return answer

    def _watched(self, gen: PQGen[RV]) -> PQGen[RV]:
        """The same, and each LOOK_S without an answer it asks who leads; psycopg comes by ten times a second."""
        look_at = time.monotonic() + LOOK_S
        try:
            awaited = next(gen)
            while True:
                ready = yield awaited
                if not ready and time.monotonic() >= look_at:
                    self._require_nobody_instead()
                    look_at = time.monotonic() + LOOK_S
                awaited = gen.send(ready)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]

    def require_leading(self) -> None:
        """For whoever only reads, and waits for nothing. Raises Superseded, on a connection then closed; asks the server
        every LOOK_S at most, and the others only where it is alone."""
        if self.superseded is not None and time.monotonic() >= self._look_at:
            if is_alone(self):
                try:
                    self._require_nobody_instead()
                except Superseded:
                    self.close()
                    raise
            self._look_at = time.monotonic() + LOOK_S

    def _require_nobody_instead(self) -> None:
        if self.superseded is not None and (told := self.superseded()):
            raise Superseded(told)

    @contextmanager
    def transaction(  # type: ignore[override]  # nobody asks psycopg's own object for anything
        self, savepoint_name: str | None = None, force_rollback: bool = False
    ) -> Iterator[None]:
        """As psycopg's; the outermost one takes what each transaction takes with its beginning, in one round trip."""
        takes = self.each_transaction if self.info.transaction_status == TransactionStatus.IDLE else None
        if takes is None or savepoint_name is not None or self.info.pipeline_status != PipelineStatus.OFF:
            with super().transaction(savepoint_name, force_rollback):
                if takes is not None:
                    take_settings(self)
                yield
            return
        try:
            psycopg.Cursor(self).execute(self._beginning(takes), prepare=False)
            yield
        except BaseException:
            with suppress(psycopg.Error):  # a server that lost its client ends the transaction by itself
                self.rollback()
            raise
        if force_rollback:
            self.rollback()
        else:
            self.commit()

    def _beginning(self, takes: Mapping[str, str]) -> bytes:
        level = (
            "" if self.isolation_level is None else f" ISOLATION LEVEL {self.isolation_level.name.replace('_', ' ')}"
        )
        access = "" if self.read_only is None else " READ ONLY" if self.read_only else " READ WRITE"
        return f"BEGIN{level}{access}; {_taking(tuple(takes.items()))}".encode()


@lru_cache(maxsize=256)
def _taking(settings: tuple[tuple[str, str], ...]) -> str:
    """The statement that takes them, written out, for several statements in one message have no parameters."""
    pairs = [(Literal(name).as_string(), Literal(value).as_string()) for name, value in settings]
    return "SELECT " + ", ".join(f"set_config({name}, {value}, true)" for name, value in pairs)


class _SingleStatements(psycopg.Cursor[Any]):
    """Behind a pooler, a statement outside of a transaction is one, with the settings of all others."""

    def execute(self, query: Any, params: Any = None, **options: Any) -> Self:
        info = self.connection.info
        if info.transaction_status != TransactionStatus.IDLE or info.pipeline_status != PipelineStatus.OFF:
            return super().execute(query, params, **options)
        with self.connection.transaction():
            return super().execute(query, params, **options)


def is_pooled(connection: psycopg.Connection[Any]) -> bool:
    """Whether the process that answers is another one than greeted us: something stands between, and shares sessions.

    A proxy that hands bytes on hands on the greeting of the server; a pooler has to greet by itself, for it has not
    chosen a server yet.
    """
    row = connection.execute("SELECT pg_backend_pid()", prepare=False).fetchone()
    return row is not None and row[0] != connection.info.backend_pid


def take_for_session(connection: LedgerConnection, settings: Mapping[str, str]) -> None:
    """Give a direct connection its settings, until it is closed."""
    connection.execute(TAKE, (False, list(settings), list(settings.values())), prepare=False)


def take_for_each_transaction(connection: LedgerConnection, settings: Mapping[str, str]) -> None:
    """Give each transaction of a connection these settings, and try one. Raises DatabaseUnfit without transactions."""
    refuse_statement_pooling(connection)
    connection.usual = connection.each_transaction = settings
    connection.cursor_factory = _SingleStatements
    connection.prepare_threshold = None
    with connection.transaction():
        pass


def take_from_now_on(connection: psycopg.Connection[Any], settings: Mapping[str, str]) -> None:
    """Change settings of a connection, until they are changed again: of a direct one's session, of a pooled one's transactions."""
    assert isinstance(connection, LedgerConnection)
    if connection.each_transaction is None:
        take_for_session(connection, settings)
    else:
        connection.each_transaction = {**connection.each_transaction, **settings}


def refuse_statement_pooling(connection: LedgerConnection) -> None:
    """Raises DatabaseUnfit where a pooler takes no transaction. The connection, in autocommit, is outside of one."""
    try:
        with connection.transaction():
            pass
    except pg.ProtocolViolation as error:
        where = f"{connection.info.host or 'the server'}:{connection.info.port}"
        raise DatabaseUnfit(
            f"The pooler at {where} (PgBouncer or one like it) takes no transaction: {error.diag.message_primary}. "
            "Set its pool_mode to transaction or session, or connect to Postgres itself."
        ) from None


def take_settings(connection: psycopg.Connection[Any]) -> None:
    """Take what a pooled connection's transactions take; for whoever writes BEGIN by hand, in the same round trip."""
    settings = connection.each_transaction if isinstance(connection, LedgerConnection) else None
    if settings:
        connection.execute(TAKE, (True, list(settings), list(settings.values())))
