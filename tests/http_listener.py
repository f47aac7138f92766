"""A server of HTTP's own library, on loopback, that tests put in the place of somebody else's service."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

POLL_S = 0.01  # between looks for the end; the library's own half a second is waited for at each


@contextmanager
def serving_http(
    handler: type[BaseHTTPRequestHandler], server_type: type[ThreadingHTTPServer] = ThreadingHTTPServer
) -> Iterator[int]:
    """Serve in a thread of its own while the body runs; yields the port."""
    with server_type(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(POLL_S,), name="http listener", daemon=True)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()
