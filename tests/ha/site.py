"""The whole site: Patroni, three RabbitMQ nodes, two consumer hosts and a relay as processes of the command line, and wires.

The fleet reaches every server by a wire of its own, and the publisher its own; what sets up and what watches goes past them.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pika
import psycopg

from incentive_fleet.brokers import declare
from incentive_fleet.embedded import sample_shop
from incentive_fleet.names import outcomes_exchange
from incentive_fleet.settings import Settings
from tests.brokers_and_workers import environment_of
from tests.chaos.faults import PROGRAM, Fleet
from tests.chaos.faulty_proxy import FaultyProxy
from tests.cluster import Cluster
from tests.command import incentives
from tests.ha.load import Load
from tests.ha.patroni import PASSWORD, Patroni
from tests.ha.port_mapper import PortMappers
from tests.ha.watch import TABLE, Watch
from tests.shop import open_shop

DATABASE = "incentives"
PREFIX = "ha"
OUTCOMES = f"{PREFIX}.all-outcomes"  # a queue of the test's own
# Two hosts of one worker each; every other setting is as it comes.
CONSUME = (*PROGRAM, "consume", "--from", "rabbitmq")
RELAY = (*PROGRAM, "relay")
WHOLE_S = 120.0  # from the mending of a fault until every part is as it was
POLL_S = 0.1

SET_UP = (
    f"CREATE ROLE incentives_owner LOGIN CREATEROLE PASSWORD '{PASSWORD}'",
    f"CREATE ROLE incentives LOGIN PASSWORD '{PASSWORD}'",
    f"CREATE DATABASE {DATABASE} OWNER incentives_owner ENCODING 'UTF8' TEMPLATE template0",
)


@dataclass(slots=True)
class Site:
    """Everything that can be hurt, and who watches. Up from `site()` on until its end."""

    patroni: Patroni
    cluster: Cluster
    mappers: PortMappers
    to_postgres: dict[str, FaultyProxy]  # of the fleet, by member
    to_rabbitmq: dict[str, FaultyProxy]  # of the fleet, by node
    from_publisher: dict[str, FaultyProxy]  # of the publisher, by node
    direct: Settings  # past every wire
    hosts: list[Fleet]
    relay: Fleet
    load: Load
    watch: Watch
    due: list[Callable[[], None]] = field(default_factory=list)  # what mends the fault that is on

    @property
    def url(self) -> str:
        """The ledger's address past every wire, as the application."""
        return self.direct.need_database_url()

    def serving(self) -> list[Fleet]:
        return [*self.hosts, self.relay]

    def mend(self) -> None:
        while self.due:
            self.due.pop()()

    def wait_whole(self) -> None:
        """Until every part is as it was before the fault, and both publisher and fleet have got on since."""
        self.patroni.wait_whole(WHOLE_S)
        self.cluster.start()
        now = time.monotonic()
        self.until(lambda: self.watch.goes_on(now) and self.load.goes_on(now), "the fleet did not get on")

    def until(self, done: Callable[[], bool], otherwise: str | Callable[[], str], seconds: float = WHOLE_S) -> None:
        """Wait for that; fails with `otherwise` after so many seconds, or when publisher or fleet have ended meanwhile."""
        deadline = time.monotonic() + seconds
        while not done():
            self.load.check()
            for fleet in self.serving():
                fleet.running()
            if time.monotonic() > deadline:
                told = otherwise if isinstance(otherwise, str) else otherwise()
                raise AssertionError(f"after {seconds:g} s {told}; {self.patroni.roles()}")
            time.sleep(POLL_S)

    def leader_of(self, event: str) -> str:
        """The RabbitMQ node that leads an event's queue."""
        return self.cluster.leader(f"{PREFIX}.{event}")

    def ask(self, statement: str) -> Any:
        """The one value of a query, as the database's superuser, of whichever member leads."""
        leader = self.patroni.members[self.patroni.leader()]
        with psycopg.connect(leader.url("postgres", DATABASE), autocommit=True) as connection:
            row = connection.execute(statement.encode()).fetchone()
        return row[0] if row else None


