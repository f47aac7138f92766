"""Which of an address's several hosts leads, where more than one says that it does. It asks; it stops and promotes nobody.

A leader whose Patroni hangs, or died alone, goes on as if it led, beside the one that was promoted. With synchronous
replication no COMMIT returns from it, for the standby that it waits for follows somebody else: nothing is lost, and who is
connected to it would wait until somebody stops it. So whoever waits for long asks the other hosts. Each promotion begins a
timeline of a higher number, so the highest leads, and two who ask at different times never send each other back and forth.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Final

import psycopg

from incentive_fleet.ledger.address import Parameters

LOOK_S: Final = 5.0  # without an answer, before the other hosts are asked; a commit takes well under a second
USUAL_PORT: Final = 5432
# A leader that waits for a standby and has none: cut off from all of them, or led no more.
IS_ALONE: Final = """
    SELECT current_setting('transaction_read_only') = 'off' AND current_setting('synchronous_standby_names') <> ''
           AND NOT EXISTS (SELECT FROM pg_stat_replication)
"""
# The first eight digits of a log file's name; nothing of a standby, which has none to name.
TIMELINE: Final = """
    SELECT CASE WHEN current_setting('transaction_read_only') = 'off'
           THEN ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::bigint END
"""

Dial = Callable[[Parameters], psycopg.Connection[Any]]


class Superseded(psycopg.OperationalError):
    """Mapped like a connection that broke: DatabaseUnavailable, and a retry meets the server that leads."""


@dataclass(frozen=True, slots=True)
class Hosts:
    """The hosts of one address, each as an address of its own, and how one is dialled."""

    each: Sequence[Parameters]
    dial: Dial

    def leader_over(self, host: str, port: int) -> Parameters | None:
        """The host that leads in place of this one; None where none is known to. Takes `connect_timeout` a host at most."""
        timelines = [(self._timeline(one), one) for one in self.each]
        ours = max((led for led, one in timelines if _is_at(one, host, port)), default=0)
        led, leader = max(timelines, key=lambda found: found[0])
        return leader if led > ours else None

    def instead_of(self, host: str, port: int) -> str:
        """The same in a sentence; "" where no other one is known to lead."""
        leader = self.leader_over(host, port)
        if leader is None:
            return ""
        return f"{host}:{port} was replaced and does not know it: {leader.get('host')}:{leader.get('port') or USUAL_PORT} leads"

    def _timeline(self, host: Parameters) -> int:
        """0 of one that does not lead, or does not answer."""
        try:
            with closing(self.dial(host)) as connection:
                row = connection.execute(TIMELINE, prepare=False).fetchone()
        except psycopg.Error:  # away, or a standby that was asked too early: no leader to go to
            return 0
        return int(row[0]) if row is not None and row[0] is not None else 0


def place_of(connection: psycopg.Connection[Any]) -> tuple[str, int]:
    """Host, as the address has it, and port of a connection."""
    return connection.info.host, connection.info.port


def _is_at(parameters: Parameters, host: str, port: int) -> bool:
    named = parameters.get("host") or parameters.get("hostaddr")
    return named == host and int(parameters.get("port") or USUAL_PORT) == port


def is_alone(connection: psycopg.Connection[Any]) -> bool:
    """Whether the server waits for a standby with each COMMIT, and none is connected to it. The connection is idle."""
    row = connection.execute(IS_ALONE, prepare=False).fetchone()
    return bool(row and row[0])
