"""A Postgres address as libpq reads it: several hosts, options, or host=... dbname=.... It opens no connection.

The options of an address are kept. A setting in them (`-c name=value`, `--name=value`) wins over ours, for whoever wrote it
there meant it, but for what the code could not work without. All else in them, by which some hosted Postgres routes,
is passed on as it is.
"""

from __future__ import annotations

import re
from typing import Any

import psycopg
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict

from incentive_fleet.addresses import POSTGRES, check_address
from incentive_fleet.errors import SettingsError

_TOKEN = re.compile(r"(?:\\.|\S)+")  # as the server splits them: at spaces, but for those after a backslash
_SETTING = re.compile(r"(?:-c\s*|--)([A-Za-z_][\w.-]*)=(.*)", re.DOTALL)

Parameters = dict[str, Any]


def parameters_of(url: str, setting: str = "INCENTIVES_DATABASE_URL") -> Parameters:
    """libpq's parameters by name. Raises SettingsError that names the setting and repeats nothing of the address."""
    check_address(setting, url, POSTGRES)
    try:
        parameters = dict(conninfo_to_dict(url))
    except psycopg.ProgrammingError:  # its words repeat what it cannot read
        raise SettingsError(
            f"{setting} cannot be read: libpq knows no such option or finds no end of one. It looks like {POSTGRES.example}."
        ) from None
    hosts, ports = (str(parameters.get(name) or "").split(",") for name in ("host", "port"))
    if len(ports) not in (1, len(hosts)):
        raise SettingsError(
            f"{setting} cannot be read: {len(hosts)} hosts have {len(ports)} ports. It looks like {POSTGRES.example}."
        )
    if not parameters.get("options") and (usual := _usual_options()):
        parameters["options"] = usual
    return parameters


def settings_in(options: str) -> dict[str, str]:
    """The settings that options ask for, as a server takes them: the last of a name counts."""
    return dict(_setting(piece) for piece in _pieces(options) if _SETTING.fullmatch(piece))


def without_settings(options: str) -> str:
    """What else the options say."""
    return " ".join(piece for piece in _pieces(options) if not _SETTING.fullmatch(piece))


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
