"""A Postgres address as libpq reads it: several hosts, options, or host=... dbname=.... It opens no connection.

The options of an address are kept. A setting in them (`-c name=value`, `--name=value`) wins over ours, for whoever wrote it
there meant it, but for what the code could not work without. All else in them, by which some hosted Postgres routes,
is passed on as it is.
"""

from __future__ import annotations

import os
import re
from typing import Any

import psycopg
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict

from incentive_fleet.addresses import PORT_MAX, POSTGRES, check_address, resolvable, unreadable

_TOKEN = re.compile(r"(?:\\.|\S)+")  # as the server splits them: at spaces, but for those after a backslash
_QUOTED = re.compile(r"""(["'])(.*?)\1""", re.DOTALL)
# What an error may repeat of an address, as long as it is what its name says.
_SHOWN = frozenset({"host", "hostaddr", "port", "dbname", "user"})
_NUMBERS = (
    "connect_timeout",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_count",
    "tcp_user_timeout",
)
_FILES = ("sslrootcert", "sslcert", "sslkey")
_SETTING = re.compile(r"(?:-c\s*|--)([A-Za-z_][\w.-]*)=(.*)", re.DOTALL)

Parameters = dict[str, Any]


def parameters_of(url: str, setting: str = "INCENTIVES_DATABASE_URL") -> Parameters:
    """libpq's parameters by name. Raises SettingsError that names the setting and repeats nothing of the address."""
    check_address(setting, url, POSTGRES)
    try:
        parameters = dict(conninfo_to_dict(url))
    except (psycopg.ProgrammingError, UnicodeDecodeError):  # their words repeat what they cannot read
        fault = "libpq knows no such option or finds no end of one"
        raise unreadable(setting, fault, POSTGRES) from None
    if fault := _fault(parameters):
        raise unreadable(setting, fault, POSTGRES)
    if not parameters.get("options") and (usual := _usual_options()):
        parameters["options"] = usual
    return parameters


def each_host(parameters: Parameters) -> list[Parameters]:
    """The address of each of its hosts alone, whether that one leads or not."""
    lists = {name: str(parameters[name]).split(",") for name in ("host", "hostaddr", "port") if parameters.get(name)}
    number = max((len(pieces) for pieces in lists.values()), default=1)
    return [
        {
            **parameters,
            **{name: pieces[at] if len(pieces) > 1 else pieces[0] for name, pieces in lists.items()},
            "target_session_attrs": "any",
        }
        for at in range(number)
    ]


def without_values(text: str, parameters: Parameters) -> str:
    """libpq's words about an address without the values that it quotes: what was meant to be a password may be one."""
    hidden = {piece for name, value in parameters.items() if name not in _SHOWN for piece in _pieces_of(value)}
    return _QUOTED.sub(lambda quoted: f"{quoted[1]}...{quoted[1]}" if quoted[2] in hidden else quoted[0], text)


def settings_in(options: str) -> dict[str, str]:
    """The settings that options ask for, as a server takes them: the last of a name counts."""
    return dict(_setting(piece) for piece in _pieces(options) if _SETTING.fullmatch(piece))


def without_settings(options: str) -> str:
    """What else the options say."""
    return " ".join(piece for piece in _pieces(options) if not _SETTING.fullmatch(piece))


def _fault(parameters: Parameters) -> str:
    """What neither libpq nor a resolver could take; "" when there is nothing."""
    hosts, ports = (str(parameters.get(name) or "").split(",") for name in ("host", "port"))
    if len(ports) not in (1, len(hosts)):
        return f"{len(hosts)} hosts have {len(ports)} ports"
    if not all(not port or (_is_number(port) and 1 <= int(port) <= PORT_MAX) for port in ports):
        return f"a port in it is not a number from 1 to {PORT_MAX}"
    if not all(host.startswith(("/", "@")) or resolvable(host) for host in hosts):
        return "a host in it has a part that is empty or longer than 63 characters"
    if unread := next((name for name in _FILES if not _is_readable(str(parameters.get(name) or "system"))), None):
        return f"its {unread} names no file that can be read"
    wrong = next((name for name in _NUMBERS if name in parameters and not _is_number(str(parameters[name]))), None)
    return f"its {wrong} is not a number" if wrong else ""


def _is_readable(path: str) -> bool:
    """Whether a file is there for us; `system`, libpq's word for the authorities of the system, is none."""
    return path == "system" or os.access(path, os.R_OK)


def _is_number(text: str) -> bool:
    return text.removeprefix("-").isdecimal() and text.isascii() and len(text) <= 9


def _pieces_of(value: object) -> tuple[str, ...]:
    """A value whole and, for several hosts, piece by piece."""
    return (str(value), *str(value).split(","))


def _usual_options() -> str:
    """What libpq takes where an address has no options: PGOPTIONS."""
    return next(((o.val or b"").decode() for o in pq.Conninfo.get_defaults() if o.keyword == b"options"), "")


def _pieces(options: str) -> list[str]:
    pieces: list[str] = []
    for token in _TOKEN.findall(options):
        if pieces and pieces[-1] == "-c":
            pieces[-1] = f"-c {token}"
        else:
            pieces.append(token)
    return pieces


def _setting(piece: str) -> tuple[str, str]:
    match = _SETTING.fullmatch(piece)
    assert match is not None
    return match[1].replace("-", "_").lower(), re.sub(r"\\(.)", r"\1", match[2])
