"""Which RabbitMQ is started with which Erlang, and on whose data: told in a sentence before anything is touched."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from incentive_fleet.embedded import broker_release
from incentive_fleet.embedded.broker_release import Version, unfit, written_by
from incentive_fleet.embedded.rabbitmq import RabbitMQ
from incentive_fleet.errors import SettingsError

FOLDER = Path("state/rabbitmq")


def program(path: Path, text: str = "#!/bin/sh\nexit 1\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)
    return path


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Another root with a broker and its Erlang, as a package of another release is unpacked."""
    home = tmp_path / "root/usr/lib/rabbitmq/lib/rabbitmq_server-4.3.6"
    program(home / "sbin/rabbitmq-server", "#!/bin/sh\necho '{failed_to_start,[some,atoms]}'\nexit 1\n")
    (home / "plugins/rabbit-4.3.6").mkdir(parents=True)
    (home / "plugins/rabbitmq_management-4.3.6").mkdir()
    program(tmp_path / "root/usr/bin/erl")
    program(tmp_path / "root/usr/bin/epmd")
    monkeypatch.setenv("RABBITMQ_HOME", str(home))
    return tmp_path / "root"


def test_a_relocated_broker_is_started_with_the_erlang_beside_it(root: Path) -> None:
    found = broker_release.installed()
    assert found is not None
    assert found.version == (4, 3, 6)
    assert found.path.split(os.pathsep)[0] == str(root / "usr/bin")
    assert broker_release.epmd(found) == str(root / "usr/bin/epmd")


def test_a_home_without_a_broker_is_named_and_none_is_taken_instead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RABBITMQ_HOME", str(tmp_path))
    assert broker_release.installed() is None
    assert f"RABBITMQ_HOME is '{tmp_path}'" in (broker_release.missing() or "")
    with pytest.raises(SettingsError, match="RABBITMQ_HOME"):
        RabbitMQ(tmp_path / "node").start()


@pytest.mark.parametrize(
    ("data", "broker", "what"),
    [
        ((3, 10, 8), (3, 10, 8), None),
        ((3, 10, 9), (3, 10, 8), None),  # within a minor release both ways
        ((3, 10, 8), (3, 11, 1), None),
        ((3, 13, 7), (4, 0, 5), None),
        ((4, 2, 1), (4, 3, 6), None),
        ((4, 0, 5), (4, 2, 0), None),
        (None, (4, 0, 5), None),
        ((3, 10, 8), None, None),
        ((3, 10, 8), (4, 0, 5), "takes data of RabbitMQ 3.13 and later only; set RABBITMQ_HOME to 3.10"),
        ((4, 0, 5), (4, 3, 6), "takes data of RabbitMQ 4.2 and later only"),
        ((3, 13, 1), (5, 0, 0), "takes data of RabbitMQ 4.2 and later only"),
        ((4, 3, 6), (3, 10, 8), "is older and would not see them; set RABBITMQ_HOME to 4.3 or later"),
        ((4, 3, 6), (4, 0, 5), "is older"),
    ],
)
def test_a_broker_is_kept_from_data_that_it_cannot_follow(
    data: Version | None, broker: Version | None, what: str | None
) -> None:
    sentence = unfit(FOLDER, data, broker)
    assert (sentence is None) == (what is None)
    assert (what or "") in (sentence or "")


def test_the_release_is_kept_with_the_data_and_compared_before_anything_starts(root: Path, tmp_path: Path) -> None:
    node = RabbitMQ(tmp_path / "node")
    (node.folder / "data").mkdir(parents=True)
    broker_release.remember(node.folder, (3, 10, 8))
    assert written_by(node.folder) == (3, 10, 8)
    with pytest.raises(SettingsError, match=r"written by RabbitMQ 3\.10\.8, and here is RabbitMQ 4\.3\.6.*--state"):
        node.start()
    assert node.record.ports == {}
    assert written_by(node.folder) == (3, 10, 8)


def test_data_kept_in_khepri_is_not_for_a_broker_that_would_begin_anew_beside_it(tmp_path: Path) -> None:
    (tmp_path / "data/incentives@localhost/rabbitmq_metadata").mkdir(parents=True)
    assert "older and would not see them" in (unfit(tmp_path, written_by(tmp_path), (3, 10, 8)) or "")
    assert unfit(tmp_path, written_by(tmp_path), (4, 3, 6)) is None
