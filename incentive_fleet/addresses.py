"""Reads the addresses of parts before any driver does, because drivers repeat what they cannot read, passwords included.

Nothing here, and no error raised here, ever repeats a part of an address but its hosts, ports and path, and those only of
an address that is in order. It opens no connection. RabbitMQ's two URLs may name several nodes of a cluster:

    amqp://user:password@h1:5672,[::1]:5673,h3/vhost?heartbeat=5       amqps:// as well
    http://user:password@h1:15672,h2:15672/path                        https:// as well
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv6Address, ip_address
from typing import Final
from urllib.parse import quote, unquote, unquote_to_bytes

from incentive_fleet.errors import SettingsError

PORT_MAX = 65_535
_SCHEME = re.compile(r"\s*([A-Za-z][A-Za-z0-9+.-]*):/")
_HOST = re.compile(r"[\w.~%-]*|\[[0-9A-Fa-f:.]+(?:%[\w.~-]+)?\]")
_LABEL = r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)"
_ENDPOINT_HOST = re.compile(rf"(?=.{{1,255}}$)(?:{_LABEL}\.)*{_LABEL}\.?|\[[0-9A-Fa-f:.]+\]")  # botocore takes no other
_BROKEN_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})|%00")
DESCRIBED_MAX = 300  # code points; what is longer is no address that a person can read
_USERINFO = re.compile(r"(?<=://)[^/\s'\"]*@")
_CLUSTER = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)(/[^?#]*)?(?:\?([^#]*))?(#.*)?")
_NODE = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,252}[A-Za-z0-9_.])?")
_PROJECT = re.compile(r"/(?:[\w.~-]+/)*[0-9]+", re.ASCII)
_ENCODE = "in a user or password, / ? # @ [ ] and % are written as %2F %3F %23 %40 %5B %5D and %25"
NODES_MAX: Final = 16  # RabbitMQ advises against clusters of more than seven
SHORT_STRING_MAX: Final = 255  # bytes; AMQP 0-9-1 writes the length of such a text in one
_LOGIN = re.compile(r"://.*@|password\s*=", re.DOTALL | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class AddressKind:
    """What an address of one sort of part may look like."""

    schemes: tuple[str, ...]
    example: str
    keywords: bool = False  # libpq's other form, host=... dbname=...
    login: bool = True  # whether a user and a password belong in it
    dsn: bool = False  # Sentry's: a key as the user, and the number of a project at the end
    endpoint: bool = False  # botocore's: a plain name of a host, and nothing behind the path
    ports: Mapping[str, int] | None = None  # by scheme, of nodes that name none: this may name several nodes
    virtual_host: bool = False  # whether the path is one, which AMQP carries


POSTGRES = AddressKind(("postgresql", "postgres"), "postgresql://user:password@host:5432/database", keywords=True)
RABBITMQ = AddressKind(
    ("amqp", "amqps"),
    "amqp://user:password@host:5672/vhost, hosts separated by commas",
    ports={"amqp": 5672, "amqps": 5671},
    virtual_host=True,
)
MANAGEMENT = AddressKind(
    ("http", "https"),
    "http://user:password@host:15672, hosts separated by commas",
    ports={"http": 80, "https": 443},
)
AWS = AddressKind(("http", "https"), "http://host:4566", login=False, endpoint=True)
SENTRY = AddressKind(("https", "http"), "https://key@sentry.example.org/42", dsn=True)
OTLP = AddressKind(("http", "https"), "http://collector:4318", login=False, endpoint=True)


@dataclass(frozen=True, slots=True)
class Node:
    host: str  # an IPv6 address without its brackets
    port: int

    def __str__(self) -> str:
        return f"{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class ClusterAddress:
    """The address of one node or of several. Its text form is left to `urls`, for it holds the password."""

    scheme: str
    user: str
    password: str = field(repr=False)
    nodes: tuple[Node, ...]
    path: str  # as it was written, percent-encoded; "" or from its slash on
    query: str = field(repr=False)  # of amqp, for pika; it may hold the password of a key

    @property
    def secure(self) -> bool:
        return self.scheme in {"amqps", "https"}

    @property
    def virtual_host(self) -> str:
        """Of amqp; "/" where the URL has none."""
        return unquote(self.path[1:]) or "/"

    def urls(self) -> tuple[str, ...]:
        """The URL of each node alone, with the password in it."""
        login = f"{quote(self.user, safe='')}:{quote(self.password, safe='')}@" if self.user else ""
        rest = self.path + (f"?{self.query}" if self.query else "")
        return tuple(f"{self.scheme}://{login}{node}{rest}" for node in self.nodes)


def check_address(setting: str, address: str, kind: AddressKind) -> str:
    """The address as it is; raises SettingsError that names the setting and what is wrong, and repeats nothing of it."""
    fault = next(_faults(address, kind), None)
    if fault:
        raise unreadable(setting, fault, kind)
    return address


def read_cluster(setting: str, address: str, kind: AddressKind) -> ClusterAddress:
    """Login, nodes and path of an address whose kind has `ports`; raises SettingsError as `check_address` does."""
    assert kind.ports is not None
    found = _cluster(address, kind.ports, kind)
    if isinstance(found, str):
        raise unreadable(setting, found, kind)
    return found


def unreadable(setting: str, fault: str, kind: AddressKind) -> SettingsError:
    """The error for an address of that setting; `fault` repeats nothing of it."""
    return SettingsError(f"{setting} cannot be read: {fault}. It looks like {kind.example}.")


def resolvable(host: str) -> bool:
    """Whether a resolver can be asked for the name at all: no part of it is empty or longer than 63 bytes (RFC 1035)."""
    try:
        host.encode("idna")
    except UnicodeError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Whether a host is this one for certain: an address of the loopback, or localhost. Another name is not resolved."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.rstrip(".").lower() == "localhost"


def described(address: str) -> str:
    """Where an address leads, for people: scheme, hosts, ports and path; never a user, a password or an option."""
    if not (scheme := _SCHEME.match(address)):
        return "a connection string"
    kind = next((kind for kind in (POSTGRES, RABBITMQ, MANAGEMENT) if scheme[1].lower() in kind.schemes), None)
    if kind is None or next(_faults(address, kind), None):
        return "an address that cannot be read"
    _, hosts, path = _parts(address.strip())
    whole = f"{scheme[1]}://{hosts}{path}"
    return whole if len(whole) <= DESCRIBED_MAX else f"{whole[:DESCRIBED_MAX]}... ({len(whole)} characters)"


def holds_login(value: str) -> bool:
    """Whether it looks like an address with a password in it: people put one where none belongs, and no error repeats it."""
    return bool(_LOGIN.search(value))


def without_logins(text: str) -> str:
    """A driver's words without the user and the password of any URL that it repeats."""
    return _USERINFO.sub("", text)


