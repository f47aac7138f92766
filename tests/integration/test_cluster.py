"""A cluster of three RabbitMQ nodes that loses one under load: nothing is lost, and all goes on within a stated time."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from itertools import pairwise

import pytest

from incentive_fleet.brokers import declare
from incentive_fleet.brokers.messages import Ack, Message
from incentive_fleet.brokers.rabbitmq import RABBITMQ
from incentive_fleet.brokers.rabbitmq.transport import RabbitMQTransport
from incentive_fleet.brokers.registry import open_events
from incentive_fleet.errors import BrokerUnavailable
from incentive_fleet.settings import Settings
from tests.brokers_and_workers import settings_of
from tests.cluster import NAMES, Cluster
from tests.contract.brokers_under_test import collect, eventually
from tests.doctors import examined, worst

RESUMED_S = 15.0  # from a node's death to the delivery of the last message that it held up
PLACED = "order-placed.v1"
EVERY_S = 0.01  # between two publications of ten: a thousand messages a second at the most


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path_factory.mktemp("cluster") / "nodes")
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture
def settings(cluster: Cluster) -> Settings:
    cluster.start()
    settings = settings_of(
        f"t{uuid.uuid4().hex[:8]}",
        rabbitmq_url=cluster.url,
        rabbitmq_management_url=cluster.management_url,
        aws_region=None,
    )
    declare.apply(settings)
    return settings


class Load:
    """A publisher that publishes each message until it is confirmed, and a consumer; each notes when."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._publishing, self._consuming = threading.Event(), threading.Event()
        self.confirmed: dict[bytes, float] = {}
        self.received: dict[bytes, float] = {}
        self.failures: list[BaseException] = []
        self._threads = [threading.Thread(target=self._guarded, args=(act,)) for act in (self._publish, self._consume)]

    def _guarded(self, act: Callable[[], None]) -> None:
        try:
            act()
        except BaseException as error:
            self.failures.append(error)

    def _publish(self) -> None:
        with closing(open_events(self._settings, RABBITMQ)) as publisher:
            number = 0
            while not self._publishing.is_set():
                bodies = [f"{number + offset}".encode() for offset in range(10)]
                try:
                    assert publisher.publish([Message(body, PLACED, body.decode()) for body in bodies]) == []
                except BrokerUnavailable:
                    self._publishing.wait(0.1)
                    continue
                self.confirmed.update(dict.fromkeys(bodies, time.monotonic()))
                number += len(bodies)
                self._publishing.wait(EVERY_S)

    def _consume(self) -> None:
        with closing(RabbitMQTransport(self._settings)) as transport:
            while not self._consuming.is_set():
                try:
                    deliveries = transport.receive(500, 0.2)
                    for delivery in deliveries:
                        self.received.setdefault(delivery.body, time.monotonic())
                    transport.settle([(delivery, Ack()) for delivery in deliveries])
                except BrokerUnavailable:
                    self._consuming.wait(0.05)

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        eventually(lambda: len(self.received) > 100)
        return self

    def __exit__(self, *_: object) -> None:
        publishing, consuming = self._threads
        self._publishing.set()
        publishing.join(60)
        eventually(lambda: self.failures or self.confirmed.keys() <= self.received.keys(), 60)
        self._consuming.set()
        consuming.join(60)
        assert not publishing.is_alive()
        assert not consuming.is_alive()

    def goes_on(self) -> None:
        """Messages that are confirmed from now on arrive."""
        before = set(self.confirmed)
        eventually(lambda: self.failures or len((self.confirmed.keys() - before) & self.received.keys()) > 100, 60)


def held_up(load: Load, since: float) -> float:
    """After a node's death the longest time without any delivery, or until the last came that was confirmed by then."""
    deliveries = [since, *sorted(when for when in load.received.values() if when > since)]
    known = [load.received[body] - since for body, confirmed in load.confirmed.items() if confirmed <= since]
    return max(*(later - earlier for earlier, later in pairwise(deliveries)), *known, 0.0)


