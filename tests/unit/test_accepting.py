"""How servers of asyncio's end: whoever was accepted is served or hung up on, and no socket is left open."""

from __future__ import annotations

import asyncio
import socket
import threading
from contextlib import closing
from typing import Any

import pytest
import uvicorn

from incentive_fleet.accepting import stop_accepting
from incentive_fleet.console.serving import ConsoleServer, listening
from tests.contract.brokers_under_test import eventually

ANSWER = b"x" * (64 << 20)  # more than the kernel takes for a client that does not read


def hung_up_on(client: socket.socket) -> bool:
    client.settimeout(10)
    try:
        while client.recv(1 << 20):
            pass
    except TimeoutError:
        return False
    except ConnectionError:
        return True
    return True


class HangsUp(asyncio.Protocol):
    def connection_made(self, transport: Any) -> None:
        transport.close()


@pytest.mark.parametrize("turns", range(6))
def test_whoever_comes_in_the_last_moment_is_not_left_waiting(turns: int) -> None:
    async def connected() -> socket.socket:
        server = await asyncio.get_running_loop().create_server(HangsUp, "127.0.0.1", 0)
        client = socket.create_connection(server.sockets[0].getsockname())
        for _ in range(turns):  # not accepted yet, accepted and no connection yet, or connected
            await asyncio.sleep(0)
        await stop_accepting([server])
        return client

    with closing(asyncio.run(connected())) as client:
        assert hung_up_on(client)


async def answers(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": ANSWER})


def test_an_ending_console_hangs_up_on_whoever_does_not_take_his_answer() -> None:
    with listening("127.0.0.1", 0) as listener:
        server = ConsoleServer(uvicorn.Config(answers, log_config=None, lifespan="off", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        eventually(lambda: server.started)
        with socket.create_connection(listener.getsockname()) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: console\r\n\r\n")
            assert client.recv(1)
            server.should_exit = True
            thread.join(10)
            assert not thread.is_alive()
            assert hung_up_on(client)