def _parts(address: str) -> tuple[str | None, str, str]:
    """User and password as written, or None; hosts; path. A login ends at the first @ that stands before any slash."""
    rest = address.partition("://")[2]
    head, slash, tail = rest.partition("/")
    login, at, hosts = head.partition("@") if "@" in head else ("", "", head)
    hosts, question, _ = hosts.partition("?")
    path = "" if question else slash + tail.partition("?")[0]
    return login if at else None, hosts, path


def _faults(address: str, kind: AddressKind) -> Iterator[str]:
    if kind.ports is not None:
        if isinstance(fault := _cluster(address, kind.ports, kind), str):
            yield fault
        return
    scheme = _SCHEME.match(address)
    if scheme is None and kind.keywords and "=" in address:
        return  # libpq reads the rest; ledger/address.py keeps its words to itself
    if scheme is None or scheme[1] not in kind.schemes or "://" not in address[: scheme.end() + 1]:
        yield f"it does not begin with {kind.schemes[0]}://"
        return
    yield from _character_faults(address)
    login, hosts, path = _parts(address)
    if "@" in hosts or "@" in path:
        yield "an @ stands where none can; in a user or password @ is written %40, / is written %2F, : is written %3A"
    if login is not None and not kind.login:
        yield "a user or password has no place in it"
    if kind.endpoint:
        yield from _endpoint_faults(address, hosts)
    if kind.dsn and not login:
        yield "it has no key before an @"
    if kind.dsn and not _PROJECT.fullmatch(path):
        yield "it does not end with the number of a project"
    yield from (fault for host in hosts.split(",") if (fault := _host_fault(host)))


