"""The long matrix of stopping: each server frozen in the middle of work, each phase, both signals, at its real bounds."""

from __future__ import annotations

import os
import signal
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from incentive_fleet.embedded import sample_shop
from incentive_fleet.embedded.process import Process
from incentive_fleet.settings import Settings
from tests.brokers_and_workers import Brokers, environment_of, settings_of
from tests.command import incentives
from tests.contract.brokers_under_test import eventually
from tests.integration.test_stopping import MARGIN_S, count, wrong_end
from tests.running import await_all, run
from tests.shop import balances, calm_balances, faults, open_shop

pytestmark = pytest.mark.chaos
SHOP = sample_shop.Shop(400, seed=12, refunds=0.4)
EVENTS = [body for _, body in sample_shop.events(SHOP)]
DRAIN_S = 5.0


@contextmanager
def frozen(process: Process) -> Iterator[None]:
    """The server takes connections by its kernel's grace, and says nothing."""
    os.kill(process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process.pid, signal.SIGCONT)


@pytest.fixture
def settings(rabbitmq: Any, database_url: str) -> Iterator[Settings]:
    brokers = Brokers(settings_of(f"t{uuid.uuid4().hex[:8]}", rabbitmq_url=rabbitmq.url, aws_region=None))
    brokers.apply()
    open_shop(database_url, SHOP)
    yield brokers.settings.model_copy(update={"database_url": database_url, "batch_size": 5, "drain_s": DRAIN_S})
    brokers.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["TERM", "INT"])
@pytest.mark.parametrize("delay_s", [0.3, 0.6, 1.0, 1.5, 2.5, 4.0])
@pytest.mark.parametrize("freeze", [False, True], ids=["runs", "freezes"])
def test_all_of_it_stopped_at_any_moment_ends_in_the_same_balances(
    rabbitmq: Any, settings: Settings, tmp_path: Path, number: signal.Signals, delay_s: float, freeze: bool
) -> None:
    file, url = tmp_path / "events.jsonl", settings.need_database_url()
    file.write_bytes(b"\n".join(EVENTS) + b"\n")
    env = {**environment_of(settings), "AWS_REGION": "", "AWS_DEFAULT_REGION": ""}
    commands = (
        ("publish", str(file), "--to", "rabbitmq", "--rate", "200"),
        ("consume", "--from", "rabbitmq", "--processes", "2"),
        ("relay",),
        ("dlq", "collect", "--from", "rabbitmq"),
        ("backfill", str(file)),
        ("ledger", "verify"),
    )
    running = [run(tmp_path, env, *words) for words in commands]
    time.sleep(delay_s)  # any moment: nothing that could be waited for
    with frozen(rabbitmq.record.processes["server"]) if freeze else nullcontext():
        unfinished = [one for one in running if one.process.poll() is None]
        for one in unfinished:
            one.tell(number)
        await_all(unfinished, DRAIN_S + MARGIN_S)
    # Python itself dies by the signal before the program has begun, and what had just ended by itself ended well.
    told = [one for one in unfinished if one.process.returncode not in (0, -number)]
    wrong = [wrong_end(one, number, DRAIN_S + MARGIN_S) for one in told]
    assert not [one.words for one in unfinished if one.process.returncode == -number and delay_s > 2]
    assert not any(wrong), "\n".join(filter(None, wrong))
    assert incentives("publish", file, "--to", "rabbitmq", env=env).code == 0
    assert incentives("consume", "--from", "rabbitmq", "--until-idle", "2", env=env).code == 0
    assert incentives("relay", "--until-idle", "0.2", env=env).code == 0
    assert count(url, "SELECT count(*) FROM outbox_unpublished WHERE destination = 'rabbitmq'") == 0
    ended = balances(url)
    assert faults(url) == {}
    assert calm_balances(url, EVENTS) == ended


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["TERM", "INT"])
def test_a_poll_of_twenty_seconds_fits_the_drain(
    moto_server: Any, database_url: str, tmp_path: Path, number: signal.Signals
) -> None:
    settings = settings_of(
        f"t{uuid.uuid4().hex[:8]}", aws_endpoint_url=moto_server.endpoint_url, database_url=database_url
    )
    brokers = Brokers(settings)
    brokers.apply()
    open_shop(database_url, SHOP)
    env = environment_of(settings, INCENTIVES_WAIT_S="20", INCENTIVES_DRAIN_S="25")
    consuming = run(tmp_path, env, "consume", "--from", "sqs")
    brokers.publish("sqs", EVENTS[:1])
    eventually(lambda: count(database_url, "SELECT count(*) FROM facts") == 1)
    consuming.tell(number)
    await_all([consuming], 25 + MARGIN_S)
    brokers.close()
    assert not wrong_end(consuming, number, 25)
    assert consuming.process.returncode == 0
