"""The console under attack: what is sent by hand, what a client withholds, what one stranger may cost everybody else."""

from __future__ import annotations

import base64
import json
import secrets
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from typing import Any

import httpx2
import pytest
from joserfc import jwt
from joserfc.jwk import OctKey
from psycopg import Connection
from starlette.requests import Request

from incentive_fleet.console import knowing, pacing, patience
from incentive_fleet.console.connections import Connections
from incentive_fleet.console.guard import Guard
from incentive_fleet.console.pacing import address_of
from incentive_fleet.console.visitors import OPERATOR
from incentive_fleet.ledger.api_tokens import create_token
from incentive_fleet.ledger.connection import connect
from incentive_fleet.settings import Settings
from tests.console_world import client_of, console_at
from tests.contract.brokers_under_test import eventually
from tests.oidc import CLIENT_SECRET, Issuer, console_behind, issuing
from tests.running import refused_port


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
    for path in ("/campaigns/%00", f"/letters/{'9' * 5_000}", f"/runs/{'9' * 3_000}"):
        assert status_of(address, head(address, f"GET {path} HTTP/1.1")) == 404
    assert status_of(address, head(address, "GET /campaigns?after=%00 HTTP/1.1")) == 422
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


# ── What one stranger may cost everybody else ────────────────────────────────────────────────────────────────────────


def guessed() -> dict[str, str]:
    return {"Authorization": f"Bearer inct_{secrets.token_hex(6)}_{secrets.token_urlsafe(32)}"}


