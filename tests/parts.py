"""The real servers behind the fixtures: databases cut from a migrated template, and LocalStack in its own environment.

Nothing here stands in for a server. A part that is missing fails the test with a sentence; it never skips it.
"""

from __future__ import annotations

import os
import select
import signal
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import psycopg
from psycopg import sql

from incentive_fleet.embedded.aws import CREDENTIALS
from incentive_fleet.embedded.postgres import Postgres
from incentive_fleet.embedded.process import POLL_S, Process, Record, alive, end, keep_port, spawn, wait_ready
from incentive_fleet.embedded.rabbitmq import RabbitMQ
from incentive_fleet.errors import SettingsError

ROOT = Path(__file__).resolve().parent.parent
TEMPLATE = "incentives_template"

# LocalStack 4.12 binds every interface whatever address GATEWAY_LISTEN names; the tests listen on the loopback alone.
SERVE_LOCALSTACK = """
import functools
from twisted.internet import endpoints
endpoints.TCP4ServerEndpoint = functools.partial(endpoints.TCP4ServerEndpoint, interface="127.0.0.1")
from localstack.runtime.main import main
main()
"""


class LocalStack:
    """SNS, SQS and CloudWatch by LocalStack's runtime. A restart keeps the address and forgets everything else."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.record = Record()

    @property
    def endpoint_url(self) -> str:
        return f"http://127.0.0.1:{self.record.ports['http']}"

    @property
    def environment(self) -> dict[str, str]:
        return {"AWS_ENDPOINT_URL": self.endpoint_url, **CREDENTIALS}

    def start(self) -> None:
        if (running := self.record.processes.get("server")) and alive(running):
            return
        python = ROOT / ".venv-localstack" / "bin" / "python"
        if not python.exists():
            raise SettingsError("LocalStack is not installed in .venv-localstack: `make test` installs it.")
        self.folder.mkdir(exist_ok=True)
        port, log = keep_port(self.record, "http"), self.folder / "log"
        process = spawn(
            [str(python), "-c", SERVE_LOCALSTACK],
            log=log,
            environment=self._environment(port),
            leash=signal.SIGKILL,
        )
        self.record.processes["server"] = process
        wait_ready("LocalStack", lambda: _healthy(port), process, log, 90)

    def stop(self) -> None:
        if process := self.record.processes.pop("server", None):
            end(process, [(signal.SIGKILL, 10)])  # it holds nothing that anybody would miss

    def _environment(self, port: int) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "FILESYSTEM_ROOT": str(self.folder / "files"),
            "OVERRIDE_IN_DOCKER": "0",  # inside a container it would write to /var/lib
            "GATEWAY_LISTEN": f"127.0.0.1:{port}",
            "LOCALSTACK_HOST": f"127.0.0.1:{port}",
            "SQS_ENDPOINT_STRATEGY": "path",  # queue URLs that need no DNS
            "SERVICES": "sns,sqs,cloudwatch",
            "DISABLE_EVENTS": "1",
            "SKIP_SSL_CERT_DOWNLOAD": "1",
            "DNS_ADDRESS": "0",
        }


def _healthy(port: int) -> bool:
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/_localstack/health")
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def make_template(server: Postgres) -> str:
    """A database with every migration applied, from which each test's own is copied."""
    from incentive_fleet.ledger.migrate import upgrade

    _administer(server, sql.SQL("CREATE DATABASE {}").format(sql.Identifier(TEMPLATE)))
    upgrade(server.url(TEMPLATE))
    return TEMPLATE


@contextmanager
def fresh_database(server: Postgres, template: str) -> Iterator[str]:
    """The URL of a database of the test's own, made from the template and dropped at the end."""
    name = f"test_{uuid.uuid4().hex}"
    _administer(
        server, sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template))
    )
    try:
        yield server.url(name)
    finally:
        server.start()  # a chaos test may have failed while it was down
        _administer(server, sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def _administer(server: Postgres, statement: sql.Composed) -> None:
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        connection.execute(statement)


def wait_until_registered(node: RabbitMQ, *queues: str, timeout_s: float = 10) -> None:
    """Wait until the node has written the names of freshly declared quorum queues to disk, about a second.

    RabbitMQ 3.10 answers the declaration before that, and a quorum queue whose node is killed in between has no leader
    ever after. A test that kills the node is about messages, so it waits for the file that says the queue is there.
    """
    deadline = time.monotonic() + timeout_s
    names = [name.encode() for name in queues]
    while True:
        registered = b"".join(file.read_bytes() for file in node.folder.glob("data/*/quorum/*/names.dets"))
        waiting = [name.decode() for name in names if name not in registered]
        if not waiting:
            return
        assert time.monotonic() < deadline, f"RabbitMQ did not register {waiting} within {timeout_s:g} s"
        time.sleep(POLL_S)


def ended_within(process: Process, seconds: float) -> bool:
    """Wait for a process to end by itself; False when it is still running after that many seconds."""
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return True
    try:
        return not alive(process) or bool(select.select([handle], [], [], seconds)[0])
    finally:
        os.close(handle)
