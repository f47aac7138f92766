"""The console as tests meet it: the real application behind a real server on a free port, and an HTTP client."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime

import httpx2

from incentive_fleet.console.connections import Connections
from incentive_fleet.console.premises import Premises
from incentive_fleet.console.serving import listening, server_of
from incentive_fleet.console.visitors import Role
from incentive_fleet.ledger.api_tokens import create_token
from incentive_fleet.ledger.connection import connect
from incentive_fleet.measuring import Tally
from incentive_fleet.settings import Settings
from incentive_fleet.stopping import Stop
from tests.contract.brokers_under_test import eventually


@contextmanager
def console_at(settings: Settings, port: int = 0) -> Iterator[str]:
    """The console's address while the body runs."""
    connections = Connections(settings.need_database_url(), settings.read_database_url)
    stop = Stop(2.0)
    server = server_of(Premises(settings, connections, stop, Tally()))
    with listening("127.0.0.1", port) as listener:
        thread = threading.Thread(target=server.run, args=([listener],), name="console under test", daemon=True)
        thread.start()
        try:
            eventually(lambda: server.started)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            stop.set()
            server.should_exit = True
            thread.join(10)
            connections.close()


@contextmanager
def client_of(settings: Settings, port: int = 0) -> Iterator[httpx2.Client]:
    """A client of a console that runs with these settings."""
    with console_at(settings, port) as address, httpx2.Client(base_url=address, timeout=10) as client:
        yield client


@contextmanager
def program_at(settings: Settings, *roles: Role, name: str = "checkout") -> Iterator[httpx2.Client]:
    """A client with a token of these roles, which a program has."""
    with closing(connect(settings.need_database_url())) as connection:
        _, token = create_token(connection, name, roles, "tests", datetime.now(UTC), 1)
    with client_of(settings) as client:
        client.headers["Authorization"] = f"Bearer {token}"
        yield client
