"""Runs the command line as people do: a process, its exit code, its two streams."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from incentive_fleet.cli.root import cli


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


def every_command() -> Iterator[tuple[tuple[str, ...], click.Command, click.Context]]:
    """Each command and group of the program with the words that lead to it: a new one cannot be forgotten."""
    pending: list[tuple[tuple[str, ...], click.Command, click.Context]] = [
        ((), cli, click.Context(cli, info_name="incentives"))
    ]
    while pending:
        path, command, context = pending.pop()
        yield path, command, context
        if isinstance(command, click.Group):
            for name in command.list_commands(context):
                child = command.get_command(context, name)
                assert child is not None
                pending.append(((*path, name), child, click.Context(child, info_name=name, parent=context)))


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
