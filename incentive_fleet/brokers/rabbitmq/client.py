"""Connecting to RabbitMQ: the nodes of the URL in turn, and the drivers' errors as ours. Nothing here waits between tries.

Whoever connects tries every node before it backs off. A node that hangs rather than refuses costs `NODE_S` where there are
others, and a connection whose node fell silent is given up after some two heartbeats.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final
from urllib.parse import parse_qsl

import pika
from pika.exceptions import AMQPError

from incentive_fleet.addresses import SHORT_STRING_MAX, ClusterAddress
from incentive_fleet.brokers.budget import Budget
from incentive_fleet.brokers.rabbitmq import address, tls
from incentive_fleet.brokers.rabbitmq.link import Link
from incentive_fleet.certificates import certificate_fault
from incentive_fleet.errors import BrokerUnavailable, SettingsError
from incentive_fleet.settings import Settings
from incentive_fleet.stopping import Stop

NODE_S: Final = 5.0  # TCP, TLS and AMQP's handshake with one node of several; alone it has pika's 10 and 15 s
HEARTBEAT_S: Final = 10  # RabbitMQ proposes 60, and advises 5 to 20 where a dead peer shall be found soon
HEARTBEAT_MOST_S: Final = 65_535  # 16 bits on the wire
READABLE: Final = (ValueError, TypeError, SyntaxError, AttributeError, OSError)  # what pika raises for a parameter


def parameters(settings: Settings) -> tuple[pika.URLParameters, ...]:
    """How to connect over AMQP to each node; raises SettingsError when the URL is missing or cannot be read."""
    where = address.amqp(settings)
    found = tuple(_parameters(where, url) for url in where.urls())
    tls.check(settings)
    if where.secure:
        known = tls.tls_of(where, settings)
        for one in found:  # pika's own reading of the URL's options may verify nothing
            one.ssl_options = pika.SSLOptions(known.context(), known.server_name)
    return found


def _parameters(where: ClusterAddress, url: str) -> pika.URLParameters:
    try:
        found = pika.URLParameters(url)
    except READABLE:
        raise SettingsError(f"{address.AMQP} has {_mistake(where)}.") from None
    if beyond := _beyond_the_wire(found):
        raise SettingsError(f"{address.AMQP} has a query parameter {beyond!r} with a value that AMQP cannot carry.")
    given = {name for name, _ in parse_qsl(where.query, keep_blank_values=True)}
    found.virtual_host = where.virtual_host  # pika drops what follows a second slash
    if "heartbeat" not in given:
        found.heartbeat = HEARTBEAT_S
    if len(where.nodes) > 1:
        if "socket_timeout" not in given:
            found.socket_timeout = NODE_S
        if "stack_timeout" not in given:
            found.stack_timeout = NODE_S
    return found


def _beyond_the_wire(found: pika.URLParameters) -> str:
    """The parameter that pika takes and cannot write when it connects; "" where there is none."""
    if isinstance(found.heartbeat, int) and found.heartbeat > HEARTBEAT_MOST_S:
        return "heartbeat"
    return "locale" if len(found.locale.encode()) > SHORT_STRING_MAX else ""


def _mistake(where: ClusterAddress) -> str:
    """The query parameter that pika cannot use, by name: its value may hold the password of a key."""
    names = [name for name, _ in parse_qsl(where.query, keep_blank_values=True)]
    for name, value in parse_qsl(where.query, keep_blank_values=True):
        if names.count(name) > 1:
            return f"the query parameter {name!r} more than once"
        setter = getattr(pika.URLParameters(f"{where.scheme}://host"), f"_set_url_{name}", None)
        if setter is None:
            return f"a query parameter {name!r}, which pika does not know"
        try:
            setter(value)
        except READABLE as error:
            return f"a query parameter {name!r} with a value that pika cannot use ({type(error).__name__})"
    return "a query that pika cannot use"


def open_link(
    nodes: Sequence[pika.URLParameters],
    stop: Stop,
    *,
    queues: Sequence[str] = (),
    prefetch: int = 1,
    budget: Budget | None = None,
) -> Link:
    """A link to the first node that takes us; raises BrokerUnavailable, with each node's reason, when none does.

    After `stop` no further node is tried to consume from; to publish, for as long as the drain goes on.
    """
    reasons: list[BrokerUnavailable] = []
    for node in nodes:
        link = Link(node, stop, queues=queues, prefetch=prefetch, budget=budget)
        try:
            link.wait_until_open()
        except BrokerUnavailable as error:
            reasons.append(error)
            if stop.is_set():
                break
            continue
        return link
    if len(reasons) == 1:
        raise reasons[0]
    told = "; ".join(f"{node.host}:{node.port}: {error}" for node, error in zip(nodes, reasons, strict=False))
    raise BrokerUnavailable(f"RabbitMQ: none of {len(nodes)} nodes can be used: {told}")


@contextmanager
def connection(settings: Settings) -> Iterator[pika.BlockingConnection]:
    """A connection for acts of a moment. Raises SettingsError, and BrokerUnavailable also for what fails in the body."""
    nodes = parameters(settings)
    try:
        opened = pika.BlockingConnection(nodes)  # tries them in turn
        try:
            yield opened
        finally:
            if opened.is_open:
                opened.close()
    except (AMQPError, OSError) as error:
        raise BrokerUnavailable(f"RabbitMQ: {certificate_fault(error) or repr(error)}") from error
