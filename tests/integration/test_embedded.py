"""The embedded parts: kept up and taken down by a state folder, and gone with whoever holds them."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import boto3
import pika
import pika.exceptions
import psycopg
import pytest

from incentive_fleet import embedded
from incentive_fleet.embedded.aws import Aws
from incentive_fleet.embedded.postgres import SOCKET_PATH_BYTES, Postgres
from incentive_fleet.embedded.process import PartFailed, Process, Record, alive, end, identify
from incentive_fleet.embedded.rabbitmq import RabbitMQ
from incentive_fleet.embedded.state import recorded
from incentive_fleet.errors import Refused, SettingsError
from tests.parts import ended_within, wait_until_registered

HOLD_A_DATABASE = """
import sys
from pathlib import Path
from incentive_fleet.embedded.postgres import Postgres
from incentive_fleet.embedded.aws import Aws
server, emulator = Postgres(Path(sys.argv[1]) / "postgres"), Aws(Path(sys.argv[1]) / "aws")
server.start()
emulator.start()
print(server.record.processes["server"].pid, emulator.record.processes["server"].pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def state_dir(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "state"
    yield folder
    embedded.down(folder)


def test_up_serves_until_down_and_up_again_gives_the_same_values(state_dir: Path) -> None:
    values = embedded.up(state_dir)
    _check_that_they_serve(values)
    before = _processes(state_dir)

    assert embedded.up(state_dir) == values
    assert _processes(state_dir) == before

    emulator = before["aws", "server"]
    end(emulator, [(signal.SIGKILL, 10)])
    assert embedded.up(state_dir) == values
    assert _processes(state_dir)["aws", "server"] != emulator
    _check_that_they_serve(values)

    processes = [*before.values(), *_processes(state_dir).values()]
    embedded.down(state_dir)
    assert [process for process in processes if alive(process)] == []
    assert _commands_that_name(state_dir) == []
    embedded.down(state_dir)  # again, and nothing happens


def _check_that_they_serve(values: dict[str, str]) -> None:
    with psycopg.connect(values["INCENTIVES_DATABASE_URL"]) as connection:
        row = connection.execute("SELECT current_database(), current_setting('fsync')").fetchone()
        assert row == ("incentives", "on")
        row = connection.execute("SELECT session_user, rolsuper FROM pg_roles WHERE rolname = session_user").fetchone()
        assert row == ("incentives", False)
    with psycopg.connect(values["INCENTIVES_ADMIN_DATABASE_URL"]) as connection:
        assert connection.execute("SELECT session_user, current_database()").fetchone() == ("postgres", "incentives")
    broker = pika.BlockingConnection(pika.URLParameters(values["INCENTIVES_RABBITMQ_URL"]))
    broker.channel().queue_declare("probe", durable=True, arguments={"x-queue-type": "quorum"})
    broker.close()
    sqs = boto3.client("sqs", region_name=values["AWS_REGION"], endpoint_url=values["AWS_ENDPOINT_URL"])
    queue = sqs.create_queue(QueueName="probe")["QueueUrl"]
    sqs.send_message(QueueUrl=queue, MessageBody="hello")
    assert sqs.receive_message(QueueUrl=queue)["Messages"][0]["Body"] == "hello"
    sqs.purge_queue(QueueUrl=queue)
    sqs.close()


def _processes(state_dir: Path) -> dict[tuple[str, str], Process]:
    return {
        (name, role): process
        for name, record in recorded(state_dir).items()
        for role, process in record.processes.items()
    }


def _commands_that_name(folder: Path) -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
            except (FileNotFoundError, ProcessLookupError):
                continue
            if str(folder) in command:
                found.append(command)
    return found


def test_parts_end_with_a_holder_that_is_killed(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD_A_DATABASE, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        processes = [identify(int(pid)) for pid in holder.stdout.readline().split()]
        holder.kill()
    assert len(processes) == 2
    assert [process for process in processes if process is None or not ended_within(process, 30)] == []


def test_rabbitmq_keeps_queues_and_confirmed_messages_through_a_crash(rabbitmq: RabbitMQ, prefix: str) -> None:
    arguments = {"x-queue-type": "quorum"}
    broker = pika.BlockingConnection(pika.URLParameters(rabbitmq.url))
    channel = broker.channel()
    channel.confirm_delivery()
    channel.queue_declare(prefix, durable=True, arguments=arguments)
    channel.basic_publish("", prefix, b"kept", pika.BasicProperties(delivery_mode=2), mandatory=True)
    address = rabbitmq.url
    wait_until_registered(rabbitmq, prefix)

    rabbitmq.kill()
    with pytest.raises(pika.exceptions.AMQPConnectionError):
        broker.process_data_events(time_limit=10)
    rabbitmq.start()

    assert rabbitmq.url == address
    broker = pika.BlockingConnection(pika.URLParameters(address))
    channel = broker.channel()
    assert channel.basic_get(prefix, auto_ack=True)[2] == b"kept"
    channel.queue_delete(prefix)
    broker.close()


def test_a_broker_that_dies_on_data_of_an_unknown_release_leaves_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = tmp_path / "home/sbin/rabbitmq-server"
    server.parent.mkdir(parents=True)
    server.write_text("#!/bin/sh\necho '{failed_to_start,[some,atoms]}'\nexit 1\n", encoding="utf-8")
    server.chmod(0o755)
    monkeypatch.setenv("RABBITMQ_HOME", str(tmp_path / "home"))
    node = RabbitMQ(tmp_path / "node")
    (node.folder / "data").mkdir(parents=True)
    with pytest.raises(PartFailed, match=r"(?s)^The messages in .*an unknown release.*set RABBITMQ_HOME.*some,atoms"):
        node.start()
    node.stop()


def test_postgres_keeps_what_was_committed_through_a_crash(tmp_path: Path) -> None:
    server = Postgres(tmp_path / "postgres")
    try:
        server.start()
        with psycopg.connect(server.url()) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 1 AS value")
        server.kill()
        server.start()
        with psycopg.connect(server.url()) as connection:
            assert connection.execute("SELECT value FROM kept").fetchone() == (1,)
    finally:
        server.stop()


def test_a_long_state_folder_still_has_a_socket_that_fits(tmp_path: Path) -> None:
    server = Postgres(tmp_path / ("deep" * 30) / "postgres")
    assert len(server.url("postgres").partition("host=")[2]) < SOCKET_PATH_BYTES
    try:
        server.start()
        with psycopg.connect(server.url()) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
    finally:
        server.stop()


@pytest.mark.parametrize("what", ["a link", "open to all"])
def test_a_socket_folder_that_another_made_first_is_refused(tmp_path: Path, what: str) -> None:
    """It has a name that can be foreseen, in the folder for temporary files, where anybody may make things."""
    server = Postgres(tmp_path / ("deep" * 30) / "postgres")
    sockets = Path(unquote(server.url().partition("?host=")[2]))
    precious = tmp_path / "precious"
    precious.mkdir()
    try:
        if what == "a link":
            sockets.symlink_to(precious)
        else:
            sockets.mkdir()
            sockets.chmod(0o777)
        with pytest.raises(SettingsError, match=f"{sockets}.*choose another state folder"):
            server.start()
        assert precious.stat().st_uid == os.geteuid()
        assert server.record.processes == {}
    finally:
        sockets.unlink() if sockets.is_symlink() else sockets.rmdir()


def test_a_recycled_process_number_is_never_killed(tmp_path: Path) -> None:
    own = identify(os.getpid())
    assert own is not None
    emulator = Aws(tmp_path, record=Record(processes={"server": Process(own.pid, own.started - 1, own.boot)}))
    emulator.stop()  # we are still here


def test_a_state_folder_that_is_a_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("something else")
    with pytest.raises(SettingsError, match=r"file is not a folder"):
        embedded.up(file)


def test_a_folder_with_other_things_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    for command in (embedded.up, embedded.down):
        with pytest.raises(SettingsError, match=r"holds other things and no state\.json"):
            command(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["letter.txt"]


def test_an_unreadable_state_is_named(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text("{")
    with pytest.raises(SettingsError, match=r"state\.json cannot be read"):
        embedded.up(tmp_path)


def test_two_commands_at_once_are_refused(tmp_path: Path) -> None:
    with (tmp_path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for command in (embedded.up, embedded.down):
            with pytest.raises(Refused, match="state-locked"):
                command(tmp_path)


def test_down_of_a_folder_that_is_not_there_does_nothing(tmp_path: Path) -> None:
    embedded.down(tmp_path / "nowhere")
    assert list(tmp_path.iterdir()) == []
