"""No command shows a password, whatever is wrong with an address: the program's own tree of commands is walked."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from incentive_fleet.brokers.aws import AWS
from incentive_fleet.brokers.rabbitmq import RABBITMQ
from incentive_fleet.cli.root import cli
from incentive_fleet.consumers.probes import Database, Part, probes_of
from incentive_fleet.errors import SettingsError
from incentive_fleet.settings import ADDRESSES, Settings
from tests.command import every_command

CANARY = "cAnArY7"
PARTS_OF_THEIR_OWN = {("up",), ("demo",)}  # they start parts and take these for whatever the settings say
LONG = {("consume",), ("relay",), ("dlq", "collect")}  # they wait for what is away
MISTAKES = (
    f"{{scheme}}://u:{CANARY}@x@127.0.0.1:1/y",
    f"{{scheme}}://u:{CANARY}/x@127.0.0.1:1/y",
    f"{{scheme}}://u:{CANARY}127.0.0.1/y",
    f"{{scheme}}://u:{CANARY}@127.0.0.1:{CANARY}/y",
    f"{{scheme}}s://u:{CANARY}%zz@127.0.0.1:1",
    f"{{scheme}}:u:{CANARY}@127.0.0.1",
)
AWAY = {
    "INCENTIVES_DATABASE_URL": f"postgresql://u:{CANARY}@127.0.0.1:1,127.0.0.1:2/shop?sslpassword={CANARY}",
    "INCENTIVES_ADMIN_DATABASE_URL": f"postgresql://u@127.0.0.1:1/shop?password={CANARY}",
    "INCENTIVES_RABBITMQ_URL": f"amqp://u:{CANARY}@127.0.0.1:1/%2F",
    "INCENTIVES_RABBITMQ_MANAGEMENT_URL": f"http://u:{CANARY}@127.0.0.1:1",
    "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
    "AWS_REGION": "eu-central-1",
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": CANARY,
}


def leaves() -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for path, command, _ in every_command():
        if not isinstance(command, click.Group) and path not in PARTS_OF_THEIR_OWN:
            yield path, command


def words_for(command: click.Command, folder: Path) -> list[str]:
    """The least that a command takes, from what it says of itself."""
    words: list[str] = []
    for parameter in command.params:
        if parameter.required:
            value = _value_for(parameter.type, folder)
            words += [value] if isinstance(parameter, click.Argument) else [parameter.opts[0], value]
    return words


def _value_for(kind: click.ParamType[Any], folder: Path) -> str:
    if isinstance(kind, click.Choice):
        return str(kind.choices[-1])
    if isinstance(kind, click.Path):
        return str(folder if kind.dir_okay and not kind.file_okay else folder / "file")
    if isinstance(kind, click.types.IntParamType | click.types.FloatParamType):
        return "1"
    return "EUR"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "file").write_bytes(b"")
    return tmp_path


def shown_by(words: list[str], capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> tuple[str, Any]:
    """All that a command printed or logged, the traceback of its error with it, and that error."""
    ended: BaseException | None = None
    with caplog.at_level(logging.DEBUG, "incentive_fleet"):
        try:
            cli.main(words, standalone_mode=False)
        except (Exception, SystemExit) as error:
            ended = error
    out, err = capfd.readouterr()
    trace = "".join(traceback.format_exception(ended)) if ended else ""
    return f"{out}{err}{caplog.text}{trace}", ended


@pytest.mark.parametrize("setting", sorted(ADDRESSES))
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_any_address_shows_no_password_in_any_command(
    setting: str,
    mistake: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    address = mistake.format(scheme=ADDRESSES[setting].schemes[0])
    for name, value in (AWAY | {f"INCENTIVES_{setting.upper()}": address}).items():
        monkeypatch.setenv(name, value)
    if setting == "aws_endpoint_url":
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
    told = 0
    for path, command in leaves():
        shown, ended = shown_by([*path, *words_for(command, folder)], capfd, caplog)
        assert CANARY not in shown, path
        told += isinstance(ended, SettingsError)
    assert told >= 20  # a few read no settings, or refuse the words first


def test_a_part_that_is_away_shows_no_password_in_any_command(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    for name, value in AWAY.items():
        monkeypatch.setenv(name, value)
    ended_with = set()
    for path, command in leaves():
        if path not in LONG:
            shown, ended = shown_by([*path, *words_for(command, folder)], capfd, caplog)
            assert CANARY not in shown, path
            ended_with.add(type(ended).__name__)
    assert {"DatabaseUnavailable", "BrokerUnavailable"} <= ended_with


@pytest.mark.parametrize("path", sorted(LONG), ids=" ".join)
def test_what_waits_for_parts_that_are_away_logs_no_password(path: tuple[str, ...], folder: Path) -> None:
    command = next(command for found, command in leaves() if found == path)
    process = subprocess.Popen(
        [sys.executable, "-m", "incentive_fleet.cli.main", *path, *words_for(command, folder)],
        env={**os.environ, **AWAY, "INCENTIVES_DRAIN_S": "5"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    first = process.stdout.readline()  # it says that it waits, and for what
    process.send_signal(signal.SIGTERM)
    rest, _ = process.communicate(timeout=60)
    assert first
    assert CANARY not in first + rest


def test_readyz_shows_no_password(caplog: pytest.LogCaptureFixture) -> None:
    settings = Settings.from_environment(AWAY)
    probes = probes_of(settings, [RABBITMQ, AWS]) | {"database": Database(settings.need_database_url())}
    with caplog.at_level(logging.INFO, "incentive_fleet"):
        answers = [Part(name, probe).ask().result(timeout=30) for name, probe in probes.items()]
    assert answers == ["unreachable"] * 3
    told = [str(vars(record)) for record in caplog.records]
    assert len(told) == 3
    assert CANARY not in str(told) + caplog.text
