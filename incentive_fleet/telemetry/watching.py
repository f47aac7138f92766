"""What a command that runs until it is told to stop tells of itself meanwhile: health and metrics over HTTP, lines in the
log, to Sentry, and a row in the ledger.

It starts and ends with the command, and nothing that it does keeps the command from its work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Final

from incentive_fleet.brokers.contract import Broker
from incentive_fleet.consumers.health import serve_health
from incentive_fleet.measuring import Tally
from incentive_fleet.sentry import reporting
from incentive_fleet.settings import Settings
from incentive_fleet.stopping import Stop
from incentive_fleet.telemetry.exposition import BACKLOG, LETTERS, MONEY, SERVER, exposing
from incentive_fleet.telemetry.heartbeat import beating
from incentive_fleet.telemetry.lines import telling
from incentive_fleet.telemetry.pushing import pushing

EVERYTHING: Final = (BACKLOG, LETTERS, SERVER, MONEY)
OF_RELAY: Final = (BACKLOG, SERVER)
OF_QUOTES: Final = (SERVER,)
OF_COLLECTOR: Final = (LETTERS, SERVER)
OF_CONSOLE: Final = (SERVER,)


@dataclass(frozen=True, slots=True)
class Watched:
    """One process as seen from outside."""

    activity: str  # the name under which /readyz tells that it is paused
    paused: Callable[[], bool]
    tally: Callable[[], Tally]  # what it has counted until now
    parts: tuple[str, ...]  # of the ledger, whose gauges it tells
    depths: bool = True  # whether it tells how much lies in the brokers' queues


@contextmanager
def watching(settings: Settings, brokers: Sequence[Broker], stop: Stop, process: Watched) -> Iterator[None]:
    """Tell while the body runs: in the log, in the ledger, over HTTP to whoever asks where INCENTIVES_HEALTH_PORT is set, and
    to INCENTIVES_OTLP_ENDPOINT and INCENTIVES_SENTRY_DSN. Raises SettingsError when the port is taken or the packages for one of
    them are missing."""
    with (
        reporting(settings, stop.left_s),
        beating(settings.need_database_url(), process.activity, process.tally),
        exposing(settings, brokers if process.depths else (), stop, process.tally, process.parts) as exposition,
        serve_health(settings, brokers, process.activity, process.paused, exposition.page),
        pushing(settings, exposition) if settings.otlp_endpoint else nullcontext(),
        telling(settings, brokers, process.activity, process.tally),
    ):
        yield
