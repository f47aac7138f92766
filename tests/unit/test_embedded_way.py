"""Root uses a state folder only where nobody else can exchange a step of its path."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from incentive_fleet import embedded
from incentive_fleet.cli.root import run
from incentive_fleet.embedded import way
from incentive_fleet.embedded.way import check_way
from incentive_fleet.errors import SettingsError

STRANGER = 54_321


@pytest.fixture
def own_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that is ours alone, whoever we are; for these tests we are root."""
    monkeypatch.setattr(way, "ROOT", os.geteuid())
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def made(folder: Path, mode: int = 0o755) -> Path:
    folder.mkdir(parents=True)
    folder.chmod(mode)
    return folder


def linked(own_folder: Path) -> Path:
    made(own_folder / "real")
    (own_folder / "link").symlink_to(own_folder / "real")
    return own_folder / "link"


@pytest.mark.parametrize("mode", [0o700, 0o755, 0o1755, 0o555])
def test_a_way_that_is_roots_alone_is_used(own_folder: Path, mode: int) -> None:
    folder = made(own_folder / "a", mode)
    check_way(folder)
    check_way(folder / "not" / "yet")
    check_way(folder / ".." / "a" / "state")


def test_a_folder_like_tmp_on_the_way_is_used(own_folder: Path) -> None:
    """What is root's there can be renamed by root alone."""
    shared = made(own_folder / "shared", 0o1777)
    check_way(shared / "state")  # not there yet
    check_way(made(shared / "state"))


WAYS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "a link at the end": (linked, "/link is a symbolic link"),
    "a link on the way": (lambda own_folder: linked(own_folder) / "state", "/link is a symbolic link"),
    "a link to nothing": (lambda own_folder: _dangling(own_folder) / "state", "/gone is a symbolic link"),
    "a link before a step up": (lambda own_folder: linked(own_folder) / ".." / "state", "/link is a symbolic link"),
    "others write on the way": (
        lambda own_folder: made(own_folder / "a", 0o777) / "b" / "state",
        "others may write to .*/a and",
    ),
    "others write at the end": (lambda own_folder: made(own_folder / "a", 0o757), "others may write to .*/a and"),
    "like tmp, and the state folder itself": (
        lambda own_folder: made(own_folder / "a", 0o1777),
        "others may write to .*/a and",
    ),
}


def _dangling(own_folder: Path) -> Path:
    (own_folder / "gone").symlink_to(own_folder / "nowhere")
    return own_folder / "gone"


@pytest.mark.parametrize("what", WAYS)
def test_a_way_that_another_could_change_is_refused_in_a_sentence(own_folder: Path, what: str) -> None:
    build, said = WAYS[what]
    folder = build(own_folder)
    with pytest.raises(SettingsError, match=said) as refused:
        check_way(folder)
    assert str(folder) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_group_of_others_that_may_write_is_refused(own_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root's own group is not, unless a list of access lets somebody in: the mode shows that as the group's."""
    folder = made(own_folder / "a", 0o775)
    if os.getegid() != 0:
        with pytest.raises(SettingsError, match="others may write"):
            check_way(folder)
        return
    check_way(folder)
    with monkeypatch.context() as patched:
        patched.setattr(os, "listxattr", lambda *_, **__: [way.ACL])
        with pytest.raises(SettingsError, match="others may write"):
            check_way(folder)
    os.chown(folder, -1, STRANGER)
    with pytest.raises(SettingsError, match="others may write"):
        check_way(folder)


@pytest.mark.parametrize("deeper", ["", "state", "b/state"])
def test_a_folder_of_somebody_else_on_the_way_is_refused(
    own_folder: Path, deeper: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its owner may rename in it whatever its mode is, in one with the sticky bit too."""
    folder = made(own_folder / "a", 0o1755)
    if os.geteuid() == 0:
        os.chown(folder, STRANGER, -1)
    else:
        monkeypatch.setattr(way, "ROOT", STRANGER)  # then what is ours is a stranger's
    with pytest.raises(SettingsError, match="belongs to "):
        check_way(folder / deeper, user=way.ROOT)


def test_nobody_but_root_is_asked(own_folder: Path) -> None:
    check_way(linked(own_folder), user=way.ROOT + 1)


def test_a_relative_path_is_looked_at_from_the_top(own_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(made(own_folder / "a", 0o777))
    with pytest.raises(SettingsError, match=r"others may write to .*/a and"):
        check_way(Path(".incentives"))


@pytest.mark.parametrize("command", [embedded.up, embedded.down])
def test_up_and_down_refuse_and_make_nothing(own_folder: Path, command: Callable[[Path], object]) -> None:
    """A state file of somebody else's names the processes that `down` ends."""
    state = made(own_folder / "a", 0o777) / "state"
    if command is embedded.down:
        made(state)
    with pytest.raises(SettingsError, match="Root does not use the state folder"):
        command(state)
    assert not state.exists() or not list(state.iterdir())


def test_the_command_says_it_in_one_line(
    own_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    state = linked(own_folder) / "state"
    monkeypatch.setattr("sys.argv", ["incentives", "up", "--state", str(state)])
    assert run() == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "is a symbolic link; name one whose every parent is root's alone" in " ".join(printed.err.split())
    assert not (own_folder / "real" / "state").exists()
