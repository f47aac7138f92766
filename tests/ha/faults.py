"""The faults: what is killed, and each wire that is cut or hangs. Each is on for a while, then mended. They judge nothing.

A cut resets what is open and refuses what is new; a wire that hangs keeps everything open and passes nothing on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial

from tests.chaos.faulty_proxy import FaultyProxy
from tests.cluster import NAMES as NODES
from tests.ha.site import Site, kill_host
from tests.ha.watch import longest_gap, next_after

Act = Callable[[FaultyProxy], None]
CUT: Act = FaultyProxy.cut
HANG: Act = FaultyProxy.hang
FAILOVER_S = 25.0  # longer than Patroni's ttl: somebody else leads by then
GOES_ON_S = 50.0  # long after that, the fleet is where the other one leads
CALM_S = 2.0  # between two faults
NOTICED_S = 1.0  # a shorter time without a write is the watcher's own, or the machine's


@dataclass(frozen=True, slots=True)
class Fault:
    """`hurt` does it and leaves with the site what mends it, `lasts_s` seconds later."""

    kind: str
    hurt: Callable[[Site], None]
    lasts_s: float = 10.0
    of_database: bool = False  # the fleet waits for Postgres, or for its way there


@dataclass(frozen=True, slots=True)
class Found:
    """What one fault cost, in seconds: the longest times without a commit of the fleet's, without one of the database's
    own, and without a confirm to the publisher."""

    fault: Fault
    held_up: float
    no_writes: float
    unconfirmed: float
    # From the moment that nothing stood in the way any more (the database took writes, the wire was mended) to the fleet's
    # first commit; None where nothing of the kind held it up.
    back_after: float | None


def suffer(site: Site, fault: Fault) -> Found:
    """Let it happen, mend it, and wait until all is as it was."""
    started = time.monotonic()
    fault.hurt(site)
    time.sleep(fault.lasts_s)
    mended = time.monotonic()
    site.mend()
    site.wait_whole()
    time.sleep(CALM_S)
    end = time.monotonic()
    held_up, until = longest_gap(site.watch.progress, started, end)
    no_writes, writable = longest_gap(site.watch.writes, started, end)
    unconfirmed, _ = longest_gap(site.load.confirms, started, end)
    clear = writable if no_writes > NOTICED_S else mended if until - held_up < mended < until else None
    back_after = next_after(site.watch.progress, clear) - clear if clear else None
    return Found(fault, held_up, no_writes, unconfirmed, back_after)


def _hurt(site: Site, wires: Iterable[FaultyProxy], act: Act) -> None:
    for wire in wires:
        act(wire)
        site.due.append(wire.heal)


def kill_member(role: Callable[[Site], str]) -> Callable[[Site], None]:
    def hurt(site: Site) -> None:
        name = role(site)
        site.patroni.kill(name)
        site.due.append(partial(site.patroni.start_member, name))

    return hurt


def kill_patroni_alone(site: Site) -> None:
    """The leader's Postgres goes on as if it led, beside the one that is promoted: the case for a watchdog."""
    name = site.patroni.leader()
    site.patroni.kill(name, and_postgres=False)
    site.due.append(partial(site.patroni.start_member, name))


def freeze_patroni(site: Site) -> None:
    """The same, and for long: it does not know that it was replaced, and nobody stops it."""
    name = site.patroni.leader()
    site.patroni.freeze(name)
    site.due.append(partial(site.patroni.thaw, name))


def kill_etcd(site: Site) -> None:
    site.patroni.kill_etcd()
    site.due.append(site.patroni.start_etcd)


def kill_node(which: Callable[[Site], str]) -> Callable[[Site], None]:
    def hurt(site: Site) -> None:
        site.cluster.kill(which(site))
        site.due.append(site.cluster.start)

    return hurt


def kill_hosts(number: int) -> Callable[[Site], None]:
    def hurt(site: Site) -> None:
        for fleet in site.hosts[:number]:
            kill_host(fleet)
            site.due.append(fleet.start)

    return hurt


def fleet_to_leader(act: Act) -> Callable[[Site], None]:
    return lambda site: _hurt(site, [site.to_postgres[site.patroni.leader()]], act)


