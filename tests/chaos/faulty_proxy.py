"""A proxy on the loopback between the fleet and one server, that a test can cut, slow down, or stop without a word."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

from incentive_fleet.accepting import end_serving

CHUNK = 65_536


class FaultyProxy:
    """Forwards from `port` to an address or a Unix socket, on a thread of its own, from its making to `close`.

    It listens on a port of its own choice, unless it is given another address of the loopback.
    """

    def __init__(self, target: tuple[str, int] | str, listen: tuple[str, int] = ("127.0.0.1", 0)) -> None:
        self._target = target
        self._address = listen
        self._delay_s = 0.0
        self._cut = False
        self._flows = asyncio.Event()
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="faulty proxy", daemon=True)
        self._thread.start()
        self._server = self._run(self._listen())
        self.port: int = self._server.sockets[0].getsockname()[1]

    def cut(self) -> None:
        """Reset every connection and refuse new ones."""
        self._loop.call_soon_threadsafe(self._set, 0.0, True, True)

    def slow(self, delay_s: float) -> None:
        """Hold every piece back for so long."""
        self._loop.call_soon_threadsafe(self._set, delay_s, False, True)

    def hang(self) -> None:
        """Forward nothing and close nothing, as when a router dies."""
        self._loop.call_soon_threadsafe(self._set, 0.0, False, False)

    def heal(self) -> None:
        """Forward everything at once again, what was held up included."""
        self._loop.call_soon_threadsafe(self._set, 0.0, False, True)

    def close(self) -> None:
        self._run(self._shut())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    def _set(self, delay_s: float, cut: bool, flows: bool) -> None:
        self._delay_s, self._cut = delay_s, cut
        (self._flows.set if flows else self._flows.clear)()
        if cut:
            for writer in self._writers:
                writer.transport.abort()

    async def _listen(self) -> asyncio.Server:
        self._flows.set()
        return await asyncio.start_server(self._accept, *self._address)

    async def _shut(self) -> None:
        self._set(0.0, True, True)
        await end_serving([self._server], self._tasks)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._tasks.add(task := self._loop.create_task(self._serve(reader, writer)))
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: writer.transport.abort())  # also of one that is cancelled before it began

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._cut:
            return
        with suppress(OSError):  # the server is down: the caller sees what it would see without us
            beyond = await self._connect()
            ends = {writer, beyond[1]}
            self._writers |= ends
            try:
                if not self._cut:  # by now
                    await asyncio.gather(self._pump(reader, beyond[1]), self._pump(beyond[0], writer))
            finally:
                self._writers -= ends
                beyond[1].transport.abort()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if isinstance(self._target, str):
            return await asyncio.open_unix_connection(self._target)
        return await asyncio.open_connection(*self._target)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):  # reset by one side: the other is closed as well
            while data := await reader.read(CHUNK):
                if self._delay_s:
                    await asyncio.sleep(self._delay_s)
                await self._flows.wait()
                writer.write(data)
                await writer.drain()
        writer.transport.abort()
