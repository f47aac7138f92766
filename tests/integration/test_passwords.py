"""No command shows a password, whatever is wrong with an address: the program's own tree of commands is walked."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest

from incentive_fleet.brokers.aws import AWS
from incentive_fleet.brokers.rabbitmq import RABBITMQ
from incentive_fleet.consumers.probes import Database, Part, probes_of
from incentive_fleet.errors import SettingsError
from incentive_fleet.settings import ADDRESSES, Settings
from tests.every_command import LONG, leaves, shown_by, words_for

CANARY = "cAnArY7"
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
    # Each command meets each address mistaken, and each mistake; all three at once would take minutes.
    first = (sorted(ADDRESSES).index(setting) + MISTAKES.index(mistake)) % len(MISTAKES)
    for path, command in islice(leaves(), first, None, len(MISTAKES)):
        shown, ended = shown_by([*path, *words_for(command, folder)], capfd, caplog)
        assert CANARY not in shown, path
        told += isinstance(ended, SettingsError)
    assert told >= 3  # a few read no settings, or refuse the words first


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
        env={**os.environ, **AWAY, "INCENTIVES_DRAIN_S": "5", "INCENTIVES_SERVE_PORT": "0"},
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


@pytest.mark.parametrize("setting", ["INCENTIVES_DATABASE_URL", "INCENTIVES_READ_DATABASE_URL"])
@pytest.mark.parametrize("path", sorted(LONG | {("status",)}), ids=" ".join)
def test_what_waits_for_a_database_does_not_wait_for_one_that_nobody_can_mean(
    path: tuple[str, ...],
    setting: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It looks like an address, and libpq alone knows that it is none."""
    for name, value in (AWAY | {setting: f"postgresql://u:{CANARY}@127.0.0.1:1/shop?no_such_option={CANARY}"}).items():
        monkeypatch.setenv(name, value)
    command = next(command for found, command in leaves() if found == path)
    shown, ended = shown_by([*path, *words_for(command, folder)], capfd, caplog)
    assert isinstance(ended, SettingsError)
    assert setting in str(ended)
    assert CANARY not in shown


def test_readyz_shows_no_password(caplog: pytest.LogCaptureFixture) -> None:
    settings = Settings.from_environment(AWAY)
    probes = probes_of(settings, [RABBITMQ, AWS]) | {"database": Database(settings.need_database_url())}
    with caplog.at_level(logging.INFO, "incentive_fleet"):
        answers = [Part(name, probe).ask().result(timeout=30) for name, probe in probes.items()]
    assert answers == ["unreachable"] * 3
    told = [str(vars(record)) for record in caplog.records]
    assert len(told) == 3
    assert CANARY not in str(told) + caplog.text