def fleet_to_rabbitmq(act: Act) -> Callable[[Site], None]:
    return lambda site: _hurt(site, site.to_rabbitmq.values(), act)


def publisher_to_rabbitmq(act: Act) -> Callable[[Site], None]:
    return lambda site: _hurt(site, site.from_publisher.values(), act)


def to_etcd(role: Callable[[Site], str], act: Act) -> Callable[[Site], None]:
    return lambda site: _hurt(site, [site.patroni.to_etcd[role(site)]], act)


def between_members(act: Act, *, both_standbys: bool = False) -> Callable[[Site], None]:
    """Of the leader and its synchronous standby, or of the leader and both."""

    def hurt(site: Site) -> None:
        leader = site.patroni.leader()
        others = [name for name in site.patroni.members if name != leader] if both_standbys else [synchronous(site)]
        pairs = [pair for other in others for pair in ((leader, other), (other, leader))]
        _hurt(site, [site.patroni.between[pair] for pair in pairs], act)

    return hurt


def between_nodes(act: Act) -> Callable[[Site], None]:
    """Of the node that leads the orders' queue and another."""

    def hurt(site: Site) -> None:
        one = queue_leader(site)
        other = next(name for name in NODES if name != one)
        site.mappers.hurt(one, other, act)
        site.due.append(partial(site.mappers.heal, one, other))

    return hurt


def leader(site: Site) -> str:
    return site.patroni.leader()


def synchronous(site: Site) -> str:
    return site.patroni.synchronous()


def queue_leader(site: Site) -> str:
    return site.leader_of("order-placed")


def connected(site: Site) -> str:
    """The node that is tried first."""
    return NODES[0]


LEADER_KILLED = Fault("Postgres leader killed, Patroni with it", kill_member(leader), FAILOVER_S, of_database=True)
NODE_KILLED = Fault("RabbitMQ node killed that leads the orders' queue", kill_node(queue_leader))
HOST_KILLED = Fault("one of two consumer hosts killed", kill_hosts(1))
LEADER_CUT = Fault("fleet - Postgres leader: cut", fleet_to_leader(CUT), of_database=True)
REPLACED = Fault("Patroni of the leader hangs, Postgres goes on beside its successor", freeze_patroni, GOES_ON_S)
SHORT = (LEADER_KILLED, *(replace(fault, lasts_s=5.0) for fault in (NODE_KILLED, HOST_KILLED, LEADER_CUT)))
ALL = (
    LEADER_KILLED,
    NODE_KILLED,
    HOST_KILLED,
    LEADER_CUT,
    Fault("fleet - Postgres leader: hangs", fleet_to_leader(HANG), of_database=True),
    Fault("Postgres leader - etcd: cut", to_etcd(leader, CUT), FAILOVER_S, of_database=True),
    Fault("fleet - RabbitMQ, all nodes: cut", fleet_to_rabbitmq(CUT)),
    Fault("Postgres leader - synchronous standby: cut", between_members(CUT), of_database=True),
    Fault("RabbitMQ node - RabbitMQ node: cut", between_nodes(CUT)),
    Fault("synchronous standby killed, Patroni with it", kill_member(synchronous), of_database=True),
    Fault("publisher - RabbitMQ, all nodes: cut", publisher_to_rabbitmq(CUT)),
    Fault("Postgres leader - synchronous standby: hangs", between_members(HANG), 15.0, of_database=True),
    Fault("RabbitMQ node killed that the fleet tries first", kill_node(connected)),
    Fault("Postgres leader - etcd: hangs", to_etcd(leader, HANG), FAILOVER_S, of_database=True),
    Fault("fleet - RabbitMQ, all nodes: hangs", fleet_to_rabbitmq(HANG)),
    Fault("etcd killed", kill_etcd, 5.0, of_database=True),
    Fault("synchronous standby - etcd: cut", to_etcd(synchronous, CUT), of_database=True),
    Fault("RabbitMQ node - RabbitMQ node: hangs", between_nodes(HANG)),
    Fault("Postgres leader - both standbys: cut", between_members(CUT, both_standbys=True), of_database=True),
    Fault("both consumer hosts killed", kill_hosts(2), 5.0),
    Fault("Patroni of the leader killed, Postgres goes on", kill_patroni_alone, FAILOVER_S),
    REPLACED,
)
