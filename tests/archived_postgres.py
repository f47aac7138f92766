"""A Postgres that archives its log, as production's does: base backups of it, and servers restored to a moment.

Of any release whose programs are in one folder. It listens on a Unix socket alone, and never runs without fsync.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from urllib.parse import quote

import psycopg

from incentive_fleet.embedded.postgres import unprivileged
from incentive_fleet.embedded.process import Process, end, setpriv, spawn, wait_ready
from tests.contract.brokers_under_test import eventually

READY_S = 120
SETTINGS = """
listen_addresses = ''
unix_socket_directories = '{sockets}'
max_connections = 60
shared_buffers = 64MB
timezone = 'UTC'
wal_level = replica
archive_mode = on
archive_command = 'test ! -f {archive}/%f && cp %p {archive}/%f.part && mv {archive}/%f.part {archive}/%f'
"""
RECOVERY = """
archive_mode = off
restore_command = 'cp {archive}/%f %p'
recovery_target_time = '{moment}'
recovery_target_action = 'promote'
"""


@dataclass(slots=True)
class Server:
    """One server with its data in `folder`; `archive` is where its log goes, or came from."""

    programs: Path
    folder: Path
    archive: Path
    sockets: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="pg-")))
    process: Process | None = None

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def url(self, database: str = "postgres", login: str = "postgres") -> str:
        return f"postgresql://{login}@/{database}?host={quote(str(self.sockets))}"

    def make(self) -> Server:
        """A new server, of nobody yet."""
        for folder in (self.data, self.archive, self.sockets):
            folder.mkdir(parents=True, exist_ok=True)
            self._give_away(folder)
        self.run(
            "initdb", "-D", self.data, "--username=postgres", "--encoding=UTF8", "--locale=C.UTF-8", "--auth=trust"
        )
        return self._configure(SETTINGS.format(sockets=self.sockets, archive=self.archive))

    def start(self) -> Server:
        """Start it, and wait until it takes writes: a restored one has reached its moment then."""
        log = self.folder / "log"
        self.process = spawn(
            [str(self.programs / "postgres"), "-D", str(self.data)],
            log=log,
            environment={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
            leash=signal.SIGQUIT,
            become=unprivileged(self.programs, self.folder),
        )
        wait_ready("Postgres", self._writable, self.process, log, READY_S)
        return self

    def base_backup(self, to: Path) -> Path:
        """A copy of the running server that a restore begins with."""
        to.mkdir()
        self._give_away(to)
        self.run("pg_basebackup", "-h", self.sockets, "-U", "postgres", "-D", to / "data", "-c", "fast")
        return to

    def archive_all(self) -> None:
        """Close the segment that is being written, and wait until it is in the archive."""
        with psycopg.connect(self.url(), autocommit=True) as connection:
            row = connection.execute("SELECT pg_walfile_name(pg_switch_wal())").fetchone()
        assert row is not None
        eventually((self.archive / row[0]).exists, READY_S)

    def kill(self) -> None:
        """End it at once; the machine is gone."""
        if self.process is not None:
            end(self.process, [(signal.SIGQUIT, 10), (signal.SIGKILL, 5)])
            self.process = None

    def remove(self) -> None:
        self.kill()
        shutil.rmtree(self.sockets, ignore_errors=True)

    def run(self, program: str, *arguments: object) -> str:
        """One of its programs, as the account that it runs as; what it printed."""
        prefix = [setpriv(), *become, "--"] if (become := unprivileged(self.programs, self.folder)) else []
        command = [*prefix, str(self.programs / program), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, cwd="/", timeout=READY_S, check=False)
        assert done.returncode == 0, f"{program}: {done.stderr}"
        return done.stdout

    def _writable(self) -> bool:
        try:
            with psycopg.connect(self.url(), connect_timeout=2) as connection:
                row = connection.execute("SELECT pg_is_in_recovery()").fetchone()
        except psycopg.OperationalError:
            return False
        return row is not None and not row[0]

    def _configure(self, settings: str) -> Server:
        with (self.data / "postgresql.conf").open("a", encoding="utf-8") as configuration:
            configuration.write(settings)
        return self

    def _give_away(self, folder: Path) -> None:
        if os.geteuid() == 0:
            shutil.chown(folder, "postgres" if _has_postgres() else "nobody")


def restored(backup: Path, folder: Path, of: Server, moment: datetime | None = None) -> Server:
    """A server of its own as `of` was at this moment, or at the end of its archive, from a base backup before it.

    It is on a timeline of its own, as a standby that was promoted is."""
    server = Server(of.programs, folder, of.archive)
    shutil.copytree(backup, folder, symlinks=True)
    for path in (server.sockets, server.data, *server.data.rglob("*")):
        server._give_away(path)
    server.data.chmod(0o700)
    server._configure(
        f"unix_socket_directories = '{server.sockets}'\n" + RECOVERY.format(archive=of.archive, moment=moment or "")
    )
    (server.data / "recovery.signal").touch()
    return server.start()


def _has_postgres() -> bool:
    import pwd

    return any(entry.pw_name == "postgres" for entry in pwd.getpwall())
