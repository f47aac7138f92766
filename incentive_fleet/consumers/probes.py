"""Asks the parts that a fleet needs whether they can be reached: one question at a time of each, however many want to know.

Answers are stable codes for whoever routes or restarts; what a driver said goes to the log, once, when an answer changes.
A probe changes nothing.
"""

from __future__ import annotations

import logging
import select
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Final

import psycopg
from psycopg.pq import ExecStatus

from incentive_fleet.addresses import without_logins
from incentive_fleet.brokers import registry
from incentive_fleet.brokers.contract import Broker
from incentive_fleet.errors import FleetError
from incentive_fleet.ledger.address import parameters_of
from incentive_fleet.ledger.connection import open_connection
from incentive_fleet.settings import Settings

PROBE_TIMEOUT_S: Final = 2
REACHED, UNREACHABLE, TIMED_OUT, FAILED = "", "unreachable", "timed-out", "probe-failed"
Probe = Callable[[], None]

log = logging.getLogger(__name__)


class Part:
    """One part and the question about it that is under way, if any. `ask` belongs to one thread."""

    def __init__(self, name: str, probe: Probe) -> None:
        self.name = name
        self._probe = probe
        self._asked: Future[str] | None = None
        self._last = REACHED

    def ask(self) -> Future[str]:
        """The answer to come, REACHED or a code; one that is under way is everybody's, so that no two wait for a part."""
        if self._asked is None or self._asked.done():
            self._asked = Future()
            self._asked.set_running_or_notify_cancel()  # one who gives up waiting cannot take it from the others
            threading.Thread(target=self._answer, args=(self._asked,), name=f"probe {self.name}", daemon=True).start()
        return self._asked

    def _answer(self, asked: Future[str]) -> None:
        code, said = REACHED, ""
        try:
            self._probe()
        except TimeoutError as error:
            code, said = TIMED_OUT, str(error)
        except (OSError, psycopg.Error, FleetError) as error:
            code, said = UNREACHABLE, f"{type(error).__name__}: {error}"
        except Exception:
            code = FAILED
            log.exception("a probe failed", extra={"part": self.name})
        if code not in (self._last, FAILED):
            log.info(
                "a part is reached again" if code == REACHED else "a part cannot be reached",
                extra=self._told(code, said),
            )
        self._last = code
        asked.set_result(code)

    def _told(self, code: str, said: str) -> dict[str, str]:
        return {"part": self.name} | ({"code": code, "error": without_logins(said)} if code else {})


class Database:
    """A probe of Postgres that keeps its one connection from question to question. One thread at a time."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: psycopg.Connection[object] | None = None

    def __call__(self) -> None:
        """Raises OSError (TimeoutError), psycopg.Error or SettingsError."""
        kept, self._connection = self._connection, None
        if kept is not None:
            try:
                _answers(kept)
            except psycopg.Error:  # it may have ended long ago; a new one says how things are now
                kept.close()
            except BaseException:
                kept.close()
                raise
            else:
                self._connection = kept
                return
        bounds = {"connect_timeout": PROBE_TIMEOUT_S, "tcp_user_timeout": PROBE_TIMEOUT_S * 1_000}
        opened = open_connection({**parameters_of(self._url), **bounds}, "incentives readyz")
        try:
            _answers(opened)
        except BaseException:
            opened.close()
            raise
        self._connection = opened

    def close(self) -> None:
        """Give the connection back. Harmless when called twice."""
        if self._connection is not None:
            self._connection.close()


def _answers(connection: psycopg.Connection[object]) -> None:
    """One statement there and back, within the bound whatever the server does: psycopg itself waits without one."""
    raw, ends = connection.pgconn, time.monotonic() + PROBE_TIMEOUT_S
    raw.send_query(b"SELECT 1")
    poll = select.poll()
    poll.register(raw.socket, select.POLLIN)
    while raw.is_busy():
        if not poll.poll(max(0.0, ends - time.monotonic()) * 1_000):
            raise TimeoutError(f"no answer to a statement within {PROBE_TIMEOUT_S} s")
        raw.consume_input()
    while (result := raw.get_result()) is not None:
        if result.status != ExecStatus.TUPLES_OK:
            raise psycopg.OperationalError(result.get_error_message())


def probes_of(settings: Settings, brokers: Sequence[Broker]) -> dict[str, Probe]:
    """A probe a part that this fleet needs; each raises when its part cannot be reached within two seconds."""
    database = {"database": Database(settings.need_database_url())}
    return database | registry.probes_of(settings, brokers, PROBE_TIMEOUT_S)