def test_guessing_tokens_is_slow_and_whoever_has_one_waits_for_no_guess(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(knowing, "KNOWN_S", 0.0)  # each is asked for again
    monkeypatch.setattr(pacing, "STRANGERS_PER_S", 1)
    asked = looks(monkeypatch)
    with closing(connect(database_url)) as connection:
        _, token = create_token(connection, "checkout", [OPERATOR], "dana", datetime.now(UTC), 1)
    with client_of(Settings(database_url=database_url)) as client:
        client.headers["Authorization"] = f"Bearer {token}"
        assert client.get("/nowhere").status_code == 404
        for junk in ("inct_", "x" * 10_000, f"{token}x"):
            assert client.get("/nowhere", headers={"Authorization": f"Bearer {junk}"}).status_code == 401
        assert len(asked) == 1  # what is no token needs no database to tell
        assert client.get("/", headers=guessed()).status_code == 401
        eventually(lambda: client.get("/", headers=guessed()).status_code == 429)
        assert client.get("/nowhere").status_code == 404


def looks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Grows with each token that the database is asked for."""
    asked: list[str] = []
    own = Connections.own

    @contextmanager
    def noted(self: Connections) -> Iterator[Connection[Any]]:
        asked.append(threading.current_thread().name)
        with own(self) as connection:
            yield connection

    monkeypatch.setattr(Connections, "own", noted)
    return asked


def test_many_requests_with_one_token_ask_for_it_once(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = looks(monkeypatch)
    with closing(connect(database_url)) as connection:
        _, token = create_token(connection, "checkout", [OPERATOR], "dana", datetime.now(UTC), 1)
    with client_of(Settings(database_url=database_url)) as client, ThreadPoolExecutor(20) as threads:
        client.headers["Authorization"] = f"Bearer {token}"
        answers = list(threads.map(lambda _: client.get("/nowhere").status_code, range(60)))
    assert (set(answers), len(asked)) == ({404}, 1)


def asking_from(heard: str, *told: str) -> Request:
    headers = [(b"x-forwarded-for", one.encode()) for one in told]
    return Request({"type": "http", "headers": headers, "client": (heard, 1)})


@pytest.mark.parametrize(
    ("proxies", "told", "address"),
    [
        (0, ["198.51.100.7"], "10.0.0.1"),  # nobody whom we know wrote that
        (1, ["198.51.100.7"], "198.51.100.7"),
        (1, ["1.1.1.1, 198.51.100.7"], "198.51.100.7"),  # what came first the client wrote itself
        (1, ["1.1.1.1", "198.51.100.7"], "198.51.100.7"),
        (2, ["1.1.1.1, 198.51.100.7, 10.0.0.2"], "198.51.100.7"),
        (2, ["198.51.100.7"], "10.0.0.1"),  # it did not come by both
        (1, ["2001:db8:1:2:3:4:5:6"], "2001:db8:1:2::/64"),
        (1, ["::ffff:198.51.100.7"], "198.51.100.7"),
        (1, ["unknown"], ""),
        (1, [], ""),
    ],
)
def test_a_stranger_is_an_address_that_our_own_proxies_heard(proxies: int, told: list[str], address: str) -> None:
    assert address_of(asking_from("10.0.0.1", *told), proxies) == address


@contextmanager
def behind_login(database_url: str, issuer: Issuer, proxies: int = 0) -> Iterator[httpx2.Client]:
    port = refused_port()
    settings = console_behind(issuer, database_url, f"http://127.0.0.1:{port}", serve_proxies=proxies)
    with client_of(settings, port) as client:
        yield client


def test_one_stranger_behind_the_load_balancer_keeps_nobody_else_from_logging_in(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pacing, "STRANGERS_PER_S", 1)
    with issuing() as issuer, behind_login(database_url, issuer, proxies=1) as client:
        invented = (f"198.51.100.{number}, 192.0.2.1" for number in range(200))
        eventually(lambda: client.get("/login", headers={"X-Forwarded-For": next(invented)}).status_code == 429)
        assert client.get("/login", headers={"X-Forwarded-For": "192.0.2.2"}).status_code == 302


def test_what_is_the_same_for_everybody_and_lies_in_caches_begins_no_session(database_url: str) -> None:
    with issuing() as issuer, behind_login(database_url, issuer) as client:
        for path in ("/static/htmx.min.js", "/static/none"):
            assert "Set-Cookie" not in client.get(path).headers
        assert client.get("/loginx").status_code == 401


def test_a_long_address_that_asks_for_the_login_leaves_a_cookie_that_browsers_keep(database_url: str) -> None:
    """They throw away one of more than 4,096 bytes, and with it the login that was begun."""
    with issuing() as issuer, behind_login(database_url, issuer) as client:
        client.follow_redirects = True
        issuer.claims = {"sub": "\N{GRINNING FACE}" * 200, "groups": [OPERATOR]}
        cookies: list[str] = []
        client.event_hooks["response"] = [lambda answer: cookies.extend(answer.headers.get_list("Set-Cookie"))]
        answer = client.get("/" + "x" * 3_900, headers={"Accept": "text/html"})
        assert (answer.status_code, answer.url.path) == (200, "/")
        assert cookies
        assert all(len(cookie.partition(";")[0]) <= 4_096 for cookie in cookies)


# ── An issuer that is not what it should be ──────────────────────────────────────────────────────────────────────────


def unsigned(claims: dict[str, Any]) -> str:
    parts = (
        base64.urlsafe_b64encode(json.dumps(one).encode()).rstrip(b"=").decode() for one in ({"alg": "none"}, claims)
    )
    return ".".join((*parts, ""))


def signed_with_the_shared_secret(claims: dict[str, Any]) -> str:
    return jwt.encode({"alg": "HS256"}, claims, OctKey.import_key(CLIENT_SECRET), algorithms=["HS256"])


@pytest.mark.parametrize(
    "forges",
    [unsigned, signed_with_the_shared_secret, lambda _: None, lambda _: ["x"]],
    ids=["none", "HS256", "null", "list"],
)
@pytest.mark.filterwarnings("ignore::joserfc.errors.SecurityWarning")  # as in a process of ours
def test_what_the_issuer_did_not_sign_lets_nobody_in(
    database_url: str, forges: Callable[[dict[str, Any]], object]
) -> None:
    with issuing() as issuer, behind_login(database_url, issuer) as client:
        client.follow_redirects = True
        issuer.claims, issuer.forges = {"sub": "42", "groups": [OPERATOR]}, forges
        issuer.algorithms = ["none", "HS256", "RS256"]
        answer = client.get("/login")
        assert (answer.status_code, answer.json()["error"]["reason"]) == (403, "login-failed")
        assert client.get("/").status_code == 401


@pytest.mark.parametrize("discovery", ["<html>", "[]", "{}", '{"authorization_endpoint": 5}'])
def test_an_issuer_that_talks_nonsense_is_away_and_no_bug_of_ours(database_url: str, discovery: str) -> None:
    with issuing() as issuer, behind_login(database_url, issuer) as client:
        issuer.discovery = discovery
        answer = client.get("/login")
        assert (answer.status_code, answer.json()["error"]["reason"]) == (503, "not-available")
