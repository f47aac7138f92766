"""Server processes of the embedded parts: starting, leashing, finding again and ending them. Linux only.

It never ends a process by name, and never one whose process number was recycled: a process is its number together with
its start time, and signals travel by pidfd. It knows nothing of any server.
"""

from __future__ import annotations

import functools
import os
import random
import select
import shutil
import signal
import socket
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from incentive_fleet.errors import SettingsError, TransientError

POLL_S = 0.02
# Below the range that Linux hands out by itself (32768 and up), so that a server which is down for a moment does not
# find its port taken by somebody's outgoing connection.
PORTS = range(20_000, 32_000)
PORT_TRIES = 200
CLAIMS = 50  # ports that one process has claimed at the most; by the next ones the first have long been taken
# A process begins as this, whose one act is to wait for a line; when whoever started it is gone before, it ends.
GATE = ("/bin/sh", "-c", 'read -r _ && exec "$@" </dev/null', "gate")

_claims: deque[int] = deque()  # descriptors of sockets, for the kernel to close


class PartFailed(TransientError):
    """An embedded server did not come up, or did not go down; the message ends with what it logged last."""


Save = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Process:
    """One process and no other: the number alone may be recycled after its end."""

    pid: int
    started: int  # clock ticks since the machine's start, from /proc/PID/stat
    boot: str  # the kernel's id of this start of the machine


@dataclass(slots=True)
class Record:
    """What must be remembered of a part to find it again: its ports and processes by their role."""

    ports: dict[str, int] = field(default_factory=dict)
    processes: dict[str, Process] = field(default_factory=dict)

    def remember(self, role: str, save: Save) -> Callable[[Process], None]:
        """What `spawn` is to call: notes the process under its role and has `save` keep the record, in any thread."""

        def note(process: Process) -> None:
            self.processes[role] = process
            save()

        return note


def nothing() -> None:
    """Saves nothing: for parts that end with us."""


def spawn(
    command: Sequence[str],
    *,
    log: Path,
    environment: Mapping[str, str],
    leash: signal.Signals | None = None,
    become: Sequence[str] = (),
    remember: Callable[[Process], None] = lambda process: None,
) -> Process:
    """Start a server in a session of its own, its output appended to `log`, once `remember` has returned.

    So nothing runs that could not be found again, even if we are killed meanwhile. With a `leash` the kernel sends that
    signal when this process ends, however it ends; without, the server outlives us. `become` are options of setpriv.
    Raises SettingsError when the command does not exist. Thread-safe.
    """
    program = shutil.which(command[0])
    if program is None:
        raise SettingsError(f"The program {command[0]} was not found.")
    # One setpriv does both: a leash put on before a change of user would be taken off by it.
    options = [*become, *([f"--pdeathsig={leash.name.removeprefix('SIG')}"] if leash is not None else [])]
    arguments = [program, *command[1:]]
    if options:
        arguments = [setpriv(), *options, "--", *arguments]
    # The kernel ties the leash to the thread that starts the process, so one thread that lives as long as we do
    # starts them all.
    gate, opening = os.pipe()
    try:
        pid = _launcher(os.getpid()).submit(_spawn, [*GATE, *arguments], gate, log, dict(environment)).result()
        process = identify(pid) or Process(pid, 0, "")
        remember(process)
        os.write(opening, b"\n")
    finally:
        os.close(opening)
        os.close(gate)
    return process


def _spawn(arguments: list[str], gate: int, log: Path, environment: dict[str, str]) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    return os.posix_spawn(
        arguments[0],
        arguments,
        environment,
        file_actions=[
            (os.POSIX_SPAWN_DUP2, gate, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), flags, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,  # Ctrl-C in a terminal is for us; we stop the servers in order
        setsigmask=[],
        setsigdef=[signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP],
    )


@functools.cache
def _launcher(_own_pid: int) -> ThreadPoolExecutor:
    """The thread that starts processes; one for each process that we are, since a fork does not copy threads."""
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="embedded-launcher")


def setpriv() -> str:
    """The program that drops privileges and ties a process to its parent's life; raises SettingsError without it."""
    found = shutil.which("setpriv")
    if found is None:
        raise SettingsError("The program setpriv was not found; it is part of util-linux.")
    return found


def identify(pid: int) -> Process | None:
    """The process with this number; None when there is none or it is only waiting to be reaped."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return None
    if fields[0] in {"Z", "X"}:
        _reap(pid)
        return None
    return Process(pid, int(fields[19]), boot)


def alive(process: Process) -> bool:
    """True while exactly this process runs."""
    return identify(process.pid) == process


def _reap(pid: int) -> None:
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return  # somebody else's child, or reaped already


def end(process: Process, signals: Sequence[tuple[signal.Signals, float]]) -> None:
    """Send each signal in turn until the process has ended, waiting that many seconds after each.

    A process that has ended already is fine. Raises PartFailed when it outlives the last wait.
    """
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    try:
        if not alive(process):
            return
        for number, wait_s in signals:
            try:
                signal.pidfd_send_signal(handle, number)
            except ProcessLookupError:
                return
            if select.select([handle], [], [], wait_s)[0]:
                return _reap(process.pid)
    finally:
        os.close(handle)
    raise PartFailed(f"Process {process.pid} is still running {signals[-1][1]:g} s after {signals[-1][0].name}.")


def wait_ready(name: str, ready: Callable[[], bool], process: Process, log: Path, timeout_s: float) -> None:
    """Return once `ready` says so; raises PartFailed with the log's end when the process ends or time runs out."""
    deadline = time.monotonic() + timeout_s
    while not (alive(process) and ready()):
        if not alive(process):
            raise PartFailed(f"{name} ended while starting. {last_lines(log)}")
        if time.monotonic() > deadline:
            raise PartFailed(f"{name} was not ready after {timeout_s:g} s. {last_lines(log)}")
        time.sleep(POLL_S)


def last_lines(log: Path, size: int = 1_500) -> str:
    """The end of a log file for an error message."""
    try:
        content = log.read_bytes()[-size:].decode("utf-8", "replace").strip()
    except FileNotFoundError:
        content = ""
    return f"Its log ({log}) ends:\n{content}" if content else f"It logged nothing to {log}."


def free_port() -> int:
    """A TCP port of the loopback interface that nobody listens on now, and that no other call was given a moment ago.

    Servers take a while to listen, so each port is claimed for its caller, against other processes too: by an abstract
    socket of its name, which the kernel frees when this process ends. Raises PartFailed when none is found.
    """
    for port in random.sample(PORTS, PORT_TRIES):
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(f"\0incentives-port-{port}")
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(("127.0.0.1", port))
        except OSError:
            claim.close()
            continue
        _claims.append(claim.detach())
        if len(_claims) > CLAIMS:
            os.close(_claims.popleft())
        return port
    raise PartFailed(f"None of {PORT_TRIES} ports tried between {PORTS.start} and {PORTS.stop} is free.")


def keep_port(record: Record, role: str) -> int:
    """The recorded port of the role, or a free one, recorded, where there is none or somebody else has it by now."""
    if role not in record.ports or listening(record.ports[role]):
        record.ports[role] = free_port()
    return record.ports[role]


def listening(port: int) -> bool:
    """True when something on the loopback interface accepts connections at the port."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
