"""What `incentives up` prints is for a shell: one `export` a line, whatever the width of the screen."""

from __future__ import annotations

import shlex

import pytest
from click.testing import CliRunner

from incentive_fleet import embedded
from incentive_fleet.brokers import declare
from incentive_fleet.cli.commands.parts import up_command
from incentive_fleet.ledger import migrate


def test_up_prints_lines_that_a_shell_can_evaluate(monkeypatch: pytest.MonkeyPatch) -> None:
    long = "postgresql://incentives@/incentives?host=/" + "a/very/long/path" * 20
    values = {"INCENTIVES_DATABASE_URL": long, "INCENTIVES_ADMIN_DATABASE_URL": long, "INCENTIVES_PREFIX": "quoted"}
    for name in values:
        monkeypatch.setenv(name, "")  # the command sets them; they are taken back with this
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr(embedded, "up", lambda *_, **__: values)
    monkeypatch.setattr(migrate, "upgrade", lambda *_, **__: None)
    monkeypatch.setattr(declare, "apply", lambda *_, **__: [])
    done = CliRunner().invoke(up_command, [], catch_exceptions=False)
    assert done.exit_code == 0
    printed = dict(shlex.split(line)[1].split("=", 1) for line in done.stdout.splitlines())
    assert printed == values
