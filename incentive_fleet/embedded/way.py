"""Whether root may use a folder by its path: nobody else can put another folder, or a link, in the place of any step.

Root makes folders there, gives some to another account and starts programs, so whoever can exchange a step of the path
could have that done anywhere. It only looks; it changes nothing and follows no link.
"""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path

from incentive_fleet.errors import SettingsError

ROOT = 0  # tests that do not run as root put their own user here
ACL = "system.posix_acl_access"  # of Linux; grants to single users, which the mode shows as the group's


def check_way(folder: Path, *, user: int | None = None) -> None:
    """Raise SettingsError when `user` (the process's, unless given) is root and should not use the folder; no one else is asked.

    What does not exist yet is fit: look again once it was made, for in a folder like /tmp another may have been faster.
    """
    if (os.geteuid() if user is None else user) != ROOT:
        return
    for step, last in _steps(folder):
        if (fault := _fault(step, last=last)) is not None:
            raise SettingsError(
                f"Root does not use the state folder {folder}: {fault}; name one whose every parent is root's alone, or run"
                " this as another user."
            )


def _steps(folder: Path) -> Iterator[tuple[Path, bool]]:
    """Each step of the path that exists, from / on, and whether it is the last; `..` is a step up from where one is."""
    whole = Path.cwd() / folder
    place = Path(whole.anchor)
    names = whole.parts[1:]
    yield place, not names
    for number, name in enumerate(names, start=1):
        place = place.parent if name == ".." else place / name
        if not os.path.lexists(place):
            return
        yield place, number == len(names)


def _fault(step: Path, *, last: bool) -> str | None:
    """Why somebody else could exchange what is in this folder, or the folder itself."""
    found = step.lstat()
    if stat.S_ISLNK(found.st_mode):
        return f"{step} is a symbolic link"
    if found.st_uid not in (0, ROOT):
        return f"{step} belongs to {_name(found.st_uid)}"
    if not _others_write(step, found):
        return None
    # In a folder with the sticky bit, like /tmp, what is root's can be renamed by root alone. Others may still make things
    # beside it, and so in the state folder itself.
    if found.st_mode & stat.S_ISVTX and not last:
        return None
    return f"others may write to {step} and rename what is in it"


def _others_write(step: Path, found: os.stat_result) -> bool:
    if not stat.S_ISDIR(found.st_mode):
        return False
    if found.st_mode & stat.S_IWOTH:
        return True
    return bool(found.st_mode & stat.S_IWGRP) and (found.st_gid != ROOT or _has_acl(step))


def _has_acl(step: Path) -> bool:
    try:
        return ACL in os.listxattr(step, follow_symlinks=False)
    except OSError:  # a file system without such attributes
        return False


def _name(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return f"the user {user}"
