"""The console's socket: what is written to a connection goes out at once."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from incentive_fleet.console.serving import listening


async def _nodelay_of_accepted() -> int:
    """Whether a connection that asyncio accepted there sends what is small without waiting for an acknowledgement."""
    loop = asyncio.get_running_loop()
    accepted: asyncio.Future[int] = loop.create_future()

    class Accepting(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            ours = transport.get_extra_info("socket")
            accepted.set_result(ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    with listening("127.0.0.1", 0) as listener:
        async with await loop.create_server(Accepting, sock=listener):
            _, writer = await asyncio.open_connection(*listener.getsockname())
            found = await accepted
            writer.close()
    return found


def test_an_answer_waits_for_no_acknowledgement() -> None:
    assert asyncio.run(_nodelay_of_accepted()) == 1
