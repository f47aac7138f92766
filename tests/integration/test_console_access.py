"""Who gets into the console, what they may there, and what it refuses: by the real server, a real issuer and a real database."""

from __future__ import annotations

import base64
import json
import re
import socket
import time
from collections import deque
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta

import httpx2
import psycopg
import pytest
from joserfc.jwk import RSAKey

from incentive_fleet.console import knowing, login, patience
from incentive_fleet.console.connections import Connections
from incentive_fleet.console.login import require_whole
from incentive_fleet.console.pacing import Paces
from incentive_fleet.console.serving import require_login_or_loopback
from incentive_fleet.console.visitors import EVERYTHING, OPERATOR, SUPPORT, VIEWER, Visitor, Work, roles_of
from incentive_fleet.errors import DatabaseUnavailable, Refused, SettingsError, StatementTimedOut
from incentive_fleet.ledger.api_tokens import create_token, revoke_token
from incentive_fleet.ledger.connection import connect
from incentive_fleet.ledger.console_logins import OF_A_PERSON_MAX, begin_login, login_of
from incentive_fleet.settings import Settings
from tests.command import incentives
from tests.console_world import client_of, console_at
from tests.oidc import Issuer, console_behind, issuing
from tests.running import refused_port

PAGE = {"Accept": "text/html"}


def code_of(answer: httpx2.Response) -> str:
    return str(answer.json()["error"]["reason"])


