"""Postgres from its wheel, or by POSTGRES_HOME: a real server in a folder of its own, reached by a Unix socket that only its
user opens.

It never runs with fsync or synchronous_commit off, never listens on the network, and never touches the permissions of
folders that it did not make.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import shutil
import signal
import stat
import tempfile
from pathlib import Path
from urllib.parse import quote

import psycopg
from psycopg import sql

from incentive_fleet.embedded import postgres_release
from incentive_fleet.embedded.process import (
    PartFailed,
    Record,
    Save,
    alive,
    end,
    last_lines,
    nothing,
    spawn,
    wait_ready,
)
from incentive_fleet.errors import SettingsError

DATABASE = "incentives"
OWNER = "postgres"
LOGIN = "incentives"  # the application's; what it may do, `db upgrade` grants
SOCKET_NAME = "/.s.PGSQL.5432"
SOCKET_PATH_BYTES = 107  # sockaddr_un.sun_path of Linux, less the closing zero
READY_S = 60  # crash recovery included
INITDB_S = 60  # seen: 1 to 3
SETTINGS = """
listen_addresses = ''
max_connections = 200
shared_buffers = 256MB
max_wal_size = 2GB            # fewer checkpoints under load; durability is the same
fsync = on
synchronous_commit = on
full_page_writes = on
jit = off                     # compiling costs more than our short statements do
timezone = 'UTC'
log_timezone = 'UTC'
"""


class Postgres:
    """One server with its data in `folder`. Not thread-safe; a restart keeps data and address."""

    def __init__(
        self, folder: Path, *, leashed: bool = True, record: Record | None = None, save: Save = nothing
    ) -> None:
        self.folder = folder.resolve()
        self.record = record or Record()
        self._save = save
        self._leash = signal.SIGINT if leashed else None  # "fast shutdown"
        self._data = self.folder / "data"
        self._log = self.folder / "log"
        self._sockets = _socket_folder(self.folder)

    def url(self, database: str = DATABASE) -> str:
        """The address of a database as its owner."""
        return self._url(OWNER, database)

    def application_url(self, database: str = DATABASE) -> str:
        """The address of a database as the application, which owns nothing."""
        return self._url(LOGIN, database)

    def _url(self, login: str, database: str) -> str:
        return f"postgresql://{login}@/{quote(database)}?host={quote(str(self._sockets))}"

    def start(self) -> None:
        """Start the server, making its data folder and database first where missing; nothing if it runs already.

        Raises SettingsError when the wheel is missing, PartFailed with the log's end when the server does not come up.
        """
        if (sentence := postgres_release.missing()) is not None:
            raise SettingsError(sentence)
        if (running := self.record.processes.get("server")) and alive(running):
            return
        binaries = postgres_release.binaries()
        become = unprivileged(binaries, self.folder)
        self._make_folders(bool(become))
        if self._initdb_was_cut():
            _empty(self._data)
        if not (self._data / "PG_VERSION").exists():
            self._initdb(binaries, become)
        else:
            postgres_release.require_fit(self._data, postgres_release.major(binaries))
        process = spawn(
            [str(binaries / "postgres"), "-D", str(self._data), "-k", str(self._sockets)],
            log=self._log,
            environment={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C"},
            leash=self._leash,
            become=become,
            remember=self.record.remember("server", self._save),
        )
        wait_ready("Postgres", self._answers, process, self._log, READY_S)
        self._create_database()

    def stop(self) -> None:
        """End every session and stop; what is committed is on disk. Nothing when it is stopped."""
        self._end([(signal.SIGINT, 20), (signal.SIGQUIT, 10), (signal.SIGKILL, 5)])
        if self._sockets.parent != self.folder:
            shutil.rmtree(self._sockets, ignore_errors=True)  # in the folder for temporary files; made anew at a start

    def kill(self) -> None:
        """Stop immediately, as a crash would: sessions are cut and the next start recovers from the log."""
        self._end([(signal.SIGQUIT, 10), (signal.SIGKILL, 5)])

    def _end(self, signals: list[tuple[signal.Signals, float]]) -> None:
        self._initdb_was_cut()
        if process := self.record.processes.pop("server", None):
            end(process, signals)

    def _initdb_was_cut(self) -> bool:
        """True where a start was killed before the data was whole; its initdb has ended by itself when this returns."""
        process = self.record.processes.get("initdb")
        if process is not None:
            end(process, [(signal.SIGCONT, INITDB_S), (signal.SIGKILL, 5)])
        return process is not None

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.url("postgres"), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def _create_database(self) -> None:
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,)).fetchone():
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))
            if not connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (LOGIN,)).fetchone():
                connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(LOGIN)))

    def _make_folders(self, for_another_user: bool) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        owner = _account().pw_uid if for_another_user else os.geteuid()
        for folder in (self._data, self._sockets):
            folder.mkdir(mode=0o700, exist_ok=True)
            self._check_owner(folder, owner)
            if for_another_user:
                os.chown(folder, owner, _account().pw_gid, follow_symlinks=False)

    def _check_owner(self, folder: Path, owner: int) -> None:
        """The sockets may lie in the folder for temporary files, where anybody could have made theirs, or a link, before us."""
        found = folder.lstat()
        beside = folder.parent == self.folder
        if stat.S_ISLNK(found.st_mode) and not (beside and os.geteuid() != 0):
            raise SettingsError(f"The folder {folder} is a symbolic link; remove it, or choose another state folder.")
        if folder.stat().st_uid not in (owner, os.geteuid()):
            raise SettingsError(f"The folder {folder} belongs to another user; choose another state folder.")
        if not beside and found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise SettingsError(f"Others may write to the folder {folder}; remove it, or choose another state folder.")

    def _initdb(self, binaries: Path, become: list[str]) -> None:
        command = [str(binaries / "initdb"), "-D", str(self._data), "--username=postgres", "--encoding=UTF8"]
        command += postgres_release.order_of_text(postgres_release.major(binaries))
        command += ["--auth-local=trust", "--auth-host=reject", "--no-instructions"]
        process = spawn(
            command,
            log=self._log,
            environment={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C"},
            become=become,
            remember=self.record.remember("initdb", self._save),
        )
        code = os.waitstatus_to_exitcode(os.waitpid(process.pid, 0)[1])
        if code:
            raise PartFailed(f"initdb ended with exit code {code}. {last_lines(self._log)}")
        # Root writes into another account's folder here: into the file that initdb made, never through a link.
        flags = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW
        with open(os.open(self._data / "postgresql.conf", flags), "a", encoding="utf-8") as configuration:
            configuration.write(SETTINGS)
        self.record.processes.pop("initdb")


def _empty(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _socket_folder(folder: Path) -> Path:
    """Beside the data, or under a short name where the state folder's path is too long for a Unix socket."""
    beside = folder / "run"
    if len(os.fsencode(beside)) + len(SOCKET_NAME) <= SOCKET_PATH_BYTES:
        return beside
    digest = hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"incentives-{digest}"


def _account() -> pwd.struct_passwd:
    """Whom to run as instead of root, which Postgres refuses: an account that exists, none is created."""
    names = {entry.pw_name: entry for entry in pwd.getpwall()}
    for name in ("postgres", "nobody"):
        if name in names:
            return names[name]
    raise SettingsError("Postgres does not run as root, and neither the account postgres nor nobody exists.")


def unprivileged(binaries: Path, folder: Path) -> list[str]:
    """Options of setpriv that leave root; empty when we are not root.

    Where a folder on the way is closed to others (/root usually is), the server keeps the one capability that opens it
    instead of our opening the folder to everybody.
    """
    if os.geteuid() != 0:
        return []
    account = _account()
    options = [f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups"]
    ways = [binaries / "postgres", *binaries.parents, binaries, *folder.parents, folder]
    if all(not way.exists() or way.stat().st_mode & stat.S_IXOTH for way in ways):
        return options
    # access(2), by which initdb looks for its programs, heeds the capability only with this secure bit.
    keep = ["--inh-caps=-all,+dac_override", "--ambient-caps=-all,+dac_override", "--securebits=+no_setuid_fixup"]
    return [*options, *keep]
