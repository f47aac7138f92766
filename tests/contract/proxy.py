"""A TCP proxy on the loopback that a test can cut: what is connected is reset, and nobody gets through until it is healed."""

from __future__ import annotations

import select
import socket
import threading
import time
from contextlib import suppress


class Proxy:
    """Forwards to one address, from `start` to `stop`."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._cut = False
        self._stopping = False
        self.pause_s = 0.0  # before each piece of up to 64 KiB that comes from there

    def start(self) -> None:
        self._run(self._accept)

    def cut(self) -> None:
        """Reset every connection; refuse new ones."""
        with self._lock:
            self._cut = True
            for pair in self._pairs:
                for end in pair:
                    with suppress(OSError):  # the other side may have closed it first
                        end.shutdown(socket.SHUT_RDWR)

    def heal(self) -> None:
        """Let connections through again."""
        with self._lock:
            self._cut = False

    def stop(self) -> None:
        self._stopping = True
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join(5)

    def _run(self, target: object, *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._stopping:
            if not select.select([self._listener], [], [], 0.1)[0]:
                continue
            try:
                client, _ = self._listener.accept()
            except OSError:  # stopped
                return
            with self._lock:
                cut = self._cut
            if cut:
                client.close()
                continue
            server = socket.create_connection(self._target)
            with self._lock:
                self._pairs.append((client, server))
            self._run(self._forward, client, server)

    def _forward(self, client: socket.socket, server: socket.socket) -> None:
        other = {client: server, server: client}
        with client, server, suppress(OSError):  # reset by one side: the other is closed as well
            while True:
                for source in select.select([client, server], [], [])[0]:
                    data = source.recv(65_536)
                    if not data:
                        return
                    if source is server and self.pause_s:
                        time.sleep(self.pause_s)
                    other[source].sendall(data)
