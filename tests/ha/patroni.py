"""Three Postgres under Patroni, synchronous, with etcd: real servers on the loopback, and a wire from each to each other.

Each member lives at an address of its own, 127.0.1.N, and sees the others there too: at its own address, on their ports, a
wire leads to each of them. So a wire belongs to one pair and one direction of asking. It starts from the example in
deploy/patroni, with its timings; only addresses, folders and passwords are ours. As root everything runs as the account
postgres.
"""

from __future__ import annotations

import http.client
import json
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from incentive_fleet.embedded.postgres import unprivileged
from incentive_fleet.embedded.process import (
    POLL_S,
    Process,
    Record,
    alive,
    end,
    identify,
    keep_port,
    last_lines,
    spawn,
    wait_ready,
)
from tests.chaos.faulty_proxy import FaultyProxy
from tests.parts import ROOT

NAMES = ("a", "b", "c")
PASSWORD = "of-the-test"
READY_S = 90.0
EXAMPLE = ROOT / "deploy/patroni/patroni.yml"
LIMITS = {"max_connections": 100, "shared_buffers": "64MB", "max_wal_size": "1GB"}  # three of them on a small machine


def missing() -> str:
    """What this machine lacks, for a person; empty when all is here."""
    lacking = [program for program in ("patroni", "etcd") if shutil.which(program) is None]
    if "patroni" not in lacking and not _speaks_to_etcd():
        lacking.append("python3-etcd")
    if _binaries() is None:
        lacking.append("postgresql")
    return f"this machine has no {', no '.join(lacking)} (`make ha` gets them where they can be had)" if lacking else ""


def _speaks_to_etcd() -> bool:
    """Whether Patroni's own Python has the client, which is a package of its own."""
    with open(str(shutil.which("patroni")), encoding="utf-8") as program:
        python = program.readline().removeprefix("#!").split()
    return subprocess.run([*python, "-c", "import etcd"], capture_output=True, check=False).returncode == 0


def _binaries() -> Path | None:
    """The newest server of the distribution."""
    found = [path for path in Path("/usr/lib/postgresql").glob("*/bin") if (path / "postgres").exists()]
    return max(found, key=lambda path: int(path.parent.name), default=None)


@dataclass(slots=True)
class Member:
    """One Postgres and its Patroni, on a machine of their own so to speak."""

    name: str
    address: str
    folder: Path
    record: Record = field(default_factory=Record)

    @property
    def at(self) -> tuple[str, int]:
        """Where Postgres listens, past every wire."""
        return (self.address, self.record.ports["postgres"])

    def url(self, login: str, database: str) -> str:
        host, port = self.at
        return f"postgresql://{login}:{PASSWORD}@{host}:{port}/{database}"

    def postmaster(self) -> Process | None:
        try:
            pid = int((self.folder / "data/postmaster.pid").read_text().split(maxsplit=1)[0])
            command = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
        except (FileNotFoundError, ProcessLookupError, IndexError):
            return None
        return identify(pid) if str(self.folder / "data") in command else None


