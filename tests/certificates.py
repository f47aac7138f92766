"""Authorities and certificates of the tests' own, made anew each time, and a TLS server that stands before a real part."""

from __future__ import annotations

import select
import socket
import ssl
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

SSL_REQUEST = bytes.fromhex("0000000804d2162f")  # Postgres': may we speak TLS?
HANDSHAKE = 0x16  # the first byte of a TLS record that begins a conversation
DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its key, PEM files."""

    certificate: Path
    key: Path


class Authority:
    """Signs certificates; who believes it reads `file`."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._name = folder, name
        self._key = ec.generate_private_key(ec.SECP256R1())
        subject = _subject(name)
        builder = _builder(subject, subject, self._key.public_key(), DAY)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        self._certificate = builder.sign(self._key, hashes.SHA256())
        self.file = folder / f"{name}.pem"
        self.file.write_bytes(self._certificate.public_bytes(serialization.Encoding.PEM))

    def sign(self, name: str, hosts: Sequence[str], lasts: timedelta = DAY) -> Pair:
        """A certificate for these names and addresses; with a negative life, one that has expired."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(_subject(name), self._certificate.subject, key.public_key(), lasts)
        builder = builder.add_extension(x509.SubjectAlternativeName([_name(host) for host in hosts]), critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        pair = Pair(self._folder / f"{self._name}-{name}.pem", self._folder / f"{self._name}-{name}.key")
        pair.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        pair.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        pair.key.chmod(0o600)
        return pair


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, lasts: timedelta
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - 2 * DAY)
        .not_valid_after(now + lasts)
    )


@dataclass(slots=True)
class Front:
    """What came to a TLS server; `clear` is what was sent to it unencrypted."""

    port: int
    clear: list[bytes] = field(default_factory=list)
    through: int = 0  # bytes that were sent to it encrypted


@contextmanager
def tls_before(
    backend: tuple[str, int] | str, pair: Pair, *, clients: Path | None = None, postgres: bool = False
) -> Iterator[Front]:
    """TLS with that certificate before a server that speaks without; it wants one of us where `clients` may sign it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    if clients is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(clients)
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        front = Front(listener.getsockname()[1])

        def serve() -> None:
            with suppress(OSError):  # the listener was closed: the block is over
                while True:
                    client, _ = listener.accept()
                    client.settimeout(60)
                    threading.Thread(
                        target=_answer, args=(client, backend, context, front, postgres), daemon=True
                    ).start()

        threading.Thread(target=serve, name="tls front", daemon=True).start()
        try:
            yield front
        finally:
            listener.shutdown(socket.SHUT_RDWR)


def _answer(
    client: socket.socket, backend: tuple[str, int] | str, context: ssl.SSLContext, front: Front, postgres: bool
) -> None:
    with suppress(OSError), client:  # a client that does not believe us hangs up
        if postgres:
            asked = client.recv(8)
            if asked != SSL_REQUEST:
                front.clear.append(asked)
                return
            client.sendall(b"S")
        first = client.recv(64, socket.MSG_PEEK)
        if first and first[0] != HANDSHAKE:
            front.clear.append(first)
            return
        with context.wrap_socket(client, server_side=True) as secure:
            _carry(secure, backend, front)


def _carry(secure: ssl.SSLSocket, backend: tuple[str, int] | str, front: Front) -> None:
    """Both ways until either side hangs up; one thread, for OpenSSL lets no two into one connection."""
    family = socket.AF_UNIX if isinstance(backend, str) else socket.AF_INET
    with socket.socket(family) as server:
        server.connect(backend)
        while True:
            ready = [secure] if secure.pending() else select.select([secure, server], [], [])[0]
            for source in ready:
                data = source.recv(65_536)
                if not data:
                    return
                if source is secure:
                    front.through += len(data)
                (server if source is secure else secure).sendall(data)
