"""Three RabbitMQ nodes as one cluster, on the loopback, for tests that take nodes away. Whatever release is installed."""

from __future__ import annotations

import base64
import http.client
import json
import signal
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from incentive_fleet.embedded import broker_release
from incentive_fleet.embedded.process import (
    POLL_S,
    Process,
    Record,
    alive,
    end,
    keep_port,
    last_lines,
    listening,
    spawn,
    wait_ready,
)
from incentive_fleet.embedded.rabbitmq import SETTINGS

NAMES = ("one", "two", "three")
READY_S = 120
LOGIN = {"Authorization": f"Basic {base64.b64encode(b'guest:guest').decode()}"}
CLUSTERED = "cluster_formation.peer_discovery_backend = classic_config\n"


@dataclass(slots=True)
class Node:
    name: str
    folder: Path
    record: Record = field(default_factory=Record)

    @property
    def process(self) -> Process | None:
        return self.record.processes.get("server")

    @property
    def log(self) -> Path:
        return self.folder / "log"


class Cluster:
    """Started and stopped as a whole; single nodes can be killed and started again, with their data and ports.

    `settings` are further lines of rabbitmq.conf. With `mappers`, each node asks the port mapper at the port of its name,
    and none is started here.
    """

    def __init__(self, folder: Path, settings: str = "", mappers: Mapping[str, int] | None = None) -> None:
        folder.mkdir(parents=True)
        self._folder = folder
        self._settings = SETTINGS + settings
        self._mappers = mappers
        self._epmd = Record()
        self.nodes = {name: Node(name, folder / name) for name in NAMES}

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@{self._hosts('amqp')}/%2F"

    def url_of(self, name: str) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.nodes[name].record.ports['amqp']}/%2F"

    @property
    def management_url(self) -> str:
        return f"http://guest:guest@{self._hosts('management')}"

    def _hosts(self, role: str) -> str:
        return ",".join(f"127.0.0.1:{node.record.ports[role]}" for node in self.nodes.values())

    def start(self) -> None:
        """Bring every node up that is not, and wait until all see each other.

        New nodes join one after another. Those that form a cluster at the same time wait for its lock at random and
        connect to each other at once, and now and then they end as more clusters than one.
        """
        broker = broker_release.installed()
        assert broker is not None, broker_release.missing()
        if self._mappers is None and "epmd" not in self._epmd.processes:
            self._start_epmd(broker)
        joined: list[Node] = []
        for node in self.nodes.values():
            is_new = not node.folder.exists()
            joined.append(node)
            if node.process is None:
                self._spawn(node, broker, joined)
            if is_new:
                self._wait_together(joined)
        self._wait_together(joined)

    def _wait_together(self, nodes: list[Node]) -> None:
        """Until each of these sees all of them run; fails with their logs' ends when one has ended, or in time."""
        deadline = time.monotonic() + READY_S
        while not all(self._sees(node) == len(nodes) for node in nodes):
            ended = [node.name for node in nodes if node.process is None or not alive(node.process)]
            if ended or time.monotonic() > deadline:
                why = f"{', '.join(ended)} ended" if ended else f"no cluster of {len(nodes)} within {READY_S} s"
                told = "\n".join(f"{node.name} sees {self._sees(node)} run. {last_lines(node.log)}" for node in nodes)
                raise AssertionError(f"{why}\n{told}")
            time.sleep(POLL_S * 10)

    def kill(self, name: str) -> None:
        """End a node at once, as a crash of its machine would."""
        process = self.nodes[name].record.processes.pop("server")
        end(process, [(signal.SIGKILL, 5)])

    def stop(self) -> None:
        for node in self.nodes.values():
            if node.process is not None:
                self.kill(node.name)
        if epmd := self._epmd.processes.pop("epmd", None):
            end(epmd, [(signal.SIGKILL, 5)])

    def leader(self, queue: str) -> str:
        """The node that leads a quorum queue, as a node that is up tells it."""
        up = next(node for node in self.nodes.values() if node.process is not None)
        return str(self._ask(up, f"queues/%2F/{queue}")["leader"]).partition("@")[0]

    def leaders(self) -> list[str]:
        up = next(node for node in self.nodes.values() if node.process is not None)
        return [str(queue["leader"]).partition("@")[0] for queue in self._ask(up, "queues/%2F")]

    def _sees(self, node: Node) -> int:
        """How many nodes of its cluster run, itself included; 0 while it does not answer."""
        try:
            return sum(bool(one["running"]) for one in self._ask(node, "nodes"))
        except (OSError, http.client.HTTPException, KeyError, TypeError, ValueError):
            return 0

    def _ask(self, node: Node, path: str) -> Any:
        with closing(http.client.HTTPConnection("127.0.0.1", node.record.ports["management"], timeout=5)) as api:
            api.request("GET", f"/api/{path}", headers=LOGIN)
            return json.loads(api.getresponse().read())

    def _start_epmd(self, broker: broker_release.Installed) -> None:
        port = keep_port(self._epmd, "epmd")
        process = spawn(
            [broker_release.epmd(broker) or "epmd", "-port", str(port), "-address", "127.0.0.1"],
            log=self._folder / "epmd.log",
            environment={"PATH": broker.path},
            leash=signal.SIGKILL,
        )
        self._epmd.processes["epmd"] = process
        wait_ready("epmd", lambda: listening(port), process, self._folder / "epmd.log", 10)

    def _spawn(self, node: Node, broker: broker_release.Installed, peers: list[Node]) -> None:
        home = self._folder / "home"  # shared, for the cookie in it
        for folder in (home, node.folder):
            folder.mkdir(exist_ok=True)
        cookie = home / ".erlang.cookie"
        if not cookie.exists():
            cookie.touch(0o600)
            cookie.write_text("cookieofthetest", encoding="utf-8")
            cookie.chmod(0o400)
        for role in ("amqp", "management", "distribution"):
            keep_port(node.record, role)
        discovered = "".join(
            f"cluster_formation.classic_config.nodes.{number} = {peer.name}@localhost\n"
            for number, peer in enumerate(peers, 1)
        )
        configuration = self._settings.format(**node.record.ports) + discovered
        (node.folder / "rabbitmq.conf").write_text(configuration, encoding="utf-8")
        (node.folder / "enabled_plugins").write_text("[rabbitmq_management].\n", encoding="utf-8")
        (node.folder / "environment").write_text("", encoding="utf-8")
        node.record.processes["server"] = spawn(
            [str(broker.server)],
            log=node.log,
            environment=self._environment(node, broker.path),
            leash=signal.SIGKILL,
        )

    def _environment(self, node: Node, path: str) -> dict[str, str]:
        return {
            "PATH": path,
            "LANG": "C.UTF-8",
            "HOME": str(self._folder / "home"),
            "detached": "1",
            "ERL_EPMD_PORT": str(self._mappers[node.name] if self._mappers else self._epmd.ports["epmd"]),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_CRASH_DUMP_BYTES": "0",
            "RABBITMQ_NODENAME": f"{node.name}@localhost",
            "RABBITMQ_NODE_PORT": str(node.record.ports["amqp"]),
            "RABBITMQ_DIST_PORT": str(node.record.ports["distribution"]),
            "RABBITMQ_CONFIG_FILE": str(node.folder / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": str(node.folder / "environment"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(node.folder / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(node.folder / "data"),
            "RABBITMQ_LOG_BASE": str(node.folder),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 -kernel inet_dist_use_interface {127,0,0,1}",
        }
