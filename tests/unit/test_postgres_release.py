"""Which Postgres is run: the wheel's, or the one that POSTGRES_HOME names; and none on data of another release."""

from __future__ import annotations

from pathlib import Path

import pytest

from incentive_fleet.embedded import postgres_release
from incentive_fleet.errors import SettingsError


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A Postgres that says that it is 15."""
    folder = tmp_path / "home" / "bin"
    folder.mkdir(parents=True)
    for name in ("postgres", "initdb"):
        (folder / name).write_text("#!/bin/sh\necho 'postgres (PostgreSQL) 15.18 (Debian 15.18-0)'\n", encoding="utf-8")
        (folder / name).chmod(0o755)
    return folder.parent


def test_the_wheel_brings_18(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(postgres_release.HOME, raising=False)
    assert postgres_release.missing() is None
    assert postgres_release.major(postgres_release.binaries()) == 18


def test_a_home_is_run_in_its_place(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(postgres_release.HOME, str(home))
    assert postgres_release.missing() is None
    assert postgres_release.binaries() == home / "bin"
    assert postgres_release.major(home / "bin") == 15


def test_a_home_without_a_server_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(postgres_release.HOME, str(tmp_path))
    with pytest.raises(SettingsError, match=f"^POSTGRES_HOME is '{tmp_path}', and there is no bin/postgres"):
        postgres_release.binaries()


def test_data_of_another_release_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "PG_VERSION").write_text("18\n", encoding="utf-8")
    postgres_release.require_fit(tmp_path, 18)
    with pytest.raises(
        SettingsError, match=r"written by Postgres 18, and here is 15: set POSTGRES_HOME to a Postgres 18"
    ):
        postgres_release.require_fit(tmp_path, 15)


@pytest.mark.parametrize(("release", "builtin"), [(15, False), (16, False), (17, True), (18, True)])
def test_text_has_the_order_of_code_points_everywhere(release: int, builtin: bool) -> None:
    options = postgres_release.order_of_text(release)
    assert options[0] == "--no-locale"
    assert ("--builtin-locale=C.UTF-8" in options) is builtin
