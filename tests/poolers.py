"""The real PgBouncer before the real Postgres. Releases come unpacked into build/ by `make foreign-parts`."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from incentive_fleet.embedded.postgres import Postgres, unprivileged
from incentive_fleet.embedded.process import Record, end, free_port, spawn, wait_ready
from tests.parts import ROOT

RELEASES = {"1.18": "pgbouncer-bookworm", "1.24": "pgbouncer-trixie"}  # as Debian 12 and 13 have them


def program_of(release: str) -> Path:
    """Where `make foreign-parts` puts the program of a release; fails the test when it is not there."""
    program = ROOT / "build" / RELEASES[release] / "usr" / "sbin" / "pgbouncer"
    if not program.exists():
        pytest.fail(f"PgBouncer {release} is not here: `make foreign-parts` brings it.")
    return program


@contextmanager
def pooling(program: Path, server: Postgres, folder: Path, **settings: object) -> Iterator[int]:
    """PgBouncer with these settings before all databases of the server, on a loopback port, until the block ends."""
    folder.mkdir(exist_ok=True)
    folder.chmod(0o755)
    port = free_port()
    sockets = psycopg.conninfo.conninfo_to_dict(server.url())["host"]
    with psycopg.connect(server.url("postgres")) as owner:
        names = [str(name) for (name,) in owner.execute("SELECT rolname FROM pg_roles WHERE rolcanlogin").fetchall()]
    users = folder / "users"
    users.write_text("".join(f'"{name}" ""\n' for name in names), encoding="utf-8")
    given = {
        "listen_addr": "127.0.0.1",
        "listen_port": port,
        "unix_socket_dir": "",
        "auth_type": "trust",
        "auth_file": users,
        "pool_mode": "transaction",
        "default_pool_size": 3,
    } | settings
    lines = [
        "[databases]",
        f"* = host={sockets}",
        "[pgbouncer]",
        *(f"{name} = {value}" for name, value in given.items()),
    ]
    configuration = folder / "pgbouncer.ini"
    configuration.write_text("\n".join(lines) + "\n", encoding="utf-8")
    log = folder / "log"
    record = Record()
    process = record.processes["pooler"] = spawn(
        [str(program), str(configuration)],
        log=log,
        environment={"PATH": os.environ["PATH"]},
        leash=signal.SIGKILL,
        become=unprivileged(program.parent, folder),
    )
    try:
        wait_ready("PgBouncer", lambda: _answers(port), process, log, 20)
        yield port
    finally:
        end(process, [(signal.SIGTERM, 5), (signal.SIGKILL, 5)])


def _answers(port: int) -> bool:
    try:
        psycopg.connect(f"postgresql://postgres@127.0.0.1:{port}/postgres", connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True