def test_a_page_is_served_with_the_headers_that_keep_a_browser_in_bounds(database_url: str) -> None:
    with client_of(Settings(database_url=database_url)) as client:
        answer = client.get("/", headers=PAGE)
    assert answer.status_code == 200
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'; script-src 'self'; style-src 'self'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["Cache-Control"] == "no-store"
    assert "server" not in answer.headers
    cookie = answer.headers["Set-Cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "evil.example:8080", ""])
def test_a_name_that_somebody_else_points_here_is_refused(database_url: str, host: str) -> None:
    """Else a page of theirs could ask as whoever is on this machine."""
    with client_of(Settings(database_url=database_url)) as client:
        answer = client.get("/", headers={"Host": host})
    assert (answer.status_code, code_of(answer)) == (421, "wrong-host")


def test_an_act_of_a_browser_comes_from_our_pages(database_url: str) -> None:
    with client_of(Settings(database_url=database_url)) as client:
        ours = str(client.base_url).rstrip("/")
        secret = csrf_of(client)
        refusals = [
            client.post("/nowhere"),
            client.post("/nowhere", headers={"X-CSRF-Token": "guessed"}),
            client.post("/nowhere", data={"csrf_token": "guessed"}),
            client.post("/nowhere", headers={"X-CSRF-Token": secret, "Origin": "https://evil.example"}),
            client.post("/nowhere", headers={"X-CSRF-Token": secret, "Origin": "null"}),
            client.post("/nowhere", content=json.dumps({"csrf_token": secret}), headers={"Content-Type": "text/plain"}),
        ]
        assert {(answer.status_code, code_of(answer)) for answer in refusals} == {(403, "not-from-our-pages")}
        allowed = [
            client.post("/nowhere", headers={"X-CSRF-Token": secret}),
            client.post("/nowhere", data={"csrf_token": secret}, headers={"Origin": ours}),
        ]
        assert {code_of(answer) for answer in allowed} == {"not-found"}


def csrf_of(client: httpx2.Client) -> str:
    """As a page has it: in the cookie, signed but not secret to its own browser."""
    client.get("/", headers=PAGE)
    (value,) = {cookie.value for cookie in client.cookies.jar}
    assert value is not None
    kept = json.loads(base64.b64decode(value.strip('"').split(".")[0] + "=="))
    return str(kept["csrf"])


def test_a_body_is_bounded_in_size_and_a_head_in_time(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "HEAD_S", 0.3)
    with console_at(Settings(database_url=database_url)) as address:
        answer = httpx2.post(f"{address}/graphql", content=b"x" * (1024 * 1024 + 1))
        assert (answer.status_code, code_of(answer)) == (413, "too-large")
        port = int(address.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as slow:
            slow.settimeout(10)
            slow.sendall(b"GET / HTTP/1.1\r\nHost: local")  # and never the rest
            assert slow.recv(1) == b""


def test_a_visitor_who_asks_too_often_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    paces, dana = Paces(10), Visitor("dana", EVERYTHING, "login")
    for _ in range(20):
        paces.require(dana, "")
    with pytest.raises(Refused, match="too-many-requests"):
        paces.require(dana, "")
    paces.require(Visitor("kim", EVERYTHING, "login"), "")  # another one does not wait for that
    clock[0] += 0.1
    paces.require(dana, "")
    with pytest.raises(Refused, match="too-many-requests"):
        paces.require(dana, "")


# ── Tokens ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_token_is_good_until_it_is_revoked_or_past_its_time(database_url: str) -> None:
    now = datetime.now(UTC)
    settings = Settings(database_url=database_url)
    with closing(connect(database_url)) as connection, client_of(settings) as client:
        _, token = create_token(connection, "checkout", [SUPPORT], "dana", now, 1)
        _, old = create_token(connection, "checkout", [SUPPORT], "dana", now - timedelta(days=2), 1)
        revoked, gone = create_token(connection, "checkout", [SUPPORT], "dana", now, 1)
        assert revoke_token(connection, revoked.token_id, "kim", now) == ("kim", now)
        assert revoke_token(connection, revoked.token_id, "lee", now + timedelta(1)) == (
            "kim",
            now,
        )  # the first one stays

        assert client.get("/nowhere", headers={"Authorization": f"Bearer {token}"}).status_code == 404
        wrong = [old, gone, token[:-1] + ("A" if token[-1] != "A" else "B"), "inct_", "x" * 10_000]
        for one in wrong:
            answer = client.get("/nowhere", headers={"Authorization": f"Bearer {one}"})
            assert (answer.status_code, code_of(answer)) == (401, "bad-token")
        # A program acts without a page of ours: no browser sends its token by itself.
        assert client.post("/nowhere", headers={"Authorization": f"Bearer {token}"}).status_code == 404


def test_tokens_are_made_listed_and_revoked_by_command_and_kept_as_hashes(database_url: str) -> None:
    env = {"INCENTIVES_DATABASE_URL": database_url, "INCENTIVES_ACTOR": "dana"}
    made = json.loads(
        incentives("tokens", "create", "--name", "checkout", "--role", SUPPORT, "--format", "json", env=env).out
    )
    secret = made["token"].split("_", 2)[2]  # it may hold more of them
    with psycopg.connect(database_url) as connection:
        (kept,) = connection.execute("SELECT api_tokens::text FROM api_tokens").fetchall()
    assert secret not in kept[0]
    listed = json.loads(incentives("tokens", "list", "--format", "json", env=env).out)["tokens"]
    assert [(one["token_id"], one["created_by"]) for one in listed] == [(made["token_id"], "dana")]
    assert (
        json.loads(incentives("tokens", "revoke", made["token_id"], "--format", "json", env=env).out)["revoked_by"]
        == "dana"
    )
    for words, what in (
        (("create", "--name", " ", "--role", SUPPORT), "token-name"),
        (("create", "--name", "dana\u200b", "--role", SUPPORT), "token-name"),
        (("create", "--name", "x", "--role", "postgres"), "token-roles"),
        (("create", "--name", "x", "--role", SUPPORT, "--days", "0"), "token-days"),
        (("revoke", "nothing"), "unknown-token"),
    ):
        ran = incentives("tokens", *words, env=env)
        assert (ran.code, what in ran.err) == (1, True)


def test_whoever_reads_wallets_reads_no_hash_of_a_token_and_no_login(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        for role in ("incentives_viewer", "incentives_support", "incentives_operator", "incentives_approver"):
            for table in ("api_tokens", "console_logins", "login_acts"):
                row = connection.execute("SELECT has_table_privilege(%s, %s, 'SELECT')", (role, table)).fetchone()
                assert row == (False,)


# ── Logging in ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with issuing() as issuer:
        yield issuer


@contextmanager
def behind_login(database_url: str, issuer: Issuer) -> Iterator[httpx2.Client]:
    port = refused_port()
    settings = console_behind(issuer, database_url, f"http://127.0.0.1:{port}")
    require_whole(settings)
    with client_of(settings, port) as client:
        client.follow_redirects = True
        yield client


def test_a_browser_is_sent_to_the_login_and_comes_back_to_its_page(database_url: str, issuer: Issuer) -> None:
    issuer.claims = {"sub": "42", "email": "dana@shop.example", "email_verified": True, "groups": [OPERATOR, "staff"]}
    with behind_login(database_url, issuer) as client:
        assert (client.get("/").status_code, code_of(client.get("/"))) == (401, "login-needed")
        assert client.get("/static/htmx.min.js").status_code == 200
        answer = client.get("/", headers=PAGE)
        assert (answer.status_code, answer.url.path) == (200, "/")


def logged_out(client: httpx2.Client) -> httpx2.Response:
    return client.post("/logout", headers={"X-CSRF-Token": csrf_of(client), **PAGE})


def test_who_logs_out_is_out_wherever_the_cookie_was_copied_to(
    database_url: str, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And is not let in again at once by an issuer that still knows them."""
    monkeypatch.setattr(knowing, "KNOWN_S", 0.0)
    issuer.claims = {"sub": "42", "groups": [OPERATOR]}
    issuer.ends_sessions_at = "https://login.example/end"
    with behind_login(database_url, issuer) as client:
        assert client.get("/", headers=PAGE).status_code == 200
        (cookie,) = client.cookies.jar
        copied = {"Cookie": f"{cookie.name}={cookie.value}"}
        assert httpx2.get(f"{client.base_url}/", headers={**copied, **PAGE}).status_code == 200
        answer = logged_out(client)
        assert (answer.status_code, answer.url.path) == (200, "/logged-out")
        assert '<a href="https://login.example/end?client_id=console">' in answer.text
        assert httpx2.get(f"{client.base_url}/", headers=copied).status_code == 401
        client.follow_redirects = False
        assert client.get("/", headers=PAGE).headers["Location"] == "/login"


@pytest.mark.parametrize("page", [None, "javascript:alert(1)"])
def test_an_issuer_without_a_page_for_logging_out_is_not_linked(
    database_url: str, issuer: Issuer, page: str | None
) -> None:
    issuer.claims, issuer.ends_sessions_at = {"sub": "42", "groups": [OPERATOR]}, page
    with behind_login(database_url, issuer) as client:
        assert client.get("/", headers=PAGE).status_code == 200
        answer = logged_out(client)
    assert (answer.status_code, "log out there" in answer.text) == (200, False)


def test_whoever_must_be_out_at_once_is_put_out_by_name(
    database_url: str, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(knowing, "KNOWN_S", 0.0)
    env = {"INCENTIVES_DATABASE_URL": database_url}
    issuer.claims = {"sub": "42", "groups": [VIEWER]}
    with behind_login(database_url, issuer) as client:
        assert client.get("/", headers=PAGE).status_code == 200
        (one,) = json.loads(incentives("logins", "list", "--format", "json", env=env).out)["logins"]
        assert (one["name"], one["roles"]) == ("42", [VIEWER])
        assert json.loads(incentives("logins", "end", "4", "--format", "json", env=env).out)["ended"] == 0
        assert client.get("/").status_code == 200
        for ended in (1, 0):
            told = json.loads(incentives("logins", "end", "42", "--actor", "lee", "--format", "json", env=env).out)
            assert told == {"name": "42", "ended": ended}
        assert client.get("/").status_code == 401
    (act,) = json.loads(incentives("logins", "list", "--ended", "--format", "json", env=env).out)["ended"]
    assert (act["name"], act["ended"], act["actor"]) == ("42", 1, "lee")


def test_a_page_that_is_open_is_told_nothing_more_once_its_login_is_over(
    database_url: str, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(knowing, "KNOWN_S", 0.2)
    issuer.claims = {"sub": "42", "groups": [VIEWER]}
    with behind_login(database_url, issuer) as client:
        assert client.get("/", headers=PAGE).status_code == 200
        with client.stream("GET", "/status/events", timeout=30) as events:
            lines = events.iter_lines()
            assert next(line for line in lines if line.startswith("event:")) == "event: status"
            assert incentives("logins", "end", "42", env={"INCENTIVES_DATABASE_URL": database_url}).code == 0
            began = time.monotonic()
            deque(lines, maxlen=0)
            assert time.monotonic() - began < 30, "its minutes are ten"
        assert client.get("/status/events").status_code == 401


def test_logins_that_are_over_are_swept_out_and_a_person_has_so_many_at_the_most(database_url: str) -> None:
    at = datetime.now(UTC)
    with closing(connect(database_url)) as connection:
        over = begin_login(connection, "kim", [VIEWER], at - timedelta(hours=9), at - timedelta(hours=1))
        assert login_of(connection, over, at) is None
        ids = [
            begin_login(connection, "dana", [VIEWER], at + timedelta(seconds=number), at + timedelta(hours=8))
            for number in range(OF_A_PERSON_MAX + 1)
        ]
        kept = [login_of(connection, one, at) is not None for one in ids]
        (rows,) = connection.execute("SELECT count(*) FROM console_logins").fetchone() or (None,)
    assert kept == [False] + [True] * OF_A_PERSON_MAX
    assert rows == OF_A_PERSON_MAX


def test_a_key_that_the_issuer_took_back_lets_nobody_in(
    database_url: str, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    issuer.claims = {"sub": "42", "groups": [VIEWER]}
    with behind_login(database_url, issuer) as client:
        assert client.get("/login", headers=PAGE).status_code == 200
        issuer.signs_with = issuer.key  # who stole it signs on
        issuer.key = RSAKey.generate_key(2048, parameters={"kid": "k2"})
        monkeypatch.setattr(login, "BELIEVED_S", 0.0)  # its time is over
        assert code_of(client.get("/login")) == "login-failed"
        issuer.signs_with = None
        assert client.get("/login", headers=PAGE).status_code == 200


@pytest.mark.parametrize(
    ("claims", "code"),
    [
        ({"groups": ["staff"]}, "role-missing"),
        ({"groups": "incentives_operator"}, "role-missing"),  # a text is no list of names
        ({"groups": [OPERATOR], "nonce": "of another login"}, "login-failed"),
        ({"groups": [OPERATOR], "aud": "another console"}, "login-failed"),
        ({"groups": [OPERATOR], "iss": "https://evil.example"}, "login-failed"),
        ({"groups": [OPERATOR], "exp": 1_000_000_000, "iat": 999_999_000}, "login-failed"),
    ],
)
def test_a_login_that_does_not_hold_lets_nobody_in(
    database_url: str, issuer: Issuer, claims: dict[str, object], code: str
) -> None:
    issuer.claims = {"sub": "42", **claims}
    with behind_login(database_url, issuer) as client:
        answer = client.get("/login")
        assert (answer.status_code, code_of(answer)) == (403, code)
        assert client.get("/").status_code == 401


def test_a_login_that_another_key_signed_lets_nobody_in(database_url: str, issuer: Issuer) -> None:
    issuer.claims, issuer.signs_with = (
        {"sub": "42", "groups": [OPERATOR]},
        RSAKey.generate_key(2048, parameters={"kid": "k1"}),
    )
    with behind_login(database_url, issuer) as client:
        assert code_of(client.get("/login")) == "login-failed"


def test_a_login_that_this_browser_did_not_begin_lets_nobody_in(database_url: str, issuer: Issuer) -> None:
    issuer.claims = {"sub": "42", "groups": [OPERATOR]}
    with behind_login(database_url, issuer) as client:
        answer = client.get("/login/callback?code=stolen&state=guessed")
        assert (answer.status_code, code_of(answer)) == (403, "login-failed")


def test_a_cookie_that_was_tampered_with_is_none(database_url: str, issuer: Issuer) -> None:
    issuer.claims = {"sub": "42", "groups": [VIEWER]}
    with behind_login(database_url, issuer) as client:
        client.get("/login", headers=PAGE)
        (cookie,) = client.cookies.jar
        assert cookie.value is not None
        body, _, rest = cookie.value.strip('"').partition(".")
        client.cookies.set(cookie.name, f"{body[:-4]}AAAA.{rest}", domain=cookie.domain)
        assert client.get("/").status_code == 401


def test_the_issuer_away_is_said_and_nobody_gets_in(database_url: str, issuer: Issuer) -> None:
    issuer.url = f"http://127.0.0.1:{refused_port()}"
    with behind_login(database_url, issuer) as client:
        answer = client.get("/login")
        assert (answer.status_code, code_of(answer)) == (503, "not-available")
        assert answer.headers["Retry-After"] == "2"


# ── Settings ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("host", ["0.0.0.0", "10.0.0.1", "::", "console.example"])
def test_without_a_login_it_listens_on_loopback_alone(host: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(f"INCENTIVES_SERVE_HOST is {host!r}")):
        require_login_or_loopback(Settings(serve_host=host))
    require_login_or_loopback(Settings(serve_host=host, oidc_issuer="https://login.example"))


def test_half_a_login_is_refused_by_name() -> None:
    with pytest.raises(SettingsError, match="INCENTIVES_PUBLIC_URL and INCENTIVES_OIDC_CLIENT_ID and"):
        require_whole(Settings(oidc_issuer="https://login.example"))


# ── The database ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_each_request_has_its_visitors_role_and_no_more(database_url: str) -> None:
    viewer = Visitor("vic", roles_of([VIEWER]), "login")
    operator = Visitor("olga", roles_of([OPERATOR]), "login")
    with closing(Connections(database_url, None)) as connections:
        with pytest.raises(Refused, match="role-missing"), connections.to(Work.READ, viewer):
            pass
        with connections.to(Work.LOOK, viewer) as connection:
            assert connection.execute("SELECT current_user").fetchone() == ("incentives_viewer",)
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute("SELECT body FROM dead_letters")
        with connections.to(Work.OPERATE, operator) as connection:  # the same connection, another role
            assert connection.execute("SELECT current_user").fetchone() == ("incentives_operator",)
        with connections.to(Work.READ, operator) as connection, pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            connection.execute("CREATE TABLE mine ()")
        with pytest.raises(StatementTimedOut), connections.to(Work.READ, operator, 0.05) as connection:
            connection.execute("SELECT pg_sleep(5)")


def test_the_applications_role_may_take_the_visitors_and_has_nothing_of_them(database_url: str) -> None:
    """Else what is revoked from it, by an administrator or a migration, would still be there by another way."""
    with psycopg.connect(database_url) as owner:
        for role in ("incentives_viewer", "incentives_support", "incentives_operator", "incentives_approver"):
            row = owner.execute(
                "SELECT pg_has_role('incentives_app', %s, 'MEMBER'), pg_has_role('incentives_app', %s, 'USAGE')",
                (role,) * 2,
            )
            assert row.fetchone() == (True, False)
        owner.execute("REVOKE SELECT ON wallets FROM incentives_app")
        assert owner.execute("SELECT has_table_privilege('incentives_app', 'wallets', 'SELECT')").fetchone() == (False,)


def test_a_database_that_is_away_is_said_within_seconds() -> None:
    away = f"postgresql://nobody@127.0.0.1:{refused_port()}/none"
    with closing(Connections(away, None)) as connections:
        began = time.monotonic()
        with pytest.raises(DatabaseUnavailable), connections.to(Work.LOOK, Visitor("olga", EVERYTHING, "login")):
            pass
        assert time.monotonic() - began < 6  # it waits two, and the machine may be busy


# ── What nobody expects ──────────────────────────────────────────────────────────────────────────────────────────────


def test_a_bug_is_told_in_a_sentence_and_logged_without_a_word_to_the_visitor(
    database_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def breaks(*_: object) -> None:
        raise RuntimeError("the innards")

    monkeypatch.setattr(Paces, "require", breaks)
    with client_of(Settings(database_url=database_url)) as client:
        answer = client.get("/")
    assert (answer.status_code, code_of(answer)) == (500, "failed")
    assert "innards" not in answer.text
    assert "Content-Security-Policy" in answer.headers
    assert "the innards" in caplog.text
