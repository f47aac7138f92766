"""Supervision: the dead are replaced, SIGTERM drains within the bound, and a fleet whose workers keep dying says so."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest

from incentive_fleet.consumers.worker import CAREFUL
from incentive_fleet.embedded import sample_shop
from incentive_fleet.settings import Settings
from tests.brokers_and_workers import Brokers, log_of, said, settings_of, start
from tests.chaos.faults import CONSUME, Fleet
from tests.contract.brokers_under_test import eventually
from tests.rabbitmq_queues import purge
from tests.shop import balances, calm_balances, faults, open_shop

SHOP = sample_shop.Shop(12, seed=4, refunds=0.5)
EVENTS = [body for _, body in sample_shop.events(SHOP)]
PROCESSES = 2
FROM_RABBITMQ = [*CONSUME[: CONSUME.index("--from") + 1], "rabbitmq"]
# A fleet that gives up after three deaths without delay: the real bounds would take minutes to reach.
IMPATIENT = """
import incentive_fleet.consumers.supervisor as supervisor
supervisor.DEATHS_MAX, supervisor.RESTART_FIRST_S = 3, 0.05
from incentive_fleet.cli.main import main
main()
"""


@pytest.fixture(scope="module")
def brokers(rabbitmq: Any) -> Iterator[Brokers]:
    brokers = Brokers(settings_of(f"t{uuid.uuid4().hex[:8]}", rabbitmq_url=rabbitmq.url, aws_region=None))
    brokers.apply()
    yield brokers
    brokers.close()


@pytest.fixture
def settings(brokers: Brokers, database_url: str) -> Settings:
    open_shop(database_url, SHOP)
    return brokers.settings.model_copy(update={"database_url": database_url})


@contextmanager
def fleet_of(settings: Settings, log: Path, process: subprocess.Popen[bytes] | None = None) -> Iterator[Fleet]:
    """A fleet that consumes from RabbitMQ, or that was started otherwise; no process of it outlives the test."""
    fleet = Fleet(settings, log)
    fleet.process = process or start([*FROM_RABBITMQ, "--processes", str(PROCESSES)], settings, log)
    seen: set[int] = set()
    try:
        yield fleet
    finally:
        if fleet.process.poll() is None:
            seen |= set(fleet.workers())
            fleet.process.kill()
            fleet.process.wait()
        for pid in seen:
            kill(pid)


def kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def ready(brokers: Brokers, fleet: Fleet, processes: int = PROCESSES) -> set[int]:
    """The workers' process ids, once so many consume: their signal handlers are in place by then."""

    def consuming() -> bool:
        with brokers.channel() as channel:
            queue = brokers.queue_of("rabbitmq", "order-placed.v1")
            return bool(channel.queue_declare(queue, passive=True).method.consumer_count == processes)

    eventually(consuming)
    return set(fleet.workers())


def facts(settings: Settings) -> int:
    with psycopg.connect(settings.need_database_url()) as connection:
        row = connection.execute("SELECT count(*) FROM facts").fetchone()
    assert row is not None
    return int(row[0])