def lose(cluster: Cluster, settings: Settings, which: Callable[[], str]) -> float:
    """Kill a node under load and bring it back; the seconds that it held anything up."""
    with Load(settings) as load:
        node = which()
        died = time.monotonic()
        cluster.kill(node)
        load.goes_on()
    assert load.failures == []
    assert load.confirmed.keys() - load.received.keys() == set(), "confirmed, and never delivered"
    cluster.start()
    return held_up(load, died)


def test_leaders_are_spread_over_the_nodes(cluster: Cluster, settings: Settings) -> None:
    leaders = eventually(lambda: found if "" not in (found := cluster.leaders()) else None)
    assert set(leaders) == set(NAMES)


def test_a_cluster_that_loses_the_connected_node_and_the_leader_loses_nothing(
    cluster: Cluster, settings: Settings, say: Callable[[str], None]
) -> None:
    queue = f"{settings.prefix}.order-placed"
    connected = NAMES[0]  # the first of the URL
    took = {
        "the connected node": lose(cluster, settings, lambda: connected),
        "the leader": lose(cluster, settings, lambda: cluster.leader(queue)),
    }
    say("; ".join(f"{what} killed: resumed after {seconds:.1f} s" for what, seconds in took.items()))
    assert max(took.values()) < RESUMED_S


def test_what_the_consumers_of_a_dead_node_held_comes_back(
    cluster: Cluster, settings: Settings, say: Callable[[str], None]
) -> None:
    """RabbitMQ 4.3 would keep it a minute, for they might still be there beyond a partition."""
    bodies = {f"held {number}".encode() for number in range(50)}
    with closing(open_events(settings, RABBITMQ)) as publisher:
        assert publisher.publish([Message(body, PLACED, "m") for body in bodies]) == []
    leader = cluster.leader(f"{settings.prefix}.order-placed")
    connected = next(name for name in NAMES if name != leader)  # a leader that dies as well forgets who held what
    alone = settings.model_copy(update={"rabbitmq_url": cluster.url_of(connected)})
    with closing(RabbitMQTransport(alone)) as dying, closing(RabbitMQTransport(settings)) as living:
        assert {delivery.body for delivery in collect(dying, len(bodies))} == bodies
        died = time.monotonic()
        cluster.kill(connected)
        again: set[bytes] = set()
        while again != bodies:
            assert time.monotonic() - died < 4 * RESUMED_S, f"{len(again)} of {len(bodies)} came back"
            try:
                again |= {delivery.body for delivery in living.receive(100, 0.5)}
            except BrokerUnavailable:
                threading.Event().wait(0.1)
        took = time.monotonic() - died
    cluster.start()
    say(f"what a dead node's consumers held came back after {took:.1f} s")
    assert took < RESUMED_S


@pytest.mark.chaos
def test_a_cluster_that_loses_node_after_node_loses_nothing(
    cluster: Cluster, settings: Settings, say: Callable[[str], None]
) -> None:
    queue = f"{settings.prefix}.order-placed"
    took = []
    for turn in range(12):
        which = partial(cluster.leader, queue) if turn % 2 else partial(str, NAMES[turn // 2 % 3])
        took.append(lose(cluster, settings, which))
    say(f"12 nodes killed in turn: resumed after {max(took):.1f} s at the most")
    assert max(took) < RESUMED_S


def test_the_doctor_counts_the_members_of_each_queue(cluster: Cluster, settings: Settings) -> None:
    values = settings.model_dump(exclude_defaults=True)
    codes = ("rabbitmq-quorum", "rabbitmq-nodes", "rabbitmq-reached")
    eventually(lambda: worst(examined(**values), *codes) == dict.fromkeys(codes, "ok"), within_s=30)
    cluster.kill(NAMES[1])
    degraded = {"rabbitmq-quorum": "note", "rabbitmq-nodes": "risk", "rabbitmq-reached": "ok"}
    eventually(lambda: worst(examined(**values), *codes) == degraded, within_s=30)
