"""The console under attack: what is sent by hand, what a client withholds, what one stranger may cost everybody else."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx2
import pytest

from incentive_fleet.console import patience
from incentive_fleet.console.guard import Guard
from incentive_fleet.settings import Settings
from tests.console_world import console_at


@contextmanager
def speaking_to(address: str, receives: int | None = None) -> Iterator[socket.socket]:
    """A connection on which the test says each byte itself; `receives` bounds what the system takes in for it."""
    with socket.socket() as spoken:
        if receives is not None:
            spoken.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receives)
        spoken.settimeout(10)
        host, _, port = address.removeprefix("http://").rpartition(":")
        spoken.connect((host, int(port)))
        yield spoken


def head(address: str, line: str, *headers: str) -> bytes:
    return "\r\n".join([line, f"Host: {address.removeprefix('http://')}", *headers, "", ""]).encode()


def status_of(address: str, request: bytes) -> int:
    with speaking_to(address) as spoken:
        spoken.sendall(request)
        return int(spoken.makefile("rb").readline().split()[1])


@pytest.fixture
def address(database_url: str) -> Iterator[str]:
    with console_at(Settings(database_url=database_url)) as address:
        yield address


# ── What is sent by hand ─────────────────────────────────────────────────────────────────────────────────────────────


def test_a_head_that_no_browser_sends_is_refused_and_is_no_bug(address: str, caplog: pytest.LogCaptureFixture) -> None:
    hosts = ["[", "[::1", "evil@127.0.0.1", "127.0.0.1/evil", "127.0.0.1, evil", "localhost:1:2", "127.0.0.1.", "::1"]
    for host in hosts:
        assert status_of(address, f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()) == 421
    for line in ("OPTIONS * HTTP/1.1", "GET x HTTP/1.1", "CONNECT evil:1 HTTP/1.1"):
        assert status_of(address, head(address, line)) == 404
    assert status_of(address, b"GET / HTTP/1.0\r\n\r\n") == 421
    assert [record for record in caplog.records if record.exc_info] == []


def test_a_request_that_is_cut_off_is_none(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A form would else be taken for a whole one: its last fields missing, the last of the others cut short."""
    reached: list[str] = []
    answered = Guard.__call__

    async def noted(self: Guard, scope: dict[str, str], *rest: object) -> None:
        reached.append(scope["path"])
        await answered(self, scope, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Guard, "__call__", noted)
    form = "Content-Type: application/x-www-form-urlencoded"
    with speaking_to(address) as spoken:
        spoken.sendall(head(address, "POST /cut HTTP/1.1", form, "Content-Length: 100") + b"letters=1&letters=1")
        spoken.shutdown(socket.SHUT_WR)
        assert spoken.recv(1_000).partition(b"\r\n")[0] in (b"", b"HTTP/1.1 400 Bad Request")
    assert status_of(address, head(address, "POST /whole HTTP/1.1", form, "Content-Length: 2") + b"a=") == 403
    assert reached == ["/whole"]


def test_what_asks_for_nothing_to_be_done_brings_no_body(address: str) -> None:
    """HEAD reached the API's reader of bodies past every bound of theirs."""
    lines = ("HEAD /graphql HTTP/1.1", "GET /graphql HTTP/1.1", "OPTIONS /graphql HTTP/1.1")
    for line in lines:
        with speaking_to(address) as spoken:
            spoken.sendall(head(address, line, "Content-Type: application/json", "Transfer-Encoding: chunked"))
            spoken.sendall(b'6\r\n{"quer\r\n')  # and never the rest
            assert int(spoken.makefile("rb").readline().split()[1]) in (400, 405)


# ── What a client withholds ──────────────────────────────────────────────────────────────────────────────────────────


def test_who_sends_on_after_the_answer_is_hung_up_on(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "HEAD_S", 0.3)
    with speaking_to(address) as spoken:
        spoken.sendall(head(address, "GET /nowhere HTTP/1.1", "Content-Length: 1000000"))
        assert b"404" in spoken.recv(20)
        assert ended_while_sending(spoken)


def ended_while_sending(spoken: socket.socket) -> bool:
    until = time.monotonic() + 10
    try:
        while time.monotonic() < until:
            spoken.sendall(b"x")
            if select.select([spoken], [], [], 0.05)[0] and spoken.recv(65_536) == b"":
                return True
    except ConnectionError:
        return True
    return False


def test_who_does_not_take_the_answers_is_hung_up_on(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "TAKE_S", 0.3)
    with speaking_to(address, receives=4_096) as spoken:
        spoken.setblocking(False)
        ask, until = head(address, "GET /static/htmx.min.js HTTP/1.1"), time.monotonic() + 10
        while time.monotonic() < until and not hung_up_on(spoken, ask * 100):
            select.select([], [spoken], [], 0.05)
        assert time.monotonic() < until
    assert httpx2.get(f"{address}/static/htmx.min.js").status_code == 200


def hung_up_on(spoken: socket.socket, asking: bytes) -> bool:
    try:
        spoken.send(asking)
    except BlockingIOError:
        return False
    except ConnectionError:
        return True
    return False
