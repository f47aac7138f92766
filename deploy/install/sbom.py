"""Writes a bill of materials, CycloneDX 1.6 in JSON, of what a lock installs on Linux; `make sbom` runs it in .venv-audit.

    sbom.py LOCK FILE

The same lock gives the same file. It reads the lock and pyproject.toml, and asks nobody.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = ROOT / "pyproject.toml"
LINUX = {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix", "implementation_name": "cpython"}


def main(lock: Path, out: Path) -> None:
    """The document appears whole or not at all."""
    tool = Path(sys.executable).with_name("cyclonedx-py")
    command = [str(tool), "requirements", "-", "--pyproject", str(PROJECT), "--spec-version", "1.6"]
    done = subprocess.run(
        [*command, "--output-reproducible", "--validate"],
        input="\n".join(installed(lock)),
        env={**os.environ, "PYTHONWARNINGS": "ignore"},  # it misses what is added below
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{lock}: cyclonedx-py ended with {done.returncode}: {done.stderr.strip()}")
    document = with_direct_dependencies(json.loads(done.stdout))
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(f"{out.name}.part")
    part.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    part.replace(out)
    print(f"{out}: {len(document['components'])} packages of {lock.name}")


def installed(lock: Path) -> list[str]:
    """The pins that hold here, each with its hashes."""
    environment: dict[str, Any] = {**default_environment(), **LINUX}
    lines = lock.read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
    pins = [(line, Requirement(line.split(" --hash")[0])) for line in lines if line and not line.startswith("#")]
    return [line for line, pin in pins if pin.marker is None or pin.marker.evaluate(environment)]


def with_direct_dependencies(document: dict[str, Any]) -> dict[str, Any]:
    """The lock does not say what the product itself asks for; pyproject.toml does."""
    asked = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]["dependencies"]
    names = {canonicalize_name(Requirement(one).name) for one in asked}
    direct = sorted(one["bom-ref"] for one in document["components"] if canonicalize_name(one["name"]) in names)
    root = document["metadata"]["component"]["bom-ref"]
    others = [one for one in document["dependencies"] if one["ref"] != root]
    return document | {"dependencies": [*others, {"ref": root, "dependsOn": direct}]}


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
