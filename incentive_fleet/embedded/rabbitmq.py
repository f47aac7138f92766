"""RabbitMQ from the distribution's package, or from RABBITMQ_HOME: a private node in a folder of its own, on free ports of
the loopback.

Nothing of the machine's own broker is read or touched: neither its settings, nor its Erlang cookie, nor its epmd.
It never asks for root, and never listens beyond the loopback interface.
"""

from __future__ import annotations

import base64
import signal
import socket
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from incentive_fleet.embedded import broker_release
from incentive_fleet.embedded.broker_release import Installed, missing
from incentive_fleet.embedded.process import (
    PartFailed,
    Record,
    Save,
    alive,
    end,
    keep_port,
    listening,
    nothing,
    spawn,
    wait_ready,
)
from incentive_fleet.errors import SettingsError

READY_S = 120
ROLES = ("amqp", "management", "distribution", "epmd")
AMQP_GREETING = b"AMQP\x00\x00\x09\x01"  # the protocol header of AMQP 0-9-1, section 4.2.2
SETTINGS = """
listeners.tcp.1 = 127.0.0.1:{amqp}
management.tcp.ip = 127.0.0.1
management.tcp.port = {management}
log.file = false
log.console = true
log.console.level = warning
# A laptop's full disk must not block publishing for a demo; the default of 50 MB is for the same folder anyway.
disk_free_limit.absolute = 50MB
"""


class RabbitMQ:
    """One node with its data in `folder`. Not thread-safe; a restart keeps messages, queues and ports."""

    def __init__(
        self, folder: Path, *, leashed: bool = True, record: Record | None = None, save: Save = nothing
    ) -> None:
        self.folder = folder.resolve()
        self.record = record or Record()
        self._save = save
        self._leashed = leashed
        self._log = self.folder / "log"

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.record.ports['amqp']}/%2F"

    @property
    def management_url(self) -> str:
        return f"http://guest:guest@127.0.0.1:{self.record.ports['management']}"

    def start(self) -> None:
        """Start the node and its epmd; returns when both listeners answer; nothing if it runs already.

        Raises SettingsError when RabbitMQ is missing or another release wrote the folder, PartFailed with the log's end
        when the node does not come up.
        """
        if (running := self.record.processes.get("server")) and alive(running):
            return
        if (sentence := missing()) is not None or (broker := broker_release.installed()) is None:
            raise SettingsError(sentence or "RabbitMQ is not installed.")
        data, held = broker_release.written_by(self.folder), (self.folder / "data").exists()
        if held and (sentence := broker_release.unfit(self.folder, data, broker.version)) is not None:
            raise SettingsError(sentence)
        try:
            self._start(broker)
        except PartFailed as error:
            if not held or (data is not None and data == broker.version):
                raise
            sentence = broker_release.did_not_start(self.folder, data, broker.version)
            raise PartFailed(f"{sentence} {error}") from error
        broker_release.remember(self.folder, broker.version)

    def _start(self, broker: Installed) -> None:
        self._end([])  # an epmd whose node is gone
        self._configure()
        self._start_epmd(broker)
        # `detached` makes the script become the Erlang machine, so that our signals reach the node itself.
        process = spawn(
            [str(broker.server)],
            log=self._log,
            environment=self._environment(broker.path) | {"detached": "1"},
            leash=signal.SIGTERM if self._leashed else None,
            remember=self.record.remember("server", self._save),
        )
        wait_ready("RabbitMQ", self._answers, process, self._log, READY_S)

    def stop(self) -> None:
        """Stop in order: connections are closed, data is on disk. Nothing when it is stopped."""
        self._end([(signal.SIGTERM, 40), (signal.SIGKILL, 5)])

    def kill(self) -> None:
        """End the node at once, as a crash would; durable queues and confirmed messages are there after a start."""
        self._end([(signal.SIGKILL, 5)])

    def restart(self) -> None:
        """Stop in order and start again on the same ports with the same data."""
        self.stop()
        self.start()

    def _end(self, signals: list[tuple[signal.Signals, float]]) -> None:
        process = self.record.processes.pop("server", None)
        if process is not None and signals:
            end(process, signals)
        if epmd := self.record.processes.pop("epmd", None):
            end(epmd, [(signal.SIGKILL, 5)])  # it holds nothing but the names of running nodes

    def _configure(self) -> None:
        (self.folder / "home").mkdir(parents=True, exist_ok=True)
        for role in ROLES:
            keep_port(self.record, role)
        (self.folder / "rabbitmq.conf").write_text(SETTINGS.format(**self.record.ports), encoding="utf-8")
        (self.folder / "enabled_plugins").write_text("[rabbitmq_management].\n", encoding="utf-8")
        (self.folder / "environment").write_text("", encoding="utf-8")

    def _start_epmd(self, broker: Installed) -> None:
        """Our own, in the foreground: the one that Erlang would start by itself outlives the node that started it."""
        port = self.record.ports["epmd"]
        process = spawn(
            [broker_release.epmd(broker) or "epmd", "-port", str(port), "-address", "127.0.0.1"],
            log=self._log,
            environment={"PATH": broker.path},
            leash=signal.SIGKILL if self._leashed else None,
            remember=self.record.remember("epmd", self._save),
        )
        wait_ready("epmd", lambda: listening(port), process, self._log, 10)

    def _environment(self, path: str) -> dict[str, str]:
        folder, ports = self.folder, self.record.ports
        return {
            "PATH": path,
            "LANG": "C.UTF-8",
            "HOME": str(folder / "home"),
            "ERL_EPMD_PORT": str(ports["epmd"]),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_CRASH_DUMP_BYTES": "0",
            "RABBITMQ_NODENAME": "incentives@localhost",
            "RABBITMQ_NODE_PORT": str(ports["amqp"]),
            "RABBITMQ_DIST_PORT": str(ports["distribution"]),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": str(folder / "environment"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(folder / "data"),
            "RABBITMQ_LOG_BASE": str(folder),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
        }

    def _answers(self) -> bool:
        return _speaks_amqp(self.record.ports["amqp"]) and self._management_answers()

    def _management_answers(self) -> bool:
        login = base64.b64encode(b"guest:guest").decode()
        connection = HTTPConnection("127.0.0.1", self.record.ports["management"], timeout=5)
        try:
            connection.request("GET", "/api/overview", headers={"Authorization": f"Basic {login}"})
            return connection.getresponse().status == HTTPStatus.OK
        except (OSError, HTTPException):
            return False
        finally:
            connection.close()


def _speaks_amqp(port: int) -> bool:
    """True when a broker answers the protocol header; the port alone opens before the node has its queues."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(AMQP_GREETING)
            return connection.recv(1) == b"\x01"  # a method frame: Connection.Start
    except OSError:
        return False
