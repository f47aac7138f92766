"""Serves the application until it is told to stop: then it takes nothing new, and what is under way has the drain to end.

Without a login configured it listens on loopback only, for whoever can reach it there may do everything.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Final

import uvicorn

from incentive_fleet.accepting import stop_accepting
from incentive_fleet.console.application import application
from incentive_fleet.console.connections import Connections
from incentive_fleet.console.login import require_whole
from incentive_fleet.console.patience import PatientProtocol
from incentive_fleet.console.premises import Premises
from incentive_fleet.console.shields import REQUESTS
from incentive_fleet.errors import SettingsError
from incentive_fleet.logs import seldom
from incentive_fleet.measuring import Tally
from incentive_fleet.settings import Settings
from incentive_fleet.stopping import Stop

BACKLOG: Final = 256  # connections that wait to be accepted
REQUESTS_AT_ONCE: Final = 200  # one more is told 503
IDLE_S: Final = 15
IDLE_BEHIND_PROXIES_S: Final = 130  # longer than they keep a connection: hung up on in the middle, they tell people 502
HEADERS_MAX: Final = 32 * 1024
LONG_S: Final = 3_600.0
STRANGERS_CAUSE: Final = ("uvicorn.error", "incentive_fleet.console.login")  # what these tell, as often as they like

log = logging.getLogger(__name__)


class ConsoleServer(uvicorn.Server):
    """uvicorn's, which leaves signals to whoever serves them here (cli/interrupts.py), and keeps no connection at its end."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await stop_accepting(self.servers)
        await super().shutdown(sockets)
        for connection in list(self.server_state.connections):  # whose answer was not taken in the time to drain
            connection.transport.abort()
        await asyncio.sleep(0)  # closing is done by the loop, one turn later


def require_login_or_loopback(settings: Settings) -> None:
    """Raises SettingsError where it would listen to others without asking them who they are."""
    if settings.oidc_issuer is None and not _is_loopback(settings.serve_host):
        raise SettingsError(
            f"INCENTIVES_SERVE_HOST is {settings.serve_host!r}: without INCENTIVES_OIDC_ISSUER nobody logs in, so it listens on "
            "loopback only, 127.0.0.1 say."
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def serve(settings: Settings, stop: Stop, tally: Tally, until_idle_s: float | None = None) -> None:
    """Serve until the stop, or until nobody asked for so long; `tally` counts the requests.

    Raises SettingsError, also when the port is taken.
    """
    require_login_or_loopback(settings)
    require_whole(settings)
    with (
        seldom(*STRANGERS_CAUSE),
        listening(settings.serve_host, settings.serve_port) as listener,
        closing(Connections(settings.need_database_url(), settings.read_database_url)) as connections,
    ):
        address = "http://{}:{}/".format(*listener.getsockname()[:2])
        who = "whoever logs in" if settings.oidc_issuer else "whoever is on this machine, without login, as you"
        log.info("the console is served", extra={"address": address, "to": who})
        server = server_of(Premises(settings, connections, stop, tally))
        threading.Thread(
            target=_end_with, args=(server, stop, tally, until_idle_s), name="console stop", daemon=True
        ).start()
        server.run(sockets=[listener])


def server_of(premises: Premises) -> uvicorn.Server:
    """The server, which listens to nothing yet."""
    return ConsoleServer(
        uvicorn.Config(
            application(premises),
            http=PatientProtocol,
            ws="none",
            log_config=None,
            access_log=False,  # addresses of people; the metrics count requests
            lifespan="off",
            backlog=BACKLOG,
            limit_concurrency=REQUESTS_AT_ONCE,
            timeout_keep_alive=IDLE_BEHIND_PROXIES_S if premises.settings.serve_proxies else IDLE_S,
            timeout_graceful_shutdown=max(1, int(premises.stop.drain_s - 1)),
            h11_max_incomplete_event_size=HEADERS_MAX,
            server_header=False,
            proxy_headers=False,
        )
    )


@contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """A socket there, until the block ends. It names its protocol, for asyncio sends at once on connections of TCP alone: else the
    body of an answer waits 40 ms for the client's system to acknowledge the head. Raises SettingsError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            raise SettingsError(
                f"INCENTIVES_SERVE_HOST and INCENTIVES_SERVE_PORT are {host}:{port}: {error.strerror}."
            ) from None
        yield listener


def _end_with(server: uvicorn.Server, stop: Stop, tally: Tally, until_idle_s: float | None) -> None:
    before = -1
    while not stop.wait(until_idle_s or LONG_S):
        now = answered(tally).total()
        if until_idle_s and now == before and not server.server_state.tasks:
            break
        before = now
    server.should_exit = True


def answered(tally: Tally) -> Counter[str]:
    """Requests that were answered, by area."""
    counts: Counter[str] = Counter()
    for key, count in dict(tally.sums).items():
        if key[0] == REQUESTS:
            counts[key[1]] += int(count)
    return counts
