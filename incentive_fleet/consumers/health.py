"""Health over HTTP, for whoever restarts or routes: /healthz (alive) and /readyz (parts reachable, not paused)."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import psycopg

from incentive_fleet.brokers.rabbitmq import address
from incentive_fleet.consumers.supervisor import Fleet
from incentive_fleet.settings import Settings

PROBE_TIMEOUT_S = 2
HTTPS_PORT = 443
Probe = Callable[[], None]


@contextmanager
def serve_health(settings: Settings, sources: Sequence[str], fleet: Fleet) -> Iterator[int | None]:
    """Serve while the body runs, at INCENTIVES_HEALTH_HOST and _PORT; not at all when the port is unset.

    Yields the port (0 asks for a free one). Raises OSError when the port is taken.
    """
    if settings.health_port is None:
        yield None
        return
    probes = probes_of(settings, sources)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/healthz":
                self._answer(200, {"status": "alive"})
            elif self.path == "/readyz":
                faults = failing(probes) | ({"fleet": "paused"} if fleet.paused else {})
                self._answer(503 if faults else 200, {"status": "not ready" if faults else "ready", "faults": faults})
            else:
                self._answer(404, {"status": "not found", "paths": ["/healthz", "/readyz"]})

        def _answer(self, status: int, document: dict[str, object]) -> None:
            body = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """A probe every few seconds is not news."""

    with ThreadingHTTPServer((settings.health_host, settings.health_port), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, name="health", daemon=True)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def probes_of(settings: Settings, sources: Sequence[str]) -> dict[str, Probe]:
    """A probe a part that this fleet needs; each raises when its part cannot be reached within two seconds."""

    def database() -> None:
        with psycopg.connect(settings.need_database_url(), connect_timeout=PROBE_TIMEOUT_S) as connection:
            connection.execute("SELECT 1")

    def rabbitmq() -> None:
        nodes = address.amqp(settings).nodes
        for number, node in enumerate(nodes, 1):  # any of them will do
            try:
                return _reach(node.host, node.port, PROBE_TIMEOUT_S / len(nodes))
            except OSError:
                if number == len(nodes):
                    raise

    def sqs() -> None:
        endpoint = settings.aws_endpoint_url or f"https://sqs.{settings.need_aws_region()}.amazonaws.com"
        url = urlsplit(endpoint)
        _reach(url.hostname or "localhost", url.port or HTTPS_PORT)

    known: dict[str, Probe] = {"rabbitmq": rabbitmq, "sqs": sqs}
    return {"database": database} | {source: known[source] for source in sources}


def failing(probes: dict[str, Probe]) -> dict[str, str]:
    """Which parts cannot be reached, and why."""
    faults = {}
    for name, probe in probes.items():
        try:
            probe()
        except (OSError, psycopg.Error) as error:
            faults[name] = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return faults


def _reach(host: str, port: int, timeout_s: float = PROBE_TIMEOUT_S) -> None:
    socket.create_connection((host, port), timeout=timeout_s).close()
