"""Where RabbitMQ is: the one reader of its two URLs, each of which may name several nodes of a cluster. Pure; no I/O.

    amqp://user:password@h1:5672,[::1]:5673,h3/vhost?heartbeat=5       amqps:// as well
    http://user:password@h1:15672,h2:15672/path                        https:// as well

What is wrong is told by the setting's name and the place of the mistake, never by the text found there: a password that
was not percent-encoded may stand anywhere.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from typing import Final
from urllib.parse import quote, unquote, unquote_to_bytes

from incentive_fleet.errors import SettingsError
from incentive_fleet.settings import Settings

AMQP: Final = "INCENTIVES_RABBITMQ_URL"
MANAGEMENT: Final = "INCENTIVES_RABBITMQ_MANAGEMENT_URL"
DEFAULT_PORTS: Final[Mapping[str, Mapping[str, int]]] = {
    AMQP: {"amqp": 5672, "amqps": 5671},
    MANAGEMENT: {"http": 80, "https": 443},
}
SHAPES: Final = {
    AMQP: "amqp://user:password@host:5672/vhost, hosts separated by commas",
    MANAGEMENT: "http://user:password@host:15672, hosts separated by commas",
}
NODES_MAX: Final = 16  # RabbitMQ advises against clusters of more than seven
SHORT_STRING_MAX: Final = 255  # bytes; AMQP 0-9-1 writes the length of such a text in one
ENCODE: Final = "in a user or password, / ? # @ [ ] and % are written as %2F %3F %23 %40 %5B %5D and %25"

_URL: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)(/[^?#]*)?(?:\?([^#]*))?(#.*)?")
_NAME: Final = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,252}[A-Za-z0-9_.])?")


@dataclass(frozen=True, slots=True)
class Node:
    host: str  # an IPv6 address without its brackets
    port: int

    def __str__(self) -> str:
        return f"{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Address:
    """One of the two URLs, read. Its text form is left to `urls`, for it holds the password."""

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


def amqp(settings: Settings) -> Address:
    """INCENTIVES_RABBITMQ_URL; raises SettingsError when it is unset or cannot be read."""
    return read(settings.need_rabbitmq_url(), AMQP)


def management(settings: Settings) -> Address | None:
    """INCENTIVES_RABBITMQ_MANAGEMENT_URL, None when it is unset; raises SettingsError when it cannot be read."""
    return read(settings.rabbitmq_management_url, MANAGEMENT) if settings.rabbitmq_management_url else None


def read(url: str, setting: str) -> Address:
    """Read the URL of a setting, AMQP or MANAGEMENT. Raises SettingsError, one sentence without any text of the URL."""
    ports = DEFAULT_PORTS[setting]
    if not url.isprintable() or " " in url:
        raise _wrong(setting, "it holds a blank or a control character")
    match = _URL.fullmatch(url)
    if match is None or match[1].lower() not in ports:
        raise _wrong(setting, f"it must begin with {' or '.join(f'{scheme}://' for scheme in ports)}")
    scheme, authority, path, query, fragment = match[1].lower(), match[2], match[3] or "", match[4] or "", match[5]
    login, at, hosts = authority.rpartition("@")
    if fragment or "@" in path + query:
        raise _wrong(setting, f"one of # @ / ? stands where it cannot; {ENCODE}")
    if setting == AMQP and len(unquote_to_bytes(path[1:])) > SHORT_STRING_MAX:
        raise _wrong(setting, f"its virtual host is longer than {SHORT_STRING_MAX} bytes")
    user, colon, password = login.partition(":")
    if at and (not user or (setting == AMQP and not colon)):
        raise _wrong(setting, "it has an @, and before it no user:password")
    nodes = hosts.split(",")
    if len(nodes) > NODES_MAX:
        raise _wrong(setting, f"it names more than {NODES_MAX} hosts")
    return Address(
        scheme,
        unquote(user),
        unquote(password),
        tuple(_node(setting, number, node, ports[scheme]) for number, node in enumerate(nodes, 1)),
        "" if path == "/" else path,
        query,
    )


def _node(setting: str, number: int, text: str, default_port: int) -> Node:
    host, port = text, ""
    if text.startswith("["):
        host, closed, rest = text[1:].partition("]")
        if not closed or (rest and not rest.startswith(":")) or not _is_ipv6(host):
            raise _wrong(setting, f"host {number} is no IPv6 address in brackets, like [::1]:5672")
        port = rest[1:]
    else:
        host, _, port = text.partition(":")
        if ":" in port:
            raise _wrong(setting, f"host {number} has several colons; an IPv6 address stands in brackets, and {ENCODE}")
        if not _NAME.fullmatch(host):
            raise _wrong(setting, f"host {number} is {'no name of a host' if host else 'empty'}; {ENCODE}")
    if not port:
        return Node(host, default_port)
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and 1 <= int(port) <= 65_535):
        raise _wrong(setting, f"the port of host {number} is no number from 1 to 65535; {ENCODE}")
    return Node(host, int(port))


def _is_ipv6(text: str) -> bool:
    try:
        IPv6Address(text)
    except ValueError:
        return False
    return True


def _wrong(setting: str, what: str) -> SettingsError:
    return SettingsError(f"{setting} cannot be read as {SHAPES[setting]}: {what}.")
