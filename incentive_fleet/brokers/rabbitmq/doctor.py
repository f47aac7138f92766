"""What RabbitMQ and our queues on it are set to and what each setting risks, for `incentives doctor`. It changes nothing.

AMQP tells its release and which queues exist; all else is the management API's to tell.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from amqp.exceptions import AMQPError
from kombu.exceptions import OperationalError

from incentive_fleet.addresses import ClusterAddress, is_loopback
from incentive_fleet.brokers.rabbitmq import RABBITMQ, address, topology
from incentive_fleet.brokers.rabbitmq.dialing import connect_to
from incentive_fleet.brokers.rabbitmq.management import Management
from incentive_fleet.brokers.rabbitmq.plan import rabbitmq_plan
from incentive_fleet.brokers.rabbitmq.tls import Tls, tls_of
from incentive_fleet.brokers.topology import DriftReport
from incentive_fleet.certificates import certificate_fault
from incentive_fleet.errors import BrokerUnavailable
from incentive_fleet.findings import (
    NOTE,
    OK,
    RISK,
    UNKNOWN,
    Finding,
    Look,
    Question,
    clock_finding,
    look_at,
    version_finding,
)
from incentive_fleet.settings import Settings

VERSION: Final = Question(
    "rabbitmq-version",
    "version of the node that answers",
    "Nobody has run this release of the fleet on that release of RabbitMQ.",
    "Take a release of docs/deploy/support.md, or run the suite on yours.",
)
TLS: Final = Question(
    "rabbitmq-tls",
    "INCENTIVES_RABBITMQ_URL",
    "Whoever is on the way can read customers, amounts and the password, or stand in for the broker.",
    "Use amqps:// and https://.",
)
LOGIN: Final = Question(
    "rabbitmq-login",
    "login",
    "A login that everybody knows, or an administrator's, lets whoever gets hold of it publish, read and delete anything.",
    "Give the fleet a login of its own, with the tag monitoring and permissions on its prefix.",
)
DECLARED: Final = Question(
    "rabbitmq-topology",
    "queues, exchanges and bindings",
    "A queue that is missing or declared otherwise loses, keeps back or drops messages.",
    "Run `incentives topology apply`; what it refuses is emptied, deleted and applied again.",
)
POLICIES: Final = Question(
    "rabbitmq-policies",
    "policies on our queues",
    "A policy changes a queue without a trace in its declaration, and takes messages away: by age, by length, by count.",
    "Keep the pattern of the policy away from our prefix, or give ours a policy of higher priority.",
)
QUEUE_TYPE: Final = Question(
    "rabbitmq-queue-type",
    "type of a queue",
    "A queue that is not a quorum queue is on one node alone, and counts no deliveries.",
    "Empty and delete it, then run `incentives topology apply`.",
)
QUORUM: Final = Question(
    "rabbitmq-quorum",
    "members of a quorum queue",
    "A queue without three members stops when a node does, and its messages are lost with the node's disk.",
    "Run three nodes or more, and `rabbitmq-queues grow` for queues from before.",
)
NODES: Final = Question(
    "rabbitmq-nodes",
    "nodes of the cluster",
    "A node that is down, or parted from the others, is one failure less that the cluster bears.",
    "Bring it back; heal a partition with the cluster's own handling of them.",
)
ALARMS: Final = Question(
    "rabbitmq-alarms",
    "memory and disk alarms",
    "The broker blocks every publisher: retries, dead letters and the relay stand still.",
    "Give the node memory or disk; look for queues that nobody consumes.",
)
DISK: Final = Question(
    "rabbitmq-disk",
    "free disk space and disk_free_limit",
    "A node that runs out of disk dies in the middle of its work; the limit is to block publishers before.",
    "Free or add disk; set disk_free_limit.absolute to the node's memory, and 2 GB at least.",
)
CLOCK: Final = Question(
    "rabbitmq-clock",
    "clock against this host's",
    "Times in the broker's log and ours cannot be laid beside each other; no rule goes by it.",
    "Let NTP keep both clocks.",
)

MEMBERS: Final = 3  # fewer bear no loss; an even number bears no more than the odd one below it
LIMIT_LEAST: Final = 1 << 30
GIB: Final = 1 << 30
WITHOUT_API: Final = "AMQP does not tell; set INCENTIVES_RABBITMQ_MANAGEMENT_URL"


@dataclass(frozen=True, slots=True)
class ExaminedBroker:
    """The broker that is examined."""

    settings: Settings
    where: ClusterAddress
    version: str

    @property
    def management(self) -> Management:
        """Raises BrokerUnavailable where no URL of it is set."""
        if self.settings.rabbitmq_management_url is None:
            raise BrokerUnavailable(WITHOUT_API)
        return Management(self.settings)


def checks() -> tuple[Question, ...]:
    """Every code that `examine` may find."""
    return tuple(check for look in LOOKS for check in look.checks)


def examine(settings: Settings) -> Iterator[Finding]:
    """See contract.py."""
    where = address.amqp(settings)
    yield from look_at(LOOKS, ExaminedBroker(settings, where, _version(where, tls_of(where, settings))))


def _version(where: ClusterAddress, tls: Tls) -> str:
    """As the first node that lets us in says it. Raises BrokerUnavailable when none does."""
    failed: list[str] = []
    for node in where.nodes:
        try:
            connection: Any = connect_to(where, node, tls, {})
        except (AMQPError, OperationalError, OSError) as error:
            failed.append(f"{node}: {certificate_fault(error) or error}")
            continue
        try:
            return str(connection.connection.server_properties.get("version", ""))
        finally:
            connection.collect()
    raise BrokerUnavailable(f"RabbitMQ: {'; '.join(failed)}")


def _connection(at: ExaminedBroker) -> Iterator[Finding]:
    yield version_finding(VERSION, RABBITMQ.title, at.version)
    api = address.management(at.settings)
    for setting, where in ((address.AMQP, at.where), (address.MANAGEMENT, api)):
        if where is not None:
            near = all(is_loopback(node.host) for node in where.nodes)
            severity = OK if where.secure else NOTE if near else RISK
            yield TLS.found(severity, f"{where.scheme}{', on this host' if near else ''}", setting=setting)


def _login(at: ExaminedBroker) -> Iterator[Finding]:
    name = at.where.user or "guest"
    if at.settings.rabbitmq_management_url is None:
        yield LOGIN.found(NOTE if name == "guest" else UNKNOWN, f"{name}; {WITHOUT_API}")
        return
    record = at.management.login()
    tags = record.get("tags", ())
    said = ", ".join(tags) if isinstance(tags, list) else str(tags)
    strong = name == "guest" or "administrator" in said
    yield LOGIN.found(NOTE if strong else OK, f"{name}; the API's {record.get('name')}: {said or 'no tag'}")


def _declared(at: ExaminedBroker) -> Iterator[Finding]:
    yield from _differences(DECLARED, topology.check_declared(at.settings), "as declared")


def _policies(at: ExaminedBroker) -> Iterator[Finding]:
    yield from _differences(POLICIES, topology.check_policies(at.settings), "none takes messages")


def _differences(check: Question, report: DriftReport, well: str) -> Iterator[Finding]:
    for one in report.drift:
        yield check.found(RISK, f"{one.actual}, should be {one.wanted}", setting=f"{one.attribute} of {one.name}")
    yield from (check.found(UNKNOWN, sentence) for sentence in report.unseen)
    if not report.drift and not report.unseen:
        yield check.found(OK, well)


def _queues(at: ExaminedBroker) -> Iterator[Finding]:
    there = at.management.queues()
    for wanted in rabbitmq_plan(at.settings).queues:
        queue = there.get(wanted.name)
        if queue is None:
            continue  # _declared tells it
        kind = str(queue.get("type", "classic"))
        yield QUEUE_TYPE.found(OK if kind == "quorum" else RISK, kind, setting=wanted.name)
        if kind == "quorum":
            yield _members(wanted.name, len(queue.get("members", ())), len(queue.get("online", ())))


def _members(name: str, members: int, online: int) -> Finding:
    value = f"{members} members, {online} online"
    if members < MEMBERS:
        return QUORUM.found(RISK, value, setting=name)
    if online * 2 <= members:
        return QUORUM.found(
            RISK, value, setting=name, risk="Most of its members are away, so it takes and gives nothing."
        )
    if online < members:
        return QUORUM.found(NOTE, value, setting=name, risk="A member is away, so it bears one failure less.")
    return QUORUM.found(OK, value, setting=name)


def _nodes(at: ExaminedBroker) -> Iterator[Finding]:
    nodes = at.management.nodes()
    down = [str(node["name"]) for node in nodes if not node.get("running")]
    parted = [str(node["name"]) for node in nodes if node.get("partitions")]
    trouble = [f"{name} is down" for name in down] + [f"{name} is parted from others" for name in parted]
    yield NODES.found(RISK if trouble else OK, "; ".join(trouble) or f"{len(nodes)}, all running")
    for node in nodes:
        if node.get("running"):
            name, alarms = str(node["name"]), [key for key in ("mem_alarm", "disk_free_alarm") if node.get(key)]
            yield ALARMS.found(RISK if alarms else OK, ", ".join(alarms) or "none", setting=name)
            yield _disk(name, node.get("disk_free"), node.get("disk_free_limit"))


def _disk(name: str, free: object, limit: object) -> Finding:
    if not isinstance(free, int) or not isinstance(limit, int):
        return DISK.found(UNKNOWN, f"not knowable: the node says {free}", setting=name)
    value = f"{free / GIB:.1f} GiB free, blocks below {limit / GIB:.2f} GiB"
    if free <= 2 * limit:
        return DISK.found(RISK, value, setting=name)
    return DISK.found(NOTE if limit < LIMIT_LEAST else OK, value, setting=name)


def _clock(at: ExaminedBroker) -> Iterator[Finding]:
    started, before = time.monotonic(), datetime.now(UTC)
    there = at.management.clock()
    took_s = time.monotonic() - started
    # The header cuts the fraction of its second off.
    yield clock_finding(CLOCK, (there - before).total_seconds() + 0.5 - took_s / 2, 0.5 + took_s / 2)


LOOKS: Final = (
    Look((VERSION, TLS), _connection),
    Look((LOGIN,), _login),
    Look((DECLARED,), _declared),
    Look((POLICIES,), _policies),
    Look((QUEUE_TYPE, QUORUM), _queues),
    Look((NODES, ALARMS, DISK), _nodes),
    Look((CLOCK,), _clock),
)
