"""No secret of any setting is in what a command prints, logs, raises or serves whose login is refused. test_passwords.py has
addresses with mistakes in them and parts that are away.

Every secret holds CANARY, which is looked for as it is and in base64. That the secrets were used is asserted, too.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import tenacity

from incentive_fleet.brokers.aws import AWS
from incentive_fleet.brokers.rabbitmq import RABBITMQ
from incentive_fleet.brokers.rabbitmq.management import Management
from incentive_fleet.consumers.probes import Part, probes_of
from incentive_fleet.embedded.rabbitmq import RabbitMQ
from incentive_fleet.errors import BrokerUnavailable
from incentive_fleet.settings import Settings
from tests.canaries import CANARY, IN_URL, KEYS, SECRET, traces
from tests.command import incentives
from tests.every_command import LONG, calls, leaves, shown_by, words_for
from tests.refusing import Server, refusing_postgres, repeating_http

NO_AWS = {"AWS_REGION": "", "AWS_DEFAULT_REGION": "", "AWS_ENDPOINT_URL": ""}
RELAY = ("relay",)


def test_the_traces_are_found() -> None:
    for before in ("", "u", "us", "user:", "x" * 10):
        for after in ("", "1", "12", SECRET):
            assert traces(base64.b64encode(f"{before}{CANARY}{after}".encode()).decode())
    assert traces(IN_URL)
    assert not traces("canary")


@dataclass(frozen=True)
class Refusing:
    """Parts that take the login and refuse it, and the settings that lead there."""

    postgres: Server
    http: Server
    environment: dict[str, str]

    @property
    def settings(self) -> Settings:
        return Settings.from_environment(self.environment)


@pytest.fixture
def refusing(rabbitmq: RabbitMQ) -> Iterator[Refusing]:
    with ExitStack() as stack:
        postgres, http = stack.enter_context(refusing_postgres()), stack.enter_context(repeating_http())
        where = {
            "INCENTIVES_DATABASE_URL": f"postgresql://u:{IN_URL}@127.0.0.1:{postgres.port}/shop",
            "INCENTIVES_ADMIN_DATABASE_URL": f"postgresql://u@127.0.0.1:{postgres.port}/shop?password={IN_URL}",
            "INCENTIVES_RABBITMQ_URL": f"amqp://u:{IN_URL}@127.0.0.1:1,127.0.0.1:{urlsplit(rabbitmq.url).port}/%2F",
            "INCENTIVES_RABBITMQ_MANAGEMENT_URL": f"http://u:{IN_URL}@127.0.0.1:{http.port}",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{http.port}",
            "INCENTIVES_DRAIN_S": "5",
        }
        yield Refusing(postgres, http, where | KEYS)


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_refused_login_shows_no_secret_in_any_command(
    form: str,
    refusing: Refusing,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    for name, value in refusing.environment.items():
        monkeypatch.setenv(name, value)
    ended_with = {}
    for path, words in calls(form, folder):
        shown, ended = shown_by(words, capfd, caplog)
        assert not traces(shown), path
        ended_with[path] = type(ended).__name__
    assert {"DatabaseUnavailable", "BrokerUnavailable"} <= set(ended_with.values()), ended_with
    assert len(ended_with) > 20
    assert SECRET.encode() in refusing.postgres.everything
    assert KEYS["AWS_SESSION_TOKEN"].encode() in refusing.http.everything


@pytest.mark.parametrize("node", ["management alone", "all"])
def test_what_looks_at_rabbitmq_shows_no_secret(
    node: str,
    refusing: Refusing,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    rabbitmq: RabbitMQ,
) -> None:
    """Without AWS, whose refusal would come first."""
    good = {"INCENTIVES_RABBITMQ_URL": rabbitmq.url} if node == "management alone" else {}
    for name, value in (refusing.environment | NO_AWS | good).items():
        monkeypatch.setenv(name, value)
    for words in (["topology", "check"], ["topology", "apply"]):
        shown, _ = shown_by(words, capfd, caplog)
        assert not traces(shown), words
    with pytest.raises(BrokerUnavailable, match="HTTP 403") as caught:
        Management(refusing.settings).queues()
    assert not traces(str(caught.value))
    assert SECRET.encode() in refusing.http.everything


def test_the_login_of_the_management_api_is_taken_nowhere_else() -> None:
    with repeating_http() as elsewhere, repeating_http(sends_to=elsewhere.port) as api:
        login = f"//u:{IN_URL}@127.0.0.1:{api.port}"
        settings = Settings(rabbitmq_url=f"amqp:{login}", rabbitmq_management_url=f"http:{login}")
        with pytest.raises(BrokerUnavailable, match="HTTP 302"):
            Management(settings).queues()
    assert SECRET.encode() in api.everything
    assert elsewhere.received == []


def other_ways(folder: Path, port: int) -> Iterator[tuple[str, dict[str, str]]]:
    """How else a password can come to Postgres."""
    at = f"postgresql://u@127.0.0.1:{port}/shop"
    files = {
        "pass": f"*:*:*:*:{SECRET.replace(':', chr(92) + ':')}\n",
        "service": f"[shop]\nhost=127.0.0.1\nport={port}\nuser=u\npassword={SECRET}\n",
        "key": f"{CANARY}\n",
    }
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
        (folder / name).chmod(0o600)
    (folder / "open").write_text(files["pass"], encoding="utf-8")
    (folder / "open").chmod(0o644)
    quoted = SECRET.replace("\\", r"\\").replace("'", r"\'")
    keywords = f"host=127.0.0.1 port={port} user=u dbname=shop password='{quoted}'"
    yield "keywords", {"INCENTIVES_DATABASE_URL": keywords}
    yield "a file of passwords", {"INCENTIVES_DATABASE_URL": f"{at}?passfile={folder / 'pass'}"}
    yield "PGPASSFILE", {"INCENTIVES_DATABASE_URL": at, "PGPASSFILE": str(folder / "pass")}
    yield "one that others can read", {"INCENTIVES_DATABASE_URL": at, "PGPASSFILE": str(folder / "open")}
    yield "PGPASSWORD", {"INCENTIVES_DATABASE_URL": at, "PGPASSWORD": SECRET}
    service = "postgresql:///?service=shop"
    yield "a service", {"INCENTIVES_DATABASE_URL": service, "PGSERVICEFILE": str(folder / "service")}
    for name in ("sslkey", "sslcert", "sslrootcert"):
        options = f"sslmode=verify-full&sslpassword={IN_URL}&{name}={folder / 'key'}"
        yield f"a bad {name}", {"INCENTIVES_DATABASE_URL": f"postgresql://u:{IN_URL}@127.0.0.1:{port}/shop?{options}"}


def test_no_way_to_give_a_password_shows_it(
    refusing: Refusing,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    sent = {}
    for way, environment in other_ways(folder, refusing.postgres.port):
        refusing.postgres.received.clear()
        with monkeypatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            for words in (["ledger", "verify"], ["db", "upgrade"], ["wallet", "c-1"]):
                shown, ended = shown_by(words, capfd, caplog)
                assert ended is not None, (way, words)
                assert not traces(shown), (way, words)
        sent[way] = SECRET.encode() in refusing.postgres.everything
    assert sent == {way: not way.startswith(("a bad", "one that others")) for way in sent}


@pytest.mark.parametrize("path", sorted(LONG), ids=" ".join)
def test_what_waits_for_parts_that_refuse_it_tells_no_secret_in_log_and_health(
    path: tuple[str, ...], refusing: Refusing, folder: Path
) -> None:
    # A relay that no broker lets in says so and ends; it waits for one that is away.
    away = {"INCENTIVES_RABBITMQ_URL": f"amqp://u:{IN_URL}@127.0.0.1:1/%2F"}
    environment = refusing.environment | (NO_AWS | away if path == RELAY else {})
    command = next(command for found, command in leaves() if found == path)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "incentive_fleet.cli.main", *path, *words_for(command, folder)],
        env={**os.environ, **environment, "INCENTIVES_HEALTH_PORT": str(port), "INCENTIVES_SERVE_PORT": "0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    try:
        log = process.stdout.readline()  # it waits now, and says for what
        pages = ("healthz", "readyz", "metrics", "none")
        served = {page: answered(f"http://127.0.0.1:{port}/{page}") for page in pages}
        process.send_signal(signal.SIGTERM)
        rest, _ = process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
    assert "alive" in served["healthz"]
    assert "unreachable" in served["readyz"]
    assert not traces(log + rest + json.dumps(served))


def test_a_relay_that_no_broker_lets_in_tells_no_secret(refusing: Refusing) -> None:
    ran = incentives("relay", env=refusing.environment)
    assert ran.code == 2
    assert not traces(ran.out + ran.err)


@tenacity.retry(
    retry=tenacity.retry_if_exception_type(urllib.error.URLError),  # it does not listen yet
    stop=tenacity.stop_after_delay(30),
    wait=tenacity.wait_fixed(0.05),
    reraise=True,
)
def answered(url: str) -> str:
    try:
        with urllib.request.urlopen(url, timeout=30) as response:
            return str(response.read().decode())
    except urllib.error.HTTPError as error:
        with error:
            return error.read().decode()


def test_readyz_tells_no_secret_of_a_login_that_is_refused(
    refusing: Refusing, caplog: pytest.LogCaptureFixture
) -> None:
    probes = probes_of(refusing.settings, [RABBITMQ, AWS])
    with caplog.at_level(logging.INFO, "incentive_fleet"):
        answers = {name: Part(name, probe).ask().result(timeout=30) for name, probe in probes.items()}
    assert answers["database"] == "unreachable"
    assert not traces(caplog.text + str([vars(record) for record in caplog.records]))
