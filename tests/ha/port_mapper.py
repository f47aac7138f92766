"""Erlang's port mapper, one for each node of a cluster, that sends each node to the others over wires of its own.

An Erlang node asks its mapper at which port another listens. Ours answers with the port of a wire that leads there, and
tells a node its own port as it is. It speaks the four messages of EPMD that nodes use, and keeps no state on disk.
"""

from __future__ import annotations

import asyncio
import struct
import threading
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from typing import Any

from incentive_fleet.accepting import end_serving
from tests.chaos.faulty_proxy import FaultyProxy

REGISTER, REGISTERED, REGISTERED_LONG = 120, 121, 118
ASK, ANSWER = 122, 119
LIST = 110
Act = Callable[[FaultyProxy], None]

LONG_CREATION = 6  # a node that knows distribution protocol 6 takes a creation of 32 bits


class PortMappers:
    """Serves from its making to `close`, on a thread of its own. `ports` says where each node's mapper listens."""

    def __init__(self, names: Iterable[str]) -> None:
        self._registered: dict[str, tuple[int, bytes]] = {}  # by name: the port, and the rest as it was registered
        self._creation = 0
        self._wires: dict[tuple[str, str], tuple[int, FaultyProxy]] = {}  # (who asks, whom): where it leads
        self._hurt: dict[frozenset[str], Act] = {}  # pairs whose wires, new ones included, are cut or hang
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="port mappers", daemon=True)
        self._thread.start()
        self._servers = {name: self._run(self._listen(name)) for name in names}
        self.ports = {name: int(server.sockets[0].getsockname()[1]) for name, server in self._servers.items()}

    def hurt(self, one: str, other: str, act: Act) -> None:
        """Cut the wires of these two, or let them hang, in both directions, and those that they lay from now on."""
        self._hurt[frozenset((one, other))] = act
        self._apply(one, other, act)

    def heal(self, one: str, other: str) -> None:
        del self._hurt[frozenset((one, other))]
        self._apply(one, other, FaultyProxy.heal)

    def _apply(self, one: str, other: str, act: Act) -> None:
        for pair, (_, wire) in list(self._wires.items()):
            if set(pair) == {one, other}:
                act(wire)

    def close(self) -> None:
        self._run(self._shut())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()
        for _, wire in self._wires.values():
            wire.close()

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _listen(self, name: str) -> asyncio.Server:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with suppress(OSError, asyncio.IncompleteReadError):
                await self._serve(name, reader, writer)

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._tasks.add(task := self._loop.create_task(serve(reader, writer)))
            task.add_done_callback(self._tasks.discard)
            task.add_done_callback(lambda _: writer.transport.abort())  # also of one that is cancelled before it began

        return await asyncio.start_server(accept, "127.0.0.1", 0)

    async def _shut(self) -> None:
        await end_serving(self._servers.values(), self._tasks)

    async def _serve(self, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        (size,) = struct.unpack(">H", await reader.readexactly(2))
        request = await reader.readexactly(size)
        if request[0] == REGISTER:
            registered = self._register(request)
            writer.write(self._welcome(request))
            await reader.read()  # a node stays registered for as long as it keeps this open
            self._registered.pop(registered, None)
        elif request[0] == ASK:
            writer.write(await self._answer(name, request[1:].decode()))
        elif request[0] == LIST:
            lines = "".join(f"name {one} at port {port}\n" for one, (port, _) in self._registered.items())
            writer.write(struct.pack(">I", self.ports[name]) + lines.encode())
        await writer.drain()
        writer.close()

    def _register(self, request: bytes) -> str:
        (port,) = struct.unpack(">H", request[1:3])
        (length,) = struct.unpack(">H", request[9:11])
        name = request[11 : 11 + length].decode()
        self._registered[name] = (port, request[3:])
        return name

    def _welcome(self, request: bytes) -> bytes:
        self._creation += 1
        (highest,) = struct.unpack(">H", request[5:7])
        if highest >= LONG_CREATION:
            return struct.pack(">BBI", REGISTERED_LONG, 0, self._creation)
        return struct.pack(">BBH", REGISTERED, 0, self._creation % 3 + 1)

    async def _answer(self, asking: str, name: str) -> bytes:
        if name not in self._registered:
            return bytes((ANSWER, 1))
        port, rest = self._registered[name]
        if name != asking:
            port = await asyncio.to_thread(self._wire, asking, name, port)
        return bytes((ANSWER, 0)) + struct.pack(">H", port) + rest

    def _wire(self, asking: str, name: str, port: int) -> int:
        """The port of the wire between the two; another one when the node has come back at another port."""
        known = self._wires.get((asking, name))
        if known is None or known[0] != port:
            known = self._wires[asking, name] = (port, FaultyProxy(("127.0.0.1", port)))
            if act := self._hurt.get(frozenset((asking, name))):
                act(known[1])
        return known[1].port
