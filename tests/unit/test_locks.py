"""What `make` installs is pinned by version and hash, the same everywhere, and within what pyproject.toml allows."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "install" / "locks"
LOCKS = sorted(path.stem for path in FOLDER.glob("*.lock"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def entries(lock: str) -> list[str]:
    """Each pinned package with its hashes, on one line."""
    text = (FOLDER / f"{lock}.lock").read_text(encoding="utf-8").replace("\\\n", " ")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def pins(lock: str) -> dict[str, set[str]]:
    """The versions of each package; two where Pythons need different ones."""
    found: dict[str, set[str]] = {}
    for entry in entries(lock):
        requirement = Requirement(entry.split(" --hash")[0].strip())
        found.setdefault(canonicalize_name(requirement.name), set()).add(str(requirement.specifier))
    return found


@pytest.mark.parametrize("lock", LOCKS)
def test_every_package_has_one_version_and_its_hashes(lock: str) -> None:
    for entry in entries(lock):
        assert re.match(r"[\w.-]+(\[[\w,-]+\])?==[^ ;]+ ", entry), entry[:80]
        assert "--hash=sha256:" in entry, entry[:80]


@pytest.mark.parametrize("lock", ["runtime", "demo", "fuzz"])
def test_the_same_versions_are_tested_and_run(lock: str) -> None:
    tested, pinned = pins("development"), pins(lock)
    assert {name: versions for name, versions in pinned.items() if name in tested} == {
        name: tested[name] for name in pinned if name in tested
    }
    assert lock == "fuzz" or pinned.keys() <= tested.keys()


@pytest.mark.parametrize(
    ("lock", "extras"), [("runtime", []), ("demo", ["embedded"]), ("development", ["embedded", "test", "lint"])]
)
def test_what_the_project_asks_for_is_pinned_within_its_range(lock: str, extras: list[str]) -> None:
    asked = [*PROJECT["dependencies"], *(one for extra in extras for one in PROJECT["optional-dependencies"][extra])]
    pinned = pins(lock)
    for requirement in map(Requirement, asked):
        for version in pinned[canonicalize_name(requirement.name)]:
            assert requirement.specifier.contains(version.removeprefix("=="), prereleases=True), requirement
