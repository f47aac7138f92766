"""The faults of a storm, each a short act against real processes, servers and connections. None of them checks anything.

A fault tells whether it found something to hurt; only then is it counted. What it breaks for a while it mends itself, or
leaves with the storm as an act that is due later.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import psycopg

from incentive_fleet.embedded.postgres import Postgres
from incentive_fleet.embedded.rabbitmq import RabbitMQ
from incentive_fleet.settings import Settings
from tests.brokers_and_workers import start
from tests.chaos.faulty_proxy import FaultyProxy

DRAIN_S = 30  # beyond the fleet's own bound, for a machine that is busy
PROGRAM = (sys.executable, "-m", "incentive_fleet.cli.main")
CONSUME = (*PROGRAM, "consume", "--from", "all", "--processes", "2")


@dataclass(slots=True)
class Fleet:
    """`incentives consume`, or another command that serves, as an operator runs it; started again by whoever ends it."""

    settings: Settings
    log: Path
    process: subprocess.Popen[bytes] | None = None
    command: tuple[str, ...] = CONSUME

    def start(self, *arguments: str) -> None:
        self.process = start([*self.command, *arguments], self.settings, self.log)

    def running(self) -> subprocess.Popen[bytes]:
        assert self.process is not None
        assert self.process.poll() is None, f"the fleet ended by itself with {self.process.returncode}"
        return self.process

    def workers(self) -> list[int]:
        """The process ids of the workers that run now."""
        pid = self.running().pid
        children = []
        for task in Path(f"/proc/{pid}/task").iterdir():
            with suppress(FileNotFoundError, ProcessLookupError):  # a thread that has ended since
                children += (task / "children").read_text().split()
        return [int(child) for child in children]

    def end(self, number: signal.Signals) -> int:
        process = self.running()
        process.send_signal(number)
        return process.wait(self.settings.drain_s + DRAIN_S)


@dataclass(slots=True)
class Site:
    """What can be hurt."""

    postgres: Postgres
    rabbitmq: RabbitMQ
    database: str
    proxies: dict[str, FaultyProxy]
    fleet: Fleet
    chance: random.Random
    due: list[tuple[float, Callable[[], None]]] = field(default_factory=list)  # when (monotonic), and what
    orphans: set[int] = field(default_factory=set)  # workers whose supervisor was killed

    def later(self, after_s: float, act: Callable[[], None]) -> None:
        self.due.append((time.monotonic() + after_s, act))

    def mend(self, *, all_of_it: bool = False) -> None:
        """Do what is due by now, or all of it."""
        now = time.monotonic()
        ripe = [entry for entry in self.due if all_of_it or entry[0] <= now]
        self.due = [entry for entry in self.due if entry not in ripe]
        for _, act in ripe:
            act()

    def clear_away(self) -> None:
        """Leave no process behind, whatever the storm came to."""
        self.mend(all_of_it=True)
        process = self.fleet.process
        if process is not None and process.poll() is None:
            self.orphans.update(self.fleet.workers())
            process.kill()
            process.wait()
        for pid in self.orphans:
            with suppress(ProcessLookupError, FileNotFoundError):
                if b"incentive_fleet.consumers.worker" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    os.kill(pid, signal.SIGKILL)


def _signal(site: Site, number: signal.Signals) -> int | None:
    workers = site.fleet.workers()
    if not workers:
        return None
    pid = site.chance.choice(workers)
    try:
        os.kill(pid, number)
    except ProcessLookupError:  # it ended a moment ago
        return None
    return pid


def kill_consumer(site: Site) -> bool:
    return _signal(site, signal.SIGKILL) is not None


def stop_consumer(site: Site) -> bool:
    return _signal(site, signal.SIGTERM) is not None


def freeze_consumer(site: Site) -> bool:
    """Longer than the visibility timeout: when it wakes up, somebody else may have what it believes to hold."""
    pid = _signal(site, signal.SIGSTOP)
    if pid is None:
        return False
    site.later(site.fleet.settings.sqs_visibility_s + 1.0, lambda: _wake(pid))
    return True


def _wake(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGCONT)
    except ProcessLookupError:
        return  # another fault killed it in its sleep


def kill_fleet(site: Site) -> bool:
    """The supervisor dies; its workers notice and drain, while the next fleet starts beside them."""
    site.orphans.update(site.fleet.workers())
    assert site.fleet.end(signal.SIGKILL) == -signal.SIGKILL
    site.fleet.start()
    return True


def stop_fleet(site: Site) -> bool:
    """A deployment: drain, and start again."""
    site.mend(all_of_it=True)  # who is frozen cannot drain
    at_work = bool(site.fleet.workers())
    code = site.fleet.end(signal.SIGTERM)
    # One that was started a moment ago, and has no worker yet, dies of the signal as any program does.
    assert code in (0, 1) or (code == -signal.SIGTERM and not at_work), f"the fleet drained with {code}"
    site.fleet.start()
    return True


def crash_postgres(site: Site) -> bool:
    site.postgres.kill()
    threading.Event().wait(site.chance.uniform(0.2, 3))
    site.postgres.start()
    return True


def restart_rabbitmq(site: Site) -> bool:
    site.rabbitmq.restart()
    return True


def crash_rabbitmq(site: Site) -> bool:
    site.rabbitmq.kill()
    site.rabbitmq.start()
    return True


def end_sessions(site: Site) -> bool:
    """pg_terminate_backend for every session of the fleet."""
    with psycopg.connect(site.postgres.url("postgres"), autocommit=True) as owner:
        ended = owner.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND application_name LIKE %s",
            (site.database, "incentives %"),
        ).fetchall()
    return bool(ended)


def close_connections(site: Site) -> bool:
    """Every connection that the broker's management knows of is closed from the broker's side."""
    names = [str(connection["name"]) for connection in _management(site.rabbitmq, "GET", "connections") or []]
    for name in names:
        _management(site.rabbitmq, "DELETE", f"connections/{quote(name, safe='')}")
    return bool(names)


def _management(node: RabbitMQ, method: str, path: str) -> Any:
    url = urlsplit(node.management_url)
    login = base64.b64encode(f"{url.username}:{url.password}".encode()).decode()
    connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=10)
    try:
        connection.request(method, f"/api/{path}", headers={"Authorization": f"Basic {login}"})
        answer = connection.getresponse().read()
    finally:
        connection.close()
    return json.loads(answer) if answer else None


def _network(part: str, how: str) -> Callable[[Site], bool]:
    def fault(site: Site) -> bool:
        proxy = site.proxies[part]
        if how == "cut":
            proxy.cut()
        elif how == "hang":
            proxy.hang()
        else:
            proxy.slow(site.chance.uniform(0.005, 0.05))
        site.later(site.chance.uniform(0.3, 3), proxy.heal)
        return True

    return fault


KINDS: dict[str, Callable[[Site], bool]] = {
    "consumer killed (-9)": kill_consumer,
    "consumer stopped (TERM)": stop_consumer,
    "consumer frozen past its visibility": freeze_consumer,
    "supervisor killed (-9)": kill_fleet,
    "fleet stopped (TERM)": stop_fleet,
    "Postgres stopped immediately": crash_postgres,
    "RabbitMQ restarted": restart_rabbitmq,
    "RabbitMQ killed (-9)": crash_rabbitmq,
    "database sessions terminated": end_sessions,
    "connections closed by RabbitMQ": close_connections,
    **{
        f"network to {part}: {how}": _network(part, how)
        for part in ("Postgres", "RabbitMQ", "SQS")
        for how in ("cut", "hang", "slow")
    },
}
SLOW = {"RabbitMQ restarted", "RabbitMQ killed (-9)"}  # seconds each: one of them a round
