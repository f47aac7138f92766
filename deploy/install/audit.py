"""Looks for known holes in what locks pin, by pip-audit; `make audit` runs it in .venv-audit.

    audit.py [--source osv|pypi]... [--osv-url URL] LOCK...

Ends with 0 when none is known, 1 when some are, each named, and 3 when nobody answered for a lock or a package. What nobody
was asked about is never called sound. Sources are asked in turn until one answers; it installs and changes nothing.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

FOUND, UNANSWERED = 1, 3
TIMEOUT_S = 600  # of one lock by one source


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--source", action="append", choices=["osv", "pypi"], help="osv, then pypi, unless given")
    parser.add_argument("--osv-url", help="another server that speaks OSV's protocol")
    parser.add_argument("locks", nargs="+", type=Path)
    arguments = parser.parse_args()
    code = 0
    for lock in arguments.locks:
        code = max(code, audit(lock, arguments.source or ["osv", "pypi"], arguments.osv_url))
        if code == UNANSWERED:
            break  # they answer for the next one no more than for this
    return code


def audit(lock: Path, sources: list[str], osv_url: str | None) -> int:
    """Ask about one lock; prints what is known of it."""
    for source in sources:
        answer = ask(lock, source, osv_url)
        if answer is None:
            print(f"{lock}: {source} did not answer", file=sys.stderr)
            continue
        known = [(one, hole) for one in answer for hole in one.get("vulns", [])]
        for one, hole in known:
            mended = ", ".join(hole["fix_versions"]) or "in no release yet"
            names = " ".join([hole["id"], *hole["aliases"]])
            print(f"{lock}: {one['name']} {one['version']}: {names}, mended: {mended}")
        skipped = [one["name"] for one in answer if "skip_reason" in one]
        if skipped or not answer:
            print(f"{lock}: {source} said nothing of {', '.join(skipped) or 'any package'}", file=sys.stderr)
            return UNANSWERED
        print(f"{lock}: {source} answered for {len(answer)} packages, {len(known)} known holes")
        return FOUND if known else 0
    print(f"{lock}: no source of advisories answered, so nothing is known ({', '.join(sources)})", file=sys.stderr)
    return UNANSWERED


def ask(lock: Path, source: str, osv_url: str | None) -> list[dict[str, Any]] | None:
    """What the source says of each package; None when it does not answer."""
    tool = Path(sys.executable).with_name("pip-audit")
    command = [str(tool), "-r", str(lock), "--require-hashes", "--disable-pip", "--format", "json"]
    command += ["--progress-spinner", "off", "--vulnerability-service", source]
    if source == "osv" and osv_url:
        command += ["--osv-url", osv_url]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
        document: dict[str, list[dict[str, Any]]] = json.loads(done.stdout)  # it prints one only when it was answered
    except (subprocess.TimeoutExpired, ValueError):
        return None
    return document["dependencies"]


if __name__ == "__main__":
    sys.exit(main())