@pytest.mark.parametrize(
    ("number", "message"), [(signal.SIGKILL, "worker died"), (signal.SIGTERM, "worker was stopped")], ids=["-9", "TERM"]
)
def test_a_worker_that_ends_is_replaced_and_the_work_goes_on(
    number: signal.Signals, message: str, brokers: Brokers, settings: Settings, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    with fleet_of(settings, log) as fleet:
        before = ready(brokers, fleet)
        brokers.publish("rabbitmq", EVENTS[:5])
        eventually(lambda: facts(settings) == 5)
        victim = min(before)
        os.kill(victim, number)
        eventually(lambda: said(log, message))
        eventually(lambda: len(fleet.workers()) == PROCESSES)
        assert len(ready(brokers, fleet) - before) == 1
        brokers.publish("rabbitmq", EVENTS)
        eventually(lambda: facts(settings) == len(EVENTS))
        assert fleet.end(signal.SIGTERM) == 0
    assert not [line for line in log_of(log) if line["level"] == "error"]


def test_sigterm_drains_what_is_under_way_and_gives_the_rest_back(
    brokers: Brokers, settings: Settings, tmp_path: Path
) -> None:
    url = settings.need_database_url()
    small = settings.model_copy(update={"batch_size": 1})
    with fleet_of(small, tmp_path / "log") as fleet, psycopg.connect(url) as owner:
        ready(brokers, fleet)
        owner.execute("LOCK TABLE orders IN ACCESS EXCLUSIVE MODE")
        brokers.publish("rabbitmq", EVENTS)
        eventually(lambda: owner.execute("SELECT FROM pg_locks WHERE NOT granted").fetchone() is not None)
        process = fleet.running()  # a batch is under way when the signal comes
        process.send_signal(signal.SIGTERM)
        owner.rollback()
        assert process.wait(settings.drain_s + 5) == 0
    done = facts(settings)
    left = sum(brokers.left("rabbitmq").values())
    assert done > 0, "the batch under way was finished"
    assert left > 0, "and no other begun"
    assert done + left == len(EVENTS), "each message is either in the ledger or with the broker again"
    with fleet_of(settings, tmp_path / "log") as fleet:
        ready(brokers, fleet)
        eventually(lambda: facts(settings) == len(EVENTS))
        assert fleet.end(signal.SIGTERM) == 0
    ended = balances(url)
    assert calm_balances(url, EVENTS) == ended
    assert faults(url) == {}
    assert brokers.left("rabbitmq") == {}


def test_a_worker_that_does_not_drain_is_killed_at_the_bound(
    brokers: Brokers, settings: Settings, tmp_path: Path
) -> None:
    hasty = settings.model_copy(update={"drain_s": 1.5})
    log = tmp_path / "log"
    with fleet_of(hasty, log) as fleet:
        workers = ready(brokers, fleet)
        os.kill(min(workers), signal.SIGSTOP)
        started = time.monotonic()
        assert fleet.end(signal.SIGTERM) == 1
        assert 1.5 <= time.monotonic() - started < 5
        assert not any(Path(f"/proc/{pid}").exists() for pid in workers)
    assert said(log, "drain took too long")


def test_a_fleet_whose_workers_keep_dying_ends_with_an_error(
    brokers: Brokers, settings: Settings, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    brokers.publish("rabbitmq", EVENTS[:1])
    command = [sys.executable, "-c", IMPATIENT, *FROM_RABBITMQ[3:], "--processes", "1"]
    dying = start(command, settings, log, INCENTIVES_TEST_FAULT="after-receive")
    assert dying.wait(60) == 1
    deaths = said(log, "worker died")
    assert [line["exit_code"] for line in deaths] == [-signal.SIGKILL] * 2
    assert deaths[0]["restart_in_s"] < deaths[1]["restart_in_s"], "the back-off grows"
    assert len(said(log, "worker given up")) == 1
    # The message that they died of is not lost: nothing was wrong with it.
    assert sum(brokers.left("rabbitmq").values()) == 1
    with brokers.channel() as channel:
        purge(channel, [brokers.queue_of("rabbitmq", "order-placed.v1")])


# What a library does that a body makes crash: it takes the process with it, without an error.
LETHAL = """
import os, signal
import incentive_fleet.consumers.admission as admission
decode = admission.decode
admission.decode = lambda body: os.kill(os.getpid(), signal.SIGKILL) if b"lethal" in body else decode(body)
"""
# The real bounds, with less time between two deaths and for a careful worker.
QUICK = """
import incentive_fleet.consumers.supervisor as supervisor
supervisor.RESTART_FIRST_S, supervisor.RESTART_MAX_S, supervisor.CAREFUL_S = 0.05, 0.2, 3
from incentive_fleet.cli.main import main
main()
"""


@pytest.mark.parametrize("others", [EVENTS, []], ids=["among others", "alone"])
def test_a_message_that_kills_its_worker_is_found_and_given_up(
    others: list[bytes], brokers: Brokers, settings: Settings, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    (tmp_path / "sitecustomize.py").write_text(LETHAL)
    brokers.publish("rabbitmq", [*others[:9], b"lethal", *others[9:]], "order-placed.v1")
    command = [sys.executable, "-c", QUICK, *FROM_RABBITMQ[3:], "--processes", "1", "--until-idle", "1"]
    ended = start([*command, "--no-collect"], settings, log, PYTHONPATH=str(tmp_path))
    assert ended.wait(120) == 0
    assert facts(settings) == len(others)
    assert len(said(log, "worker died")) < 10
    [letter] = brokers.letters("rabbitmq")
    assert (letter.body, letter.reason) == (b"lethal", "kills-workers")
    assert brokers.left("rabbitmq") == {}


# Python's last steps, in which it does not hear a signal any more, take as long as on a busy machine.
SLOW_TO_LEAVE = """
import sys, time
class Last:
    def __del__(self, sleep=time.sleep):
        sleep(0.5)
sys.last_value = Last()  # of what Python lets go of last
"""


def test_a_careful_worker_that_makes_room_has_not_died(brokers: Brokers, settings: Settings, tmp_path: Path) -> None:
    log = tmp_path / "log"
    (tmp_path / "sitecustomize.py").write_text(SLOW_TO_LEAVE)
    command = [sys.executable, "-c", QUICK, *FROM_RABBITMQ[3:], "--processes", "1"]
    with fleet_of(settings, log, start(command, settings, log, PYTHONPATH=str(tmp_path))) as fleet:
        for deaths in (1, 2):
            kill(min(ready(brokers, fleet, 1)))
            eventually(partial(has_said, log, "worker died", deaths))
        eventually(lambda: any(map(is_careful, fleet.workers())))
        eventually(lambda: not any(map(is_careful, fleet.workers())))
        ready(brokers, fleet, 1)
        assert fleet.end(signal.SIGTERM) == 0
    assert [line["exit_code"] for line in said(log, "worker died")] == [-signal.SIGKILL] * 2
    assert not said(log, "worker was stopped"), "the fleet told it to"


def has_said(log: Path, message: str, times: int) -> bool:
    return len(said(log, message)) == times


def is_careful(pid: int) -> bool:
    try:
        return CAREFUL.encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_workers_whose_supervisor_was_killed_drain_by_themselves(
    brokers: Brokers, settings: Settings, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    with fleet_of(settings, log) as fleet:
        workers = ready(brokers, fleet)
        assert fleet.end(signal.SIGKILL) == -signal.SIGKILL
        eventually(lambda: not any(runs(pid) for pid in workers))
    assert len(said(log, "the supervisor is gone")) == PROCESSES
    assert "Exception ignored" not in log.read_text(encoding="utf-8"), "their way out is quiet"


def runs(pid: int) -> bool:
    try:
        return "incentive_fleet" in Path(f"/proc/{pid}/cmdline").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
