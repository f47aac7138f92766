"""Servers that take a login and refuse it: Postgres that asks for the password, and HTTP that repeats all that it was sent.

What they received is kept, so that a test knows that the secret was on its way at all.
"""

from __future__ import annotations

import base64
import http.server
import json
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

from tests.http_listener import serving_http

SSL_REQUEST, GSS_REQUEST = 80877103, 80877104
REFUSED = b'SFATAL\0VFATAL\0C28P01\0Mpassword authentication failed for user "u"\0\0'


@dataclass
class Server:
    """One that runs: where, and what came."""

    port: int
    received: list[bytes] = field(default_factory=list)

    @property
    def everything(self) -> bytes:
        """What came, and what in it was base64."""
        words = b" ".join(self.received).split()
        return b" ".join([*words, *(_opened(word) for word in words)])


def _opened(word: bytes) -> bytes:
    try:
        return base64.b64decode(word, validate=True)
    except ValueError:
        return b""


@contextmanager
def refusing_postgres() -> Iterator[Server]:
    """Asks every login for its password in clear text, and does not take it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = Server(listener.getsockname()[1])
        threading.Thread(target=_serve_postgres, args=(listener, server), daemon=True).start()
        yield server
        listener.shutdown(socket.SHUT_RDWR)


def _serve_postgres(listener: socket.socket, server: Server) -> None:
    while True:
        try:
            client, _ = listener.accept()
        except OSError:  # the test is over
            return
        threading.Thread(target=_refuse, args=(client, server), daemon=True).start()


def _refuse(client: socket.socket, server: Server) -> None:
    with client, client.makefile("rwb") as stream:
        while len(head := stream.read(8)) == 8:
            length, code = struct.unpack("!ii", head)
            if code not in (SSL_REQUEST, GSS_REQUEST):
                stream.read(length - 8)
                break
            _answer(stream, b"N")
        _answer(stream, b"R" + struct.pack("!ii", 8, 3))
        if len(head := stream.read(5)) == 5:
            server.received.append(stream.read(struct.unpack("!i", head[1:])[0] - 4))
            _answer(stream, b"E" + struct.pack("!i", len(REFUSED) + 4) + REFUSED)


def _answer(stream: Any, data: bytes) -> None:
    stream.write(data)
    stream.flush()


class _Echo(http.server.BaseHTTPRequestHandler):
    """AWS does so with a signature that it cannot verify; here everybody does, in the status line too."""

    server_of: ClassVar[Server]
    sends_to: ClassVar[int | None]

    def _serve(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        said = " ".join(f"{name}:{value}" for name, value in self.headers.items())
        self.server_of.received.append(said.replace(":", " ").encode())
        if self.sends_to is not None:
            self.send_response(302)
            self.send_header("Location", f"http://127.0.0.1:{self.sends_to}{self.path}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = self._body(said)
        self.send_response(403, f"Forbidden {said}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _body(self, said: str) -> bytes:
        words = f"The Canonical String for this request should have been 'POST / {said}'"
        if "X-Amz-Target" in self.headers:
            return json.dumps({"__type": "com.amazonaws.sqs#SignatureDoesNotMatch", "message": words}).encode()
        error = f"<Type>Sender</Type><Code>SignatureDoesNotMatch</Code><Message>{words}</Message>"
        return f"<ErrorResponse><Error>{error}</Error><RequestId>1</RequestId></ErrorResponse>".encode()

    do_GET = do_POST = _serve

    def log_message(self, *_: object) -> None:
        """Nothing of it belongs into a test's output."""


@contextmanager
def repeating_http(sends_to: int | None = None) -> Iterator[Server]:
    """Refuses every request in words that repeat its headers, or sends it to that port of this machine."""
    handler: Any = type("Echo", (_Echo,), {"sends_to": sends_to})
    with serving_http(handler) as port:
        handler.server_of = server = Server(port)
        yield server
