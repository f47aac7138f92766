"""Connecting to one RabbitMQ node by kombu, which publishes. It tries no other node, and never waits between two tries."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qsl

from kombu.connection import Connection

from incentive_fleet.addresses import ClusterAddress, Node
from incentive_fleet.brokers.rabbitmq import address
from incentive_fleet.errors import SettingsError

CONNECT_TIMEOUT_S = 10.0
NODE_S = 5.0  # of one node where there are others to try
# pika's name of a TLS option, and the one that kombu's driver gives it
TLS_NAMES: Final = {
    "ca_certs": "ca_certs",
    "cafile": "ca_certs",
    "certfile": "certfile",
    "keyfile": "keyfile",
    "ciphers": "ciphers",
    "server_hostname": "server_hostname",
}


def connect_to(where: ClusterAddress, node: Node, tls: Mapping[str, Any], options: Mapping[str, object]) -> Connection:
    """An open connection, with these options of kombu's driver. Raises OSError and the driver's own errors."""
    alone = len(where.nodes) == 1
    # No heartbeats: nobody would answer them between two calls. The driver's TCP keep-alive finds the dead.
    connection = Connection(
        f"[{node.host}]" if ":" in node.host else node.host,
        port=node.port,
        userid=where.user or None,
        password=where.password or None,
        virtual_host=where.virtual_host,
        ssl={"server_hostname": node.host, **tls} if where.secure else False,
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


def tls_options(where: ClusterAddress) -> dict[str, Any]:
    """What pika's `ssl_options` of the URL say, as kombu's driver takes it. Raises SettingsError, without any value."""
    text = dict(parse_qsl(where.query)).get("ssl_options")
    if text is None:
        return {}
    try:
        options = dict(ast.literal_eval(text))
    except (ValueError, TypeError, SyntaxError):
        raise SettingsError(f"{address.AMQP} has ssl_options that are no dictionary of Python.") from None
    known = {TLS_NAMES[name]: value for name, value in options.items() if name in TLS_NAMES}
    if len(known) < len(options):
        raise SettingsError(
            f"{address.AMQP} has ssl_options beyond {', '.join(TLS_NAMES)}: kombu cannot publish with them."
        )
    return known
