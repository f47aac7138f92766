"""Runs the command line as people do: a process, its exit code, its two streams."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Ran:
    """What a command printed and how it ended."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """Standard output as the one JSON document that it must be."""
        return json.loads(self.out)


def incentives(*arguments: str | Path, env: Mapping[str, str] = {}, timeout_s: float = 120) -> Ran:
    """Run `incentives` with these arguments and these settings beside the environment's."""
    done = subprocess.run(
        [sys.executable, "-m", "incentive_fleet.cli.main", *map(str, arguments)],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    return Ran(done.returncode, done.stdout, done.stderr)
