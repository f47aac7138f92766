"""Connecting to one RabbitMQ node by kombu, which publishes. It tries no other node, and never waits between two tries."""

from __future__ import annotations

from collections.abc import Mapping

from kombu.connection import Connection

from incentive_fleet.addresses import ClusterAddress, Node
from incentive_fleet.brokers.rabbitmq.tls import Tls

CONNECT_TIMEOUT_S = 10.0
NODE_S = 5.0  # of one node where there are others to try


def connect_to(where: ClusterAddress, node: Node, tls: Tls, options: Mapping[str, object]) -> Connection:
    """An open connection, with these options of kombu's driver. Raises OSError and the driver's own errors."""
    alone = len(where.nodes) == 1
    # No heartbeats: nobody would answer them between two calls. The driver's TCP keep-alive finds the dead.
    connection = Connection(
        f"[{node.host}]" if ":" in node.host else node.host,
        port=node.port,
        userid=where.user or None,
        password=where.password or None,
        virtual_host=where.virtual_host,
        ssl=tls.for_kombu(node.host) if where.secure else False,
        connect_timeout=CONNECT_TIMEOUT_S if alone else NODE_S,
        heartbeat=0,
        transport_options=dict(options),
    )
    try:
        # Alone, one more try at once; and the driver's own errors: whoever called decides how long to wait.
        connection.ensure_connection(max_retries=1, interval_start=0, reraise_as_library_errors=False)
    except BaseException:
        connection.collect()
        raise
    return connection
