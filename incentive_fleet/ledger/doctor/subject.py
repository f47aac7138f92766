"""The database that is examined: connections that can only read, and what a fleet's connection would be set to.

A statement has five seconds. What the application's login may not see is asked with the owner's, where that is set.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, LiteralString

from psycopg.rows import dict_row

from incentive_fleet.errors import TransientError
from incentive_fleet.ledger.address import Parameters, parameters_of
from incentive_fleet.ledger.connection import effective_settings, mapped_errors, open_connection
from incentive_fleet.ledger.pooler import LedgerConnection

CONNECT_S: Final = 5
STATEMENT_MS: Final = 5_000
NAME: Final = "incentives doctor"

Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ExaminedDatabase:
    """Open for one examination; belongs to one thread."""

    parameters: Parameters
    connection: LedgerConnection
    owner: LedgerConnection | None  # the owner's login, where the settings name one and it answers
    owner_away: str  # why it does not
    processes: int  # worker processes of the whole fleet
    destinations: Sequence[str]  # of outcomes, by the brokers that are configured here

    @property
    def asked(self) -> Mapping[str, str]:
        """The settings that each of the fleet's connections takes, by ours and by the address."""
        return effective_settings(self.parameters)

    def rows(self, query: LiteralString, parameters: Sequence[object] = ()) -> list[Record]:
        """What a statement gives as the application's login. Raises as mapped_errors."""
        return _rows(self.connection, query, parameters)

    def row(self, query: LiteralString, parameters: Sequence[object] = ()) -> Record:
        """The one row of a statement that has one."""
        return self.rows(query, parameters)[0]

    def seen_by_most(self, query: LiteralString) -> list[Record]:
        """As the owner's login where there is one, for it may see more."""
        return _rows(self.owner or self.connection, query)

    def value(self, name: str) -> str:
        """A setting as the fleet's connections have it; "" for one that this release of Postgres lacks."""
        if name in self.asked:
            return self.asked[name]
        return str(self.row("SELECT coalesce(current_setting(%s, true), '') AS value", (name,))["value"])

    def milliseconds(self, name: str) -> int:
        """A time limit as the fleet's connections have it; 0 is none. Postgres itself reads the unit."""
        with mapped_errors(blameless=True), self.connection.transaction():
            if name in self.asked:
                self.connection.execute("SELECT set_config(%s, %s, true)", (name, self.asked[name]))
            found = self.connection.execute("SELECT setting FROM pg_settings WHERE name = %s", (name,)).fetchone()
        return int(found[0]) if found else 0


def _rows(connection: LedgerConnection, query: LiteralString, parameters: Sequence[object] = ()) -> list[Record]:
    with mapped_errors(blameless=True), connection.transaction():
        connection.execute("SELECT set_config('statement_timeout', %s, true)", (str(STATEMENT_MS),))
        return connection.cursor(row_factory=dict_row).execute(query, parameters).fetchall()


@contextmanager
def opened(url: str, owner_url: str | None, processes: int, destinations: Sequence[str]) -> Iterator[ExaminedDatabase]:
    """The database while the block runs. Raises SettingsError, DatabaseUnavailable or DatabaseUnfit."""
    parameters = parameters_of(url)
    connection = _reader(parameters)
    owner, away = _owner(owner_url)
    try:
        yield ExaminedDatabase(parameters, connection, owner, away, processes, destinations)
    finally:
        for one in (connection, owner):
            if one is not None:
                one.close()


def _owner(url: str | None) -> tuple[LedgerConnection | None, str]:
    if url is None:
        return None, ""
    try:
        return _reader(parameters_of(url, "INCENTIVES_ADMIN_DATABASE_URL")), ""
    except TransientError as error:
        return None, " ".join(str(error).split())


def _reader(parameters: Parameters) -> LedgerConnection:
    bounds = {"connect_timeout": CONNECT_S, "tcp_user_timeout": STATEMENT_MS}
    with mapped_errors(blameless=True):
        connection = open_connection({**parameters, **bounds}, NAME)
    connection.read_only = True
    connection.prepare_threshold = None
    return connection