class Patroni:
    """Started and stopped as a whole; members can be killed and started again, with their data and ports."""

    def __init__(self) -> None:
        # Not in pytest's folder, which is closed to others: the account postgres must get there.
        self.folder = Path(tempfile.mkdtemp(prefix="incentives-ha-"))
        self.folder.chmod(0o711)
        binaries = _binaries()
        assert binaries is not None
        self._binaries: Path = binaries
        self._become = unprivileged(binaries, self.folder)
        self.members = {
            name: Member(name, f"127.0.1.{number}", self.folder / name) for number, name in enumerate(NAMES, 1)
        }
        self._etcd = Record()
        self.to_etcd: dict[str, FaultyProxy] = {}
        self.between: dict[tuple[str, str], FaultyProxy] = {}  # (who asks, whom)

    def start(self) -> None:
        """Start etcd and every member, once; `wait_whole` waits until they are up."""
        self.start_etcd()
        self._lay_wires()
        for member in self.members.values():
            self.start_member(member.name)

    def wait_whole(self, seconds: float = READY_S) -> None:
        """Until one member leads, one is its synchronous standby, and the third follows as well."""
        deadline = time.monotonic() + seconds
        while not self._is_whole():
            assert time.monotonic() < deadline, f"not whole after {seconds:g} s: {self.roles()}. {self._last_lines()}"
            time.sleep(POLL_S * 5)

    def _is_whole(self) -> bool:
        roles = self.roles()
        return sorted(roles.values()) == ["leader", "replica", "sync_standby"]

    def roles(self) -> dict[str, str]:
        """The members that run and stream from the leader, or lead, by what they are; as any Patroni tells it."""
        for member in self.members.values():
            try:
                told = self._ask(member)
            except (OSError, http.client.HTTPException, ValueError):
                continue
            fine = {"running", "streaming"}
            return {str(one["name"]): str(one["role"]) for one in told["members"] if one["state"] in fine}
        return {}

    def leader(self) -> str:
        return next(name for name, role in self.roles().items() if role == "leader")

    def synchronous(self) -> str:
        return next(name for name, role in self.roles().items() if role == "sync_standby")

    def kill(self, name: str, *, and_postgres: bool = True) -> None:
        """End a member at once, Patroni and Postgres, as a crash of its machine would; or its Patroni alone."""
        member = self.members[name]
        postmaster = member.postmaster() if and_postgres else None
        children = _children(postmaster.pid) if postmaster else []
        for process in (member.record.processes.pop("patroni", None), postmaster, *children):
            if process is not None:
                end(process, [(signal.SIGKILL, 5)])

    def freeze(self, name: str) -> None:
        """Stop a member's Patroni where it stands, as a machine does that has no memory left; its Postgres goes on."""
        os.kill(self.members[name].record.processes["patroni"].pid, signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        os.kill(self.members[name].record.processes["patroni"].pid, signal.SIGCONT)

    def stop(self) -> None:
        """End everything; what it wrote goes with it."""
        for name in self.members:
            self.kill(name)
        self.kill_etcd()
        for wire in (*self.to_etcd.values(), *self.between.values()):
            wire.close()
        shutil.rmtree(self.folder)

    def start_etcd(self) -> None:
        if (running := self._etcd.processes.get("etcd")) and alive(running):
            return
        folder, log = self._own_folder(self.folder / "etcd"), self.folder / "etcd/log"
        client, peer = (f"http://127.0.0.1:{keep_port(self._etcd, role)}" for role in ("client", "peer"))
        process = self._spawn(
            [
                *("etcd", "--data-dir", str(folder / "data"), "--name", "one", "--log-level", "warn"),
                *("--listen-client-urls", client, "--advertise-client-urls", client),
                *(
                    "--listen-peer-urls",
                    peer,
                    "--initial-advertise-peer-urls",
                    peer,
                    "--initial-cluster",
                    f"one={peer}",
                ),
            ],
            log,
        )
        self._etcd.processes["etcd"] = process
        wait_ready("etcd", self._etcd_answers, process, log, 30)

    def kill_etcd(self) -> None:
        if process := self._etcd.processes.pop("etcd", None):
            end(process, [(signal.SIGKILL, 5)])

    def start_member(self, name: str) -> None:
        member = self.members[name]
        if (running := member.record.processes.get("patroni")) and alive(running):
            return
        configuration = member.folder / "patroni.yml"
        configuration.write_text(yaml.safe_dump(self._configuration(member)), encoding="utf-8")
        member.record.processes["patroni"] = self._spawn(
            ["patroni", str(configuration)], member.folder / "log", PGHOSTADDR=member.address
        )

    def _configuration(self, member: Member) -> dict[str, Any]:
        configuration: dict[str, Any] = yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))
        del configuration["watchdog"]
        configuration["name"] = member.name
        configuration["restapi"] = dict.fromkeys(
            ("listen", "connect_address"), f"127.0.0.1:{member.record.ports['api']}"
        )
        # As a proxy, or Patroni would ask etcd for its address and go around the wire.
        configuration["etcd3"] = {"hosts": f"127.0.0.1:{self.to_etcd[member.name].port}", "use_proxies": True}
        configuration["bootstrap"]["dcs"]["postgresql"]["parameters"] |= LIMITS
        postgresql = configuration["postgresql"]
        where = "{}:{}".format(*member.at)
        postgresql |= {"listen": where, "connect_address": where, "data_dir": str(member.folder / "data")}
        postgresql |= {"bin_dir": str(self._binaries), "pgpass": str(member.folder / "pgpass")}
        for login in postgresql["authentication"].values():
            login["password"] = PASSWORD
        postgresql["pg_hba"] = [f"host {what} all 127.0.0.0/8 scram-sha-256" for what in ("all", "replication")]
        postgresql["parameters"] = {"unix_socket_directories": str(member.folder)}
        return configuration

    def _lay_wires(self) -> None:
        for member in self.members.values():
            self._own_folder(member.folder)
            for role in ("postgres", "api"):
                keep_port(member.record, role)
            self.to_etcd[member.name] = FaultyProxy(("127.0.0.1", self._etcd.ports["client"]))
        for one in self.members.values():
            for other in self.members.values():
                if one is not other:
                    self.between[one.name, other.name] = FaultyProxy(other.at, (one.address, other.at[1]))

    def _own_folder(self, folder: Path) -> Path:
        folder.mkdir(mode=0o700, exist_ok=True)
        if self._become:
            account = pwd.getpwnam("postgres")
            os.chown(folder, account.pw_uid, account.pw_gid)
        return folder

    def _spawn(self, command: list[str], log: Path, **more: str) -> Process:
        environment = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "HOME": str(log.parent), **more}
        return spawn(command, log=log, environment=environment, leash=signal.SIGTERM, become=self._become)

    def _etcd_answers(self) -> bool:
        try:
            with closing(http.client.HTTPConnection("127.0.0.1", self._etcd.ports["client"], timeout=2)) as api:
                api.request("GET", "/health")
                return bool(json.loads(api.getresponse().read())["health"] == "true")
        except (OSError, http.client.HTTPException, ValueError):
            return False

    def _ask(self, member: Member) -> Any:
        with closing(http.client.HTTPConnection("127.0.0.1", member.record.ports["api"], timeout=2)) as api:
            api.request("GET", "/cluster")
            return json.loads(api.getresponse().read())

    def _last_lines(self) -> str:
        return "\n".join(last_lines(member.folder / "log") for member in self.members.values())


def _children(pid: int) -> list[Process]:
    try:
        found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [process for child in found if (process := identify(int(child))) is not None]
