"""A Sentry for tests: takes envelopes over HTTP and decodes them by the published format."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.http_listener import serving_http


@dataclass
class Ingest:
    """What came so far. While `open` is not set, it takes requests and answers none."""

    dsn: str = ""
    raw: list[bytes] = field(default_factory=list)  # as sent, decompressed
    events: list[dict[str, Any]] = field(default_factory=list)
    open: threading.Event = field(default_factory=threading.Event)

    def take(self, body: bytes) -> None:
        _, *items = body.split(b"\n")
        for header, payload in zip(items[::2], items[1::2], strict=False):
            if json.loads(header)["type"] == "event":
                self.events.append(json.loads(payload))
        self.raw.append(body)


@contextmanager
def ingest() -> Iterator[Ingest]:
    """One that listens on loopback while the body runs."""
    found = Ingest()
    found.open.set()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if not found.open.wait(60):
                return
            assert self.path == "/api/42/envelope/"
            found.take(gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """Whoever sent it has gone away meanwhile."""

    with serving_http(Handler, Server) as port:
        found.dsn = f"http://publickey@127.0.0.1:{port}/42"
        try:
            yield found
        finally:
            found.open.set()
