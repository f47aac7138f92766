"""Reads the addresses of parts before any driver does, because drivers repeat what they cannot read, passwords included.

Nothing here, and no error raised here, ever repeats a part of an address but its hosts, ports and path, and those only of
an address that is in order. It opens no connection.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import unquote_to_bytes

from incentive_fleet.errors import SettingsError

PORT_MAX = 65_535
_SCHEME = re.compile(r"\s*([A-Za-z][A-Za-z0-9+.-]*):/")
_HOST = re.compile(r"[\w.~%-]*|\[[0-9A-Fa-f:.]+(?:%[\w.~-]+)?\]")
_LABEL = r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)"
_ENDPOINT_HOST = re.compile(rf"(?=.{{1,255}}$)(?:{_LABEL}\.)*{_LABEL}\.?|\[[0-9A-Fa-f:.]+\]")  # botocore takes no other
_BROKEN_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})|%00")
DESCRIBED_MAX = 300  # code points; what is longer is no address that a person can read
_USERINFO = re.compile(r"(?<=://)[^/\s'\"]*@")


@dataclass(frozen=True, slots=True)
class AddressKind:
    """What an address of one sort of part may look like."""

    schemes: tuple[str, ...]
    example: str
    keywords: bool = False  # libpq's other form, host=... dbname=...
    login: bool = True  # whether a user and a password belong in it
    endpoint: bool = False  # botocore's: a plain name of a host, and nothing behind the path


POSTGRES = AddressKind(("postgresql", "postgres"), "postgresql://user:password@host:5432/database", keywords=True)
RABBITMQ = AddressKind(("amqp", "amqps"), "amqp://user:password@host:5672/vhost")
MANAGEMENT = AddressKind(("http", "https"), "http://user:password@host:15672")
AWS = AddressKind(("http", "https"), "http://host:4566", login=False, endpoint=True)


def check_address(setting: str, address: str, kind: AddressKind) -> str:
    """The address as it is; raises SettingsError that names the setting and what is wrong, and repeats nothing of it."""
    fault = next(_faults(address, kind), None)
    if fault:
        raise unreadable(setting, fault, kind)
    return address


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
    kind = next((kind for kind in (POSTGRES, RABBITMQ, MANAGEMENT) if scheme[1] in kind.schemes), None)
    if kind is None or next(_faults(address, kind), None):
        return "an address that cannot be read"
    _, hosts, path = _parts(address.strip())
    whole = f"{scheme[1]}://{hosts}{path}"
    return whole if len(whole) <= DESCRIBED_MAX else f"{whole[:DESCRIBED_MAX]}... ({len(whole)} characters)"


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
    scheme = _SCHEME.match(address)
    if scheme is None and kind.keywords and "=" in address:
        return  # libpq reads the rest; ledger/address.py keeps its words to itself
    if scheme is None or scheme[1] not in kind.schemes or "://" not in address[: scheme.end() + 1]:
        yield f"it does not begin with {kind.schemes[0]}://"
        return
    if any(character.isspace() or not character.isprintable() for character in address):
        yield "there is a space or a control character in it"
    if _BROKEN_ESCAPE.search(address):
        yield "a % in it is not followed by the two digits of a character; a % itself is written %25"
    if not _is_utf8(unquote_to_bytes(address)):
        yield "the characters that are written as %XX in it are not UTF-8"
    login, hosts, path = _parts(address)
    if "@" in hosts or "@" in path:
        yield "an @ stands where none can; in a user or password @ is written %40, / is written %2F, : is written %3A"
    if login is not None and not kind.login:
        yield "a user or password has no place in it"
    if kind.endpoint:
        yield from _endpoint_faults(address, hosts)
    yield from (fault for host in hosts.split(",") if (fault := _host_fault(host)))


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
