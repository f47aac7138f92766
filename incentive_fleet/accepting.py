"""How servers of asyncio's end: nothing more is accepted, and no connection is left open."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable


async def stop_accepting(servers: Iterable[asyncio.Server]) -> None:
    """Close the servers once whatever they accepted has been handed to its protocol.

    asyncio takes a turn of the loop to make a connection of what it accepted, and where the server was closed in between it leaves
    the socket open and serves nobody on it (`asyncio.Server._attach`). So nothing more is accepted first, then two turns pass.
    """
    loop = asyncio.get_running_loop()
    servers = list(servers)
    for server in servers:
        for listener in server.sockets:
            loop.remove_reader(listener)
    for _ in range(2):  # one makes the transport, one tells the protocol of it
        await asyncio.sleep(0)
    for server in servers:
        server.close()


async def end_serving(servers: Iterable[asyncio.Server], serving: set[asyncio.Task[None]]) -> None:
    """Accept nothing more, and cancel what serves connections: tasks that close theirs, and leave the set, once they are done."""
    await stop_accepting(servers)
    for task in serving:
        task.cancel()
    while serving:
        await asyncio.wait(serving)
    await asyncio.sleep(0)  # closing is done by the loop, one turn later
