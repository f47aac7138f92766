"""Stops reading from a connection's socket and goes on again, so that what the broker has yet to send stays with the broker.

Prefetch counts messages, and RabbitMQ pushes whatever it allows. What is not read fills the kernel's buffers; then TCP holds
the broker's writer up, while acknowledgements and heartbeats of ours go out as ever. It decides nothing about when.

The broker's heartbeats wait unread as well, so while the tap is shut pika must not take the silence for death: it is ours. A
peer that really died is found once the tap is open again, or when what we send is answered with a reset.

pika has no word for this. What is used of its transport is looked for when the tap is made; a transport without it has no tap.
"""

from __future__ import annotations

import contextlib
import errno
import ssl
import time
from collections.abc import Callable
from typing import Any, Final

from pika.exceptions import ConnectionClosedByClient
from pika.frame import Method
from pika.spec import Connection

PULSE_S: Final = 5.0  # below pika's check of any heartbeat interval, which is the interval and five seconds
NORMALLY: Final = (200, "Normal shutdown")
CLOSE: Final[bytes] = Method(0, Connection.Close(*NORMALLY, 0, 0)).marshal()
HEARTBEAT_BYTES: Final = 8
QUIET_S: Final = 1.0  # without a byte: no message is in the middle of its way
DISCARD_BYTES: Final = 64 * 1024
NEEDED: Final = ("_sock", "_nbio", "_state", "_STATE_ACTIVE", "_on_socket_readable", "_sigint_safe_recv", "_tx_buffers")


class Tap:
    """One connection's. Everything here belongs to the I/O thread; `shut` and `read_at` may be looked at from
    any."""

    @staticmethod
    def of(connection: Any, transport: Any) -> Tap | None:
        """None where this pika's transport is not as it is known here."""
        known = hasattr(connection, "_terminate_stream") and all(hasattr(transport, name) for name in NEEDED)
        return Tap(connection, transport) if known else None

    def __init__(self, connection: Any, transport: Any) -> None:
        self._connection = connection
        self._transport = transport
        self._receive: Callable[[Any, int], bytes] = transport._sigint_safe_recv
        self.shut = False
        self.read_at = 0.0  # by time.monotonic(): when more than a heartbeat was read last
        self._pulsing = False
        transport._sigint_safe_recv = self._guarded

    @property
    def arriving(self) -> bool:
        """Whether more than a heartbeat came a moment ago."""
        return time.monotonic() - self.read_at < QUIET_S

    def close(self) -> None:
        """Read no more until `open`. Harmless when shut."""
        if self.shut:
            return
        self.shut = True
        self._stop_watching()
        if not self._pulsing:
            self._pulse()

    def open(self) -> None:
        """Read on. Harmless when open, and when the connection is over."""
        if not self.shut:
            return
        self.shut = False
        transport = self._transport
        if self._active:
            transport._nbio.set_reader(transport._sock.fileno(), transport._on_socket_readable)
            # TLS may hold bytes that no poll of the socket would tell of.
            transport._nbio.add_callback_threadsafe(transport._on_socket_readable)

    def hang_up(self, within_s: float) -> None:
        """Send what is unsent and the closing method, then throw away unseen what is unread, until the broker hangs up or for
        so long at the most. pika would first look for the answers behind all that. What was not acknowledged is requeued.

        The socket stays pika's, which is told to end: its timers may be due by now and would write to a closed one."""
        if not self._active:
            return
        deadline = time.monotonic() + within_s
        sock, waiting = self._transport._sock, self._transport._tx_buffers
        with contextlib.suppress(OSError):  # it may be gone, which is what is wanted
            sock.settimeout(within_s)
            while waiting:
                sock.sendall(waiting.popleft())
            sock.sendall(CLOSE)
            while (left := deadline - time.monotonic()) > 0:
                sock.settimeout(left)
                if not sock.recv(DISCARD_BYTES):
                    break
        self._connection._terminate_stream(ConnectionClosedByClient(*NORMALLY))

    def _guarded(self, sock: Any, most: int) -> bytes:
        """pika asks again after a write, and TLS after a read that was cut short: while shut there is nothing to read."""
        if not self.shut:
            data = self._receive(sock, most)
            if len(data) > HEARTBEAT_BYTES:
                self.read_at = time.monotonic()
            return data
        self._transport._nbio.add_callback_threadsafe(self._stop_watching)
        if isinstance(sock, ssl.SSLSocket):
            raise ssl.SSLWantReadError(ssl.SSL_ERROR_WANT_READ, "the tap is shut")
        raise BlockingIOError(errno.EAGAIN, "the tap is shut")

    def _stop_watching(self) -> None:
        transport = self._transport
        if self.shut and self._active:
            transport._nbio.remove_reader(transport._sock.fileno())

    @property
    def _active(self) -> bool:
        return bool(self._transport._state == self._transport._STATE_ACTIVE)

    def _pulse(self) -> None:
        self._pulsing = self.shut and not self._connection.is_closed
        if self._pulsing:
            self._connection.bytes_received += 1  # what pika's check for silence looks at
            self._connection.ioloop.call_later(PULSE_S, self._pulse)
