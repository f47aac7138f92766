"""The console as tests meet it: the real application behind a real server on a free port, and an HTTP client."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import uvicorn

from incentive_fleet.console.application import application
from incentive_fleet.console.connections import Connections
from incentive_fleet.console.premises import Premises
from incentive_fleet.measuring import Tally
from incentive_fleet.settings import Settings
from incentive_fleet.stopping import Stop
from tests.contract.brokers_under_test import eventually


@contextmanager
def console_at(settings: Settings) -> Iterator[str]:
    """The console's address while the body runs."""
    connections = Connections(settings.need_database_url(), settings.read_database_url)
    stop = Stop(2.0)
    config = uvicorn.Config(
        application(Premises(settings, connections, stop, Tally())),
        host="127.0.0.1",
        port=0,
        log_config=None,
        lifespan="off",
        timeout_graceful_shutdown=2,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, name="console under test", daemon=True)
    thread.start()
    try:
        eventually(lambda: server.started)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        stop.set()
        server.should_exit = True
        thread.join(10)
        connections.close()


@contextmanager
def client_of(settings: Settings) -> Iterator[httpx.Client]:
    """A client of a console that runs with these settings."""
    with console_at(settings) as address, httpx.Client(base_url=address, timeout=10) as client:
        yield client
