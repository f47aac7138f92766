"""Why libpq did not accept a server's certificate: it says that verification failed, and not what is wrong with it.

Asked only after libpq has refused, and only where the address asks for verification. It shakes hands once more with each
host, sends no login, and lets nobody in whom libpq did not.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from struct import pack
from typing import Final

from incentive_fleet.certificates import certificate_fault
from incentive_fleet.ledger.address import Parameters

VERIFYING: Final = ("verify-ca", "verify-full")
SSL_REQUEST: Final = pack(">II", 8, 80_877_103)  # the wire protocol's SSLRequest
WILLING: Final = b"S"
HOST_S: Final = 3.0
USUAL_AUTHORITIES: Final = "~/.postgresql/root.crt"  # libpq's


def fault(parameters: Parameters) -> str:
    """Which host's certificate is not accepted, and why; "" where that is not what went wrong."""
    if parameters.get("sslmode") not in VERIFYING:
        return ""
    for host, where, port in _hosts(parameters):
        try:
            _shake_hands(parameters, host, where, port)
        except OSError as error:
            if found := certificate_fault(error):
                return f"Postgres at {host}:{port}: {found}"
    return ""


def _hosts(parameters: Parameters) -> Iterator[tuple[str, str, int]]:
    """Name, address and port of each host that is reached over the network."""
    names = str(parameters.get("host") or parameters.get("hostaddr") or "").split(",")
    addresses = str(parameters.get("hostaddr") or parameters.get("host") or "").split(",")
    ports = str(parameters.get("port") or "").split(",")
    for at, (name, where) in enumerate(zip(names, addresses, strict=False)):
        if where and not where.startswith(("/", "@")):
            yield name, where, int((ports[at] if len(ports) > at else ports[0]) or 5432)


def _shake_hands(parameters: Parameters, host: str, where: str, port: int) -> None:
    authorities = str(parameters.get("sslrootcert") or Path(USUAL_AUTHORITIES).expanduser())
    context = ssl.create_default_context(cafile=None if authorities == "system" else authorities)
    context.check_hostname = parameters["sslmode"] == "verify-full"
    with socket.create_connection((where, port), timeout=HOST_S) as raw:
        raw.sendall(SSL_REQUEST)
        if raw.recv(1) == WILLING:
            context.wrap_socket(raw, server_hostname=host).close()
