"""Which RabbitMQ is installed, with which Erlang, and whether it can read what another release wrote. It starts nothing.

A broker that meets the data of a release that it does not follow dies with a term of Erlang, or, older than the data, begins
anew beside it. So the release that wrote a folder is kept there in a file, and compared before anything is started.
"""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

HOME: Final = "RABBITMQ_HOME"
HOMES: Final = ("/usr/lib/rabbitmq", "/opt/rabbitmq", "/usr/local/opt/rabbitmq")
FILE: Final = "release"  # in the node's folder
Version = tuple[int, ...]
# From this release on a broker takes the data of that one and later: what RabbitMQ's upgrade guides allow in place.
KHEPRI: Final[Version] = (4, 2)
STEPS: Final[tuple[tuple[Version, Version], ...]] = (((4, 3), (4, 2)), ((4, 0), (3, 13)))


@dataclass(frozen=True, slots=True)
class Installed:
    """A broker that can be started."""

    server: Path  # the start script itself: Debian's wrapper on the PATH would change to the system's own rabbitmq user
    path: str  # the PATH that leads to the Erlang beside it, which a relocated broker brings along
    version: Version | None  # None when the folder does not tell


def installed() -> Installed | None:
    """The broker of RABBITMQ_HOME and no other where that is set; else the first of the usual places, or of the PATH."""
    named = os.environ.get(HOME)
    homes = [Path(home) for home in ((named,) if named else HOMES)]
    if not named and (wrapper := shutil.which("rabbitmq-server")):
        homes.append(Path(wrapper).resolve().parent.parent)
    for home in homes:
        for place in ("bin", "sbin"):
            server = home / place / "rabbitmq-server"
            if server.is_file():
                return Installed(server, _path(server), _version(server))
    return None


def missing() -> str | None:
    """None when a broker can be started, else a sentence that says what to install or to set."""
    found = installed()
    if found is None and os.environ.get(HOME):
        return f"{HOME} is {os.environ[HOME]!r}, where there is no bin/rabbitmq-server and no sbin/rabbitmq-server."
    if found is None:
        return f"RabbitMQ is not installed: apt-get install rabbitmq-server brings it, {HOME} names another place."
    if epmd(found) is None:
        return "RabbitMQ is installed but Erlang's epmd is not on the PATH: apt-get install erlang-base brings it."
    return None


def epmd(found: Installed) -> str | None:
    """Erlang's port mapper, of the Erlang that the broker runs on."""
    return shutil.which("epmd", path=found.path)


def _path(server: Path) -> str:
    """With the nearest bin/erl above the broker in front: /usr/bin for /usr/lib/rabbitmq, and likewise in another root."""
    path = os.environ.get("PATH", os.defpath)
    beside = next((above / "bin" for above in server.absolute().parents if (above / "bin/erl").is_file()), None)
    return f"{beside}{os.pathsep}{path}" if beside else path


def _version(server: Path) -> Version | None:
    home = server.resolve().parent.parent
    names = [entry.name.removeprefix("rabbit-") for entry in home.glob("plugins/rabbit-[0-9]*")]
    return _read(names[0]) if names else None


def _read(text: str) -> Version | None:
    found = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", text.strip())
    return tuple(int(part) for part in found.groups() if part) if found else None


def shown(version: Version | None) -> str:
    return f"RabbitMQ {'.'.join(map(str, version))}" if version else "an unknown release of RabbitMQ"


def written_by(folder: Path) -> Version | None:
    """The release that the node's folder was last started with; None when there is no word of it."""
    try:
        return _read((folder / FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:  # of an earlier release of ours: only what began to keep its queues in Khepri can be told
        return KHEPRI if any(folder.glob("data/*/rabbitmq_metadata")) else None


def remember(folder: Path, version: Version | None) -> None:
    """Keep the release beside the data, whole or not at all."""
    if version is not None and version != written_by(folder):
        new = folder / f"{FILE}.new"
        new.write_text(".".join(map(str, version)) + "\n", encoding="utf-8")
        new.replace(folder / FILE)


def unfit(folder: Path, data: Version | None, broker: Version | None) -> str | None:
    """Why a broker must not be started on the data of another release, and what to do; None when it may be."""
    if data is None or broker is None:
        return None
    if broker[:2] < data[:2]:
        why = f"which is older and would not see them; set {HOME} to {data[0]}.{data[1]} or later"
    else:
        least = next((least for since, least in STEPS if broker[:2] >= since), (0, 0))
        if data[:2] >= least:
            return None
        why = f"which takes data of {shown(least)} and later only; set {HOME} to {data[0]}.{data[1]}"
    return _sentence(folder, data, broker, why)


def did_not_start(folder: Path, data: Version | None, broker: Version | None) -> str:
    """What to do when a broker ended on data of another or of an unknown release."""
    return _sentence(folder, data, broker, f"which did not start on them; set {HOME} to the release that wrote them")


def _sentence(folder: Path, data: Version | None, broker: Version | None, why: str) -> str:
    return (
        f"The messages in {folder} were written by {shown(data)}, and here is {shown(broker)}, {why}, "
        f"name another folder with --state, or remove this one with all messages in it."
    )
