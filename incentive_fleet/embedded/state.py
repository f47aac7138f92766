"""The embedded parts together: for as long as a `with` block lasts, or kept running in a state folder.

A state folder holds the parts' data and state.json, which says which processes are ours. It never migrates a database
and never creates a queue; whoever starts the parts does that.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from incentive_fleet.embedded import broker_release
from incentive_fleet.embedded.aws import FORGETS, Aws
from incentive_fleet.embedded.postgres import Postgres
from incentive_fleet.embedded.process import Record, Save, nothing
from incentive_fleet.embedded.rabbitmq import RabbitMQ
from incentive_fleet.embedded.way import check_way
from incentive_fleet.errors import Refused, SettingsError

STATE = "state.json"
LOCK = "lock"
_RECORDS = TypeAdapter(dict[str, Record])

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class EmbeddedParts:
    """The embedded parts; RabbitMQ only where it is installed."""

    postgres: Postgres
    aws: Aws
    rabbitmq: RabbitMQ | None

    def environment(self) -> dict[str, str]:
        """The settings by which the command line and any program finds the running parts."""
        values = {
            "INCENTIVES_DATABASE_URL": self.postgres.application_url(),
            "INCENTIVES_ADMIN_DATABASE_URL": self.postgres.url(),
        }
        if self.rabbitmq is not None:
            values["INCENTIVES_RABBITMQ_URL"] = self.rabbitmq.url
            values["INCENTIVES_RABBITMQ_MANAGEMENT_URL"] = self.rabbitmq.management_url
        return values | self.aws.environment

    def start(self) -> None:
        """Start all at once; raises the first part's error after all have come up or failed."""
        _each(self._all(), lambda part: part.start())

    def stop(self) -> None:
        """Stop all at once; raises the first part's error after all were tried."""
        _each(self._all(), lambda part: part.stop())

    def discard(self) -> None:
        """Stop all at once, the node without ceremony (6 s less): for parts whose folder is thrown away."""
        _each(self._all(), lambda part: part.kill() if isinstance(part, RabbitMQ) else part.stop())

    def _all(self) -> list[Postgres | Aws | RabbitMQ]:
        return [self.postgres, self.aws, *([self.rabbitmq] if self.rabbitmq is not None else [])]


@contextlib.contextmanager
def running(tell: Tell | None = None) -> Iterator[EmbeddedParts]:
    """The parts in a temporary folder until the block ends; they end with this process even if it is killed.

    `tell` is called with a sentence for what cannot be had. Raises SettingsError when a part that is needed is missing,
    PartFailed when one does not come up.
    """
    with tempfile.TemporaryDirectory(prefix="incentives-") as folder:
        parts = _parts(Path(folder), {}, tell=tell)
        try:
            parts.start()
            yield parts
        finally:
            parts.discard()


def up(state_dir: Path, tell: Tell | None = None) -> dict[str, str]:
    """Start what is not running, detached, and return the settings to reach the parts; again gives the same values.

    `tell` is called with a sentence for what cannot be had or will not last. Raises Refused when another up or down is
    at work, SettingsError when the folder is not ours to use, PartFailed when a part does not come up (a retry helps).
    """
    with _locked(state_dir, create=True):
        records = recorded(state_dir)
        _save(state_dir, records)  # from now on the folder is ours, even if we are killed before the first part is up
        parts = _parts(state_dir, records, tell=tell, save=_saving(state_dir, records))
        if tell is not None:
            tell(FORGETS)
        try:
            parts.start()
        finally:
            _save(state_dir, records)
        return parts.environment()


def down(state_dir: Path) -> None:
    """Stop the parts of a state folder and keep their data; nothing when none runs. Raises as `up` does."""
    if not state_dir.exists():
        return
    with _locked(state_dir, create=False):
        records = recorded(state_dir)
        try:
            _parts(state_dir, records, tell=None, save=nothing, all_of_them=True).stop()
        finally:
            _save(state_dir, records)


def _parts(
    folder: Path, records: dict[str, Record], *, tell: Tell | None, save: Save | None = None, all_of_them: bool = False
) -> EmbeddedParts:
    """Parts that end with us, unless there is a way to `save` what it takes to find them again."""

    def record(name: str) -> Record:
        return records.setdefault(name, Record())

    leashed, save = save is None, save or nothing

    broker = None
    if all_of_them or (sentence := broker_release.missing()) is None:
        broker = RabbitMQ(folder / "rabbitmq", leashed=leashed, record=record("rabbitmq"), save=save)
    elif tell is not None:
        tell(sentence)
    return EmbeddedParts(
        postgres=Postgres(folder / "postgres", leashed=leashed, record=record("postgres"), save=save),
        aws=Aws(folder / "aws", leashed=leashed, record=record("aws"), save=save),
        rabbitmq=broker,
    )


def _each(
    parts: list[Postgres | Aws | RabbitMQ],
    act: Callable[[Postgres | Aws | RabbitMQ], None],
) -> None:
    with ThreadPoolExecutor(max_workers=len(parts)) as pool:
        done = [pool.submit(act, part) for part in parts]
        wait(done)
    for one in done:
        one.result()


@contextlib.contextmanager
def _locked(folder: Path, *, create: bool) -> Iterator[None]:
    """Hold the folder for one command at a time; the kernel lets go of it when the command dies."""
    check_way(folder)
    try:
        if create:
            folder.mkdir(parents=True, exist_ok=True)
            check_way(folder)
        if not (folder / STATE).exists() and set(os.listdir(folder)) - {LOCK}:
            raise SettingsError(
                f"The folder {folder} holds other things and no {STATE}; name an empty one or a new one."
            )
        lock = (folder / LOCK).open("w")
    except (FileExistsError, NotADirectoryError):
        raise SettingsError(f"The state folder {folder} is not a folder.") from None
    except PermissionError:
        raise SettingsError(f"The state folder {folder} cannot be written by this user.") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Refused("state-locked", f"another up or down is working in the state folder {folder}.") from None
        yield


def recorded(folder: Path) -> dict[str, Record]:
    """What state.json holds, by part; empty when there is none. Raises SettingsError when it cannot be read."""
    file = folder / STATE
    if not file.exists():
        return {}
    try:
        return _RECORDS.validate_json(file.read_bytes())
    except ValidationError as error:
        raise SettingsError(f"{file} cannot be read: {error.errors()[0]['msg']}.") from None


def _saving(folder: Path, records: dict[str, Record]) -> Save:
    """Saves the records, for one thread at a time."""
    lock = threading.Lock()

    def save() -> None:
        with lock:
            _save(folder, records)

    return save


def _save(folder: Path, records: dict[str, Record]) -> None:
    new = folder / f"{STATE}.new"
    with new.open("wb") as file:
        file.write(_RECORDS.dump_json(records, indent=2))
        file.flush()
        os.fsync(file.fileno())
    new.replace(folder / STATE)
