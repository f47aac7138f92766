"""The tools that judge deploy/: those of .venv-deploy, and what `make deploy-check` prepares below build/.

A tool of .venv-deploy that is missing fails a test. What a machine may be unable to have skips it, with the reason that
ends up in the line NOT RUN.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from incentive_fleet.cli.root import cli

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
TOOLS = ROOT / ".venv-deploy" / "bin"
BUILT = ROOT / "build"
QUIET = {"KUBERNETES_VALIDATE_NO_UPDATE": "1", "SAM_CLI_TELEMETRY": "0"}


def judge(tool: str, *arguments: str | Path, cwd: Path = ROOT, timeout_s: float = 240) -> str:
    """Run a tool of .venv-deploy and return what it printed; fails the test with that when it is not content."""
    program = TOOLS / tool
    assert program.exists(), f"{tool} is not installed in .venv-deploy: `make test` installs it."
    return run([str(program), *map(str, arguments)], cwd=cwd, timeout_s=timeout_s)


def run(command: Sequence[str], *, cwd: Path = ROOT, timeout_s: float = 240, **more: str) -> str:
    """Standard output of a command that must end with 0."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, **QUIET, **more},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-8_000:]}{done.stderr[-4_000:]}"
    return done.stdout


def refusal(*words: object) -> str:
    """What the command line says against a command, without running it; empty where it would be run."""
    asked = CliRunner().invoke(cli, [*map(str, words), "--help"])
    return "" if asked.exit_code == 0 else f"{words}: {asked.output}"


def need(path: Path, what: str) -> Path:
    """The path, or a skip that names what this machine lacks."""
    if not path.exists():
        pytest.skip(f"this machine has no {what} (`make deploy-check` gets it where it can be had)")
    return path


class Template(yaml.SafeLoader):
    """Reads CloudFormation's short forms as the long ones: !Ref x as {"Ref": "x"}, !Sub x as {"Fn::Sub": "x"}."""


def _long_form(loader: Template, suffix: str, node: yaml.Node) -> object:
    value: object
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        assert isinstance(node, yaml.MappingNode)
        value = loader.construct_mapping(node, deep=True)
    if suffix == "GetAtt" and isinstance(value, str):
        value = value.split(".", 1)
    return {suffix if suffix in {"Ref", "Condition"} else f"Fn::{suffix}": value}


Template.add_multi_constructor("!", _long_form)