def _character_faults(address: str) -> Iterator[str]:
    if any(character.isspace() or not character.isprintable() for character in address):
        yield "there is a space or a control character in it"
    if _BROKEN_ESCAPE.search(address):
        yield "a % in it is not followed by the two digits of a character; a % itself is written %25"
    if not _is_utf8(unquote_to_bytes(address)):
        yield "the characters that are written as %XX in it are not UTF-8"


def _endpoint_faults(address: str, hosts: str) -> Iterator[str]:
    if "?" in address or "#" in address:
        yield "there is a ? or # in it, and nothing may stand behind the path"
    if not _ENDPOINT_HOST.fullmatch(re.sub(r":[0-9]*$", "", hosts)):
        yield "its host is no plain name: letters, digits and hyphens, parted by dots"


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _host_fault(host: str) -> str:
    name, colon, port = host.rpartition(":") if re.search(r":[^\]]*$", host) else (host, "", "")
    if not _HOST.fullmatch(name):
        return "a host in it has characters that no host name has; in a user or password they are written as %XX"
    if "%" not in name and not resolvable(name):  # an escaped name is the folder of a socket, or has a zone
        return "a host in it has a part that is empty or longer than 63 characters"
    if colon and port and not (port.isascii() and port.isdigit() and 0 < int(port[:6]) <= PORT_MAX):
        return f"a port in it is not a number from 1 to {PORT_MAX}, or the @ after the password is missing"
    return ""


def _cluster(address: str, ports: Mapping[str, int], kind: AddressKind) -> ClusterAddress | str:
    """What the address says, or what is wrong with it."""
    match = _CLUSTER.fullmatch(address)
    if match is None or (scheme := match[1].lower()) not in ports:
        return f"it does not begin with {' or '.join(f'{scheme}://' for scheme in ports)}"
    if fault := next(_character_faults(address), None):
        return fault
    authority, path, query, fragment = match[2], match[3] or "", match[4] or "", match[5]
    login, at, hosts = authority.rpartition("@")
    if fragment or "@" in login + path + query:
        return f"one of # @ / ? stands where it cannot; {_ENCODE}"
    if kind.virtual_host and len(unquote_to_bytes(path[1:])) > SHORT_STRING_MAX:
        return f"its virtual host is longer than {SHORT_STRING_MAX} bytes"
    user, colon, password = login.partition(":")
    if at and (not user or (kind.virtual_host and not colon)):
        return "it has an @, and before it no user:password"
    names = hosts.split(",")
    if len(names) > NODES_MAX:
        return f"it names more than {NODES_MAX} hosts"
    nodes = []
    for number, name in enumerate(names, 1):
        if isinstance(node := _node(number, name, ports[scheme]), str):
            return node
        nodes.append(node)
    return ClusterAddress(scheme, unquote(user), unquote(password), tuple(nodes), "" if path == "/" else path, query)


def _node(number: int, text: str, default_port: int) -> Node | str:
    """The node at that place, or what is wrong with it."""
    if text.startswith("["):
        host, closed, rest = text[1:].partition("]")
        if not closed or (rest and not rest.startswith(":")) or not _is_ipv6(host):
            return f"host {number} is no IPv6 address in brackets, like [::1]:5672"
        port = rest[1:]
    else:
        host, _, port = text.partition(":")
        if ":" in port:
            return f"host {number} has several colons; an IPv6 address stands in brackets, and {_ENCODE}"
        if not _NODE.fullmatch(host) or not resolvable(host):
            return f"host {number} is {'no name of a host' if host else 'empty'}; {_ENCODE}"
    if not port:
        return Node(host, default_port)
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and 1 <= int(port) <= PORT_MAX):
        return f"the port of host {number} is no number from 1 to {PORT_MAX}; {_ENCODE}"
    return Node(host, int(port))


def _is_ipv6(text: str) -> bool:
    try:
        IPv6Address(text)
    except ValueError:
        return False
    return True