@contextmanager
def site(folder: Path, shop: sample_shop.Shop, events_a_second: float) -> Iterator[Site]:
    """Bring all of it up, with the shop open and the load on; leave no process behind."""
    with ExitStack() as stack:
        patroni = Patroni()
        stack.callback(patroni.stop)
        mappers = PortMappers(("one", "two", "three"))
        stack.callback(mappers.close)
        cluster = Cluster(folder / "rabbitmq", "cluster_partition_handling = pause_minority\n", mappers.ports)
        stack.callback(cluster.stop)
        patroni.start()
        cluster.start()
        patroni.wait_whole()
        wires = _wires(patroni, cluster, stack)
        direct = _settings({name: member.at for name, member in patroni.members.items()}, _amqp(cluster))
        wired = _settings(_ends(wires["postgres"]), _ends(wires["rabbitmq"]))
        _set_up(patroni, cluster, direct, shop)
        hosts = [Fleet(wired, folder / f"host-{number}.log", command=CONSUME) for number in (1, 2)]
        relay = Fleet(wired, folder / "relay.log", command=RELAY)
        publisher = direct.model_copy(update={"rabbitmq_url": _rabbitmq_url(_ends(wires["publisher"]))})
        load = Load(publisher, (body for _, body in sample_shop.events(shop)), events_a_second)
        watch = stack.enter_context(Watch({n: m.url("postgres", DATABASE) for n, m in patroni.members.items()}))
        found = Site(
            patroni,
            cluster,
            mappers,
            to_postgres=wires["postgres"],
            to_rabbitmq=wires["rabbitmq"],
            from_publisher=wires["publisher"],
            direct=direct,
            hosts=hosts,
            relay=relay,
            load=load,
            watch=watch,
        )
        stack.callback(_clear_away, found)
        for fleet in found.serving():
            fleet.start()
        load.start()
        yield found


def kill_host(fleet: Fleet) -> None:
    """End a supervisor and all its workers at once, as a crash of their machine would."""
    workers = fleet.workers()
    assert fleet.end(signal.SIGKILL) == -signal.SIGKILL
    for pid in workers:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _clear_away(found: Site) -> None:
    with suppress(AssertionError):
        found.load.stop()
    for fleet in found.serving():
        if fleet.process is not None and fleet.process.poll() is None:
            kill_host(fleet)


def _wires(patroni: Patroni, cluster: Cluster, stack: ExitStack) -> dict[str, dict[str, FaultyProxy]]:
    targets = {
        "postgres": {name: member.at for name, member in patroni.members.items()},
        "rabbitmq": _amqp(cluster),
        "publisher": _amqp(cluster),
    }
    wires = {part: {name: FaultyProxy(at) for name, at in of.items()} for part, of in targets.items()}
    for of_part in wires.values():
        for wire in of_part.values():
            stack.callback(wire.close)
    return wires


def _amqp(cluster: Cluster) -> dict[str, tuple[str, int]]:
    return {name: ("127.0.0.1", node.record.ports["amqp"]) for name, node in cluster.nodes.items()}


def _ends(wires: dict[str, FaultyProxy]) -> dict[str, tuple[str, int]]:
    return {name: ("127.0.0.1", wire.port) for name, wire in wires.items()}


def _settings(postgres: dict[str, tuple[str, int]], rabbitmq: dict[str, tuple[str, int]]) -> Settings:
    """The product's defaults, with the addresses as docs/database.md and docs/topology.md have them."""
    hosts = ",".join(f"{host}:{port}" for host, port in postgres.values())
    return Settings(
        prefix=PREFIX,
        database_url=f"postgresql://incentives:{PASSWORD}@{hosts}/{DATABASE}?target_session_attrs=read-write",
        rabbitmq_url=_rabbitmq_url(rabbitmq),
    )


def _rabbitmq_url(nodes: dict[str, tuple[str, int]]) -> str:
    return f"amqp://guest:guest@{','.join(f'{host}:{port}' for host, port in nodes.values())}/%2F"


def _set_up(patroni: Patroni, cluster: Cluster, direct: Settings, shop: sample_shop.Shop) -> None:
    leader = patroni.members[patroni.leader()]
    with psycopg.connect(leader.url("postgres", "postgres"), autocommit=True) as connection:
        for statement in SET_UP:
            connection.execute(statement.encode())
    owner = direct.need_database_url().replace("//incentives:", "//incentives_owner:")
    ran = incentives("db", "upgrade", env=environment_of(direct, INCENTIVES_ADMIN_DATABASE_URL=owner))
    assert ran.code == 0, ran.err
    with psycopg.connect(leader.url("postgres", DATABASE), autocommit=True) as connection:
        connection.execute(TABLE.encode())
        connection.execute("DELETE FROM destinations WHERE destination = 'sns'")
    open_shop(direct.need_database_url(), shop)
    declare.apply(direct)
    with pika.BlockingConnection(pika.URLParameters(cluster.url_of("one"))) as connection:
        channel = connection.channel()
        channel.queue_declare(OUTCOMES, durable=True, arguments={"x-queue-type": "quorum"})
        channel.queue_bind(OUTCOMES, outcomes_exchange(PREFIX), "#")
