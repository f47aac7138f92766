"""Everything stops when told, and says what it did: SIGTERM and SIGINT to every command, its parts away, hung and there."""

from __future__ import annotations

import json
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import click
import psycopg
import pytest

from incentive_fleet.cli.interrupted import SENTENCES
from incentive_fleet.cli.interrupts import SAME_ORDER_S, SERVING
from incentive_fleet.embedded import sample_shop
from incentive_fleet.embedded.broker_release import installed
from incentive_fleet.settings import Settings
from tests.brokers_and_workers import Brokers, environment_of, settings_of
from tests.command import every_command, incentives
from tests.contract.brokers_under_test import eventually
from tests.running import Hung, Running, await_all, nowhere, refused_port, run
from tests.shop import balances, calm_balances, faults, open_shop

NOTHING_BEGUN = "Nothing was begun."  # while the program itself starts
DRAIN_S = 4.0
MARGIN_S = 6.0  # a second of the program's own, the rest for a machine that is busy
AT_ONCE = 10  # commands; more would leave nothing of two cores to the tests beside this one
SHOP = sample_shop.Shop(150, seed=9, refunds=0.4)
EVENTS = [body for _, body in sample_shop.events(SHOP)]
EVENT = EVENTS[0].decode()
QUOTE = json.dumps(
    {
        "specversion": "1.0",
        "id": "q-1",
        "source": "/checkout",
        "type": "incentives-quote-requested.v1",
        "subject": "q-1",
        "time": "2026-01-01T00:00:00Z",
        "data": {
            "quote_id": "q-1",
            "customer_id": "c-1",
            "currency": "EUR",
            "at": "2026-01-01T00:00:00Z",
            "lines": [{"line_id": "1", "sku": "TEA", "quantity": 1, "unit_price": 100}],
        },
    }
)
# What follows each command's name so that it has something to do. A command that is missing here fails the test.
ARGUMENTS: dict[str, tuple[str, ...]] = {
    "anomalies": (),
    "anomalies resolve": ("o-1", "over-refunded", "o-1", "--reason", "seen"),
    "answer-quotes": ("--from", "all"),
    "audiences load": ("{folder}/audiences.csv",),
    "audiences remove": ("{folder}/audiences.csv",),
    "backfill": ("{folder}/events.jsonl",),
    "campaigns list": (),
    "campaigns load": ("{folder}/campaigns.toml",),
    "codes export": ("pool", "--batch", "b"),
    "codes generate": ("pool", "--batch", "b", "--count", "5"),
    "codes load": ("{folder}/codes.csv",),
    "codes revoke": ("{folder}/codes.csv", "--reason", "leaked"),
    "codes show": ("K",),
    "consume": ("--from", "all"),
    "db upgrade": (),
    "dlq approve": ("1",),
    "dlq collect": (),
    "dlq conflict": ("1",),
    "dlq discard": ("1", "--reason", "seen", "--yes"),
    "dlq edit": ("1", "--original"),
    "dlq export": ("--all",),
    "dlq groups": (),
    "dlq history": (),
    "dlq import": ("{folder}/events.jsonl",),
    "dlq list": (),
    "dlq purge": ("--closed", "--older-than", "90d"),
    "dlq redirect": ("1", "--to-queue", "q", "--yes"),
    "dlq replay": ("1", "--yes"),
    "dlq restore": ("1", "--yes"),
    "dlq resume": ("1",),
    "dlq runs": (),
    "dlq show": ("1",),
    "dlq stop": ("1",),
    "dlq undo": ("1",),
    "dlq watch": ("1",),
    "doctor": (),
    "expire": ("--as-of", "2026-01-01T00:00:00Z"),
    "grant": ("--key", "k", "--customer-id", "c", "--currency", "EUR", "--amount", "1", "--campaign-id", "g"),
    "grant reverse": ("k", "--reason", "wrong"),
    "grants load": ("{folder}/grants.csv",),
    "ledger balances": (),
    "ledger export": (),
    "ledger verify": (),
    "logins end": ("ann",),
    "logins list": (),
    "order": ("o-1",),
    "orders finalize": ("o-1", "--as-placed", "--reason", "lost"),
    "outcomes export": (),
    "publish": ("{folder}/events.jsonl", "--to", "rabbitmq"),
    "quote": ("{folder}/quotes.jsonl",),
    "relay": (),
    "remind": ("--as-of", "2026-01-01T00:00:00Z", "--days", "7"),
    "serve": (),
    "status": (),
    "tokens create": ("--name", "n", "--role", "incentives_viewer"),
    "tokens list": (),
    "tokens revoke": ("abc",),
    "topology apply": (),
    "topology check": (),
    "waiting": (),
    "wallet": ("c-1",),
    "wallets hold": ("c-1", "--reason", "dispute"),
    "wallets release": ("c-1", "--reason", "settled"),
}
# These reach no part that could be away: they read and write files, or start the parts themselves.
ON_THEIR_OWN = {"demo", "down", "schemas check", "schemas graphql", "schemas write", "up"}
MORE = (
    ("consume", "--from", "rabbitmq", "--until-idle", "0.5"),
    ("consume", "--from", "sqs", "--until-idle", "0.5", "--no-collect"),
    ("answer-quotes", "--from", "rabbitmq", "--until-idle", "0.5"),
    ("relay", "--until-idle", "0.5"),
    ("dlq", "collect", "--until-idle", "0.5"),
    ("serve", "--until-idle", "0.5"),
    ("publish", "{folder}/events.jsonl", "--to", "sns"),
)


def leaves() -> list[str]:
    """Every command that does something, as people type it."""
    return sorted(
        " ".join(path)
        for path, command, _ in every_command()
        if path and (not isinstance(command, click.Group) or command.invoke_without_command)
    )


def test_every_command_says_what_holds_when_it_is_interrupted() -> None:
    assert set(leaves()) == set(SENTENCES)
    assert set(leaves()) == set(ARGUMENTS) | ON_THEIR_OWN


def files(folder: Path) -> None:
    (folder / "events.jsonl").write_text(EVENT + "\n", encoding="utf-8")
    (folder / "quotes.jsonl").write_text(QUOTE + "\n", encoding="utf-8")
    (folder / "codes.csv").write_text("campaign_id,code\npool,K\n", encoding="utf-8")
    (folder / "audiences.csv").write_text("audience,customer_id\nvip,c-1\n", encoding="utf-8")
    (folder / "campaigns.toml").write_text(sample_shop.CAMPAIGNS, encoding="utf-8")
    (folder / "grants.csv").write_text(
        "key,customer_id,currency,amount,campaign_id,expires_at\nk,c,EUR,1,g,\n", encoding="utf-8"
    )


def everything(folder: Path) -> Iterator[tuple[str, ...]]:
    """Each command that has a part to wait for, with its arguments."""
    for name, arguments in ARGUMENTS.items():
        yield (*name.split(), *(one.format(folder=folder) for one in arguments))
    for words in MORE:
        yield tuple(word.format(folder=folder) for word in words)


def serves(words: tuple[str, ...]) -> bool:
    return any(words[: len(names)] == names for names in SERVING)


def name_of(words: tuple[str, ...]) -> str:
    return next(name for name in (" ".join(words[:2]), words[0]) if name in SENTENCES)


def wrong_end(one: Running, number: signal.Signals, within_s: float) -> str:
    """What is wrong with how it ended: too late, the wrong code, the sentence missing, its insides shown. "" is right."""
    code, err, wrong = one.process.returncode, one.err, []
    if not 0 <= one.ended_after_s <= within_s:
        wrong.append("too late")
    if "Traceback" in err or any(not line.strip() for line in err.split("\n")[:-1]):
        wrong.append("a traceback or a blank line")
    if serves(one.words):
        cut = any(sentence in err for sentence in ("drain took too long", '"cut: ', "had not ended"))
        if code != (1 if cut else 0):
            wrong.append(f"the code of a drain that was {'cut' if cut else 'not cut'}")
    elif code != 128 + number:
        wrong.append("the code")
    elif f"Stopped by {number.name}. " not in err or not any(
        text in err for text in (SENTENCES[name_of(one.words)], NOTHING_BEGUN)
    ):
        wrong.append("what it said")
    return f"{one.words}: {', '.join(wrong)}: {code} after {one.ended_after_s:.1f} s\n{err[-2000:]}" if wrong else ""


def wrong_end_while_hung(folder: Path, words: tuple[str, ...], number: signal.Signals) -> str:
    """Signal a command as soon as it has connected to a part that says nothing; what is then wrong with its end."""
    env = {"INCENTIVES_DRAIN_S": str(DRAIN_S), "INCENTIVES_WAIT_S": "20"}
    with closing(Hung()) as hung:
        one = run(folder, {**nowhere(hung.port, folder), **env}, *words)
        if hung.wait(60):
            one.tell(number)
        await_all([one], DRAIN_S + 2 * MARGIN_S)
    return wrong_end(one, number, DRAIN_S + MARGIN_S)


def test_every_command_ends_within_the_drain_while_its_parts_are_hung(tmp_path: Path) -> None:
    files(tmp_path)
    commands = list(everything(tmp_path))
    numbers = [signal.SIGINT if count % 2 else signal.SIGTERM for count in range(len(commands))]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        wrong = list(pool.map(partial(wrong_end_while_hung, tmp_path), commands, numbers))
    assert not any(wrong), "\n".join(filter(None, wrong))


AWAY = (
    ("consume", "--from", "all"),
    ("consume", "--from", "rabbitmq", "--until-idle", "0.5"),
    ("consume", "--from", "sqs", "--until-idle", "0.5"),
    ("answer-quotes", "--from", "all"),
    ("relay", "--until-idle", "0.5"),
    ("dlq", "collect", "--until-idle", "0.5"),
    ("backfill", "{folder}/events.jsonl"),
)


def test_what_waits_for_a_part_that_is_away_ends_at_once_when_told(tmp_path: Path) -> None:
    """A run until idle waits for what is away, for there may be work behind it; a signal ends it all the same."""
    files(tmp_path)
    env = nowhere(refused_port(), tmp_path)
    running = [run(tmp_path, env, *(word.format(folder=tmp_path) for word in words)) for words in AWAY]
    for one in running:
        one.until("paused")
    for number, one in enumerate(running):
        one.tell(signal.SIGINT if number % 2 else signal.SIGTERM)
    await_all(running, 20)
    wrong = [wrong_end(one, signal.SIGINT if n % 2 else signal.SIGTERM, MARGIN_S) for n, one in enumerate(running)]
    assert not any(wrong), "\n".join(filter(None, wrong))
    assert not [one.words for one in running if "cut" in one.err], "nothing had to be cut"


def test_a_second_signal_ends_at_once_and_the_same_order_twice_does_not(tmp_path: Path) -> None:
    hung, silent = Hung(), Hung()
    relaying = run(tmp_path, {**nowhere(hung.port, tmp_path), "INCENTIVES_DRAIN_S": "60"}, "relay")
    verifying = run(tmp_path, {**nowhere(silent.port, tmp_path), "INCENTIVES_DRAIN_S": "60"}, "ledger", "verify")
    try:
        assert hung.wait(60)
        relaying.tell(signal.SIGTERM)
        relaying.tell(signal.SIGTERM)  # as `timeout` and shells do: one order, sent twice
        with pytest.raises(subprocess.TimeoutExpired):
            relaying.process.wait(2 * SAME_ORDER_S)
        relaying.tell(signal.SIGINT)
        assert silent.wait(60)
        verifying.tell(signal.SIGINT)
        await_all([relaying, verifying], MARGIN_S)
    finally:
        hung.close()
        silent.close()
    assert (relaying.process.returncode, verifying.process.returncode) == (1, 130)
    assert json.loads(relaying.err.splitlines()[-1])["message"] == "cut: told to stop again"
    assert "log.level" in json.loads(relaying.err.splitlines()[-1]), "as all its lines"
    assert "Stopped by SIGINT. " in verifying.err


@contextmanager
def shop_of(rabbitmq: Any, database_url: str) -> Iterator[tuple[Settings, Brokers]]:
    brokers = Brokers(settings_of(f"t{uuid.uuid4().hex[:8]}", rabbitmq_url=rabbitmq.url, aws_region=None))
    brokers.apply()
    open_shop(database_url, SHOP)
    try:
        yield brokers.settings.model_copy(update={"database_url": database_url, "batch_size": 20}), brokers
    finally:
        brokers.close()


def count(url: str, query: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute(query).fetchone()
    assert row is not None
    return int(row[0])


def test_work_that_is_interrupted_and_run_again_ends_in_the_same_balances(
    rabbitmq: Any, database_url: str, tmp_path: Path
) -> None:
    """Publishing, consuming, relaying, loading grants and backfilling, each stopped in the middle, then run again."""
    file = tmp_path / "events.jsonl"
    file.write_bytes(b"\n".join(EVENTS) + b"\n")
    with shop_of(rabbitmq, database_url) as (settings, brokers):
        env = {**environment_of(settings), "AWS_REGION": "", "AWS_DEFAULT_REGION": ""}
        publishing = run(tmp_path, env, "publish", str(file), "--to", "rabbitmq", "--rate", "60")
        eventually(lambda: sum(brokers.left("rabbitmq").values()) > 20)
        publishing.tell(signal.SIGINT)
        await_all([publishing], DRAIN_S + MARGIN_S)
        assert not wrong_end(publishing, signal.SIGINT, MARGIN_S)
        assert "events are answered for by the broker, the others are not" in publishing.err
        assert incentives("publish", file, "--to", "rabbitmq", env=env).code == 0
        with psycopg.connect(database_url) as owner:
            owner.execute("LOCK TABLE orders IN ACCESS EXCLUSIVE MODE")
            consuming = run(tmp_path, env, "consume", "--from", "rabbitmq", "--until-idle", "30")
            eventually(lambda: owner.execute("SELECT FROM pg_locks WHERE NOT granted").fetchone() is not None)
            consuming.tell(signal.SIGTERM)
            owner.rollback()
        backfilling = run(tmp_path / "b", env, "backfill", str(file))
        backfilling.tell(signal.SIGTERM)
        await_all([consuming, backfilling], settings.drain_s + MARGIN_S)
        assert not wrong_end(consuming, signal.SIGTERM, settings.drain_s)
        assert backfilling.process.returncode in (143, -signal.SIGTERM), "-15 before Python itself has started"
        assert incentives("consume", "--from", "rabbitmq", "--until-idle", "1", env=env).code == 0
        assert incentives("backfill", file, env=env).code == 0
        left = "SELECT count(*) FROM outbox_unpublished"
        before = count(database_url, left)
        relaying = run(tmp_path, {**env, "INCENTIVES_BATCH_SIZE": "1"}, "relay", "--until-idle", "30")
        eventually(lambda: count(database_url, left) < before)
        relaying.tell(signal.SIGTERM)
        await_all([relaying], settings.drain_s + MARGIN_S)
        assert not wrong_end(relaying, signal.SIGTERM, settings.drain_s)
        assert incentives("relay", "--until-idle", "0.2", env=env).code == 0
        assert count(database_url, "SELECT count(*) FROM outbox_unpublished WHERE destination = 'rabbitmq'") == 0
        ended = balances(database_url)
        assert faults(database_url) == {}
        assert calm_balances(database_url, EVENTS) == ended
        assert brokers.left("rabbitmq") == {}


def test_publish_says_that_the_broker_blocks_and_ends_when_told(
    rabbitmq: Any, database_url: str, tmp_path: Path
) -> None:
    file = tmp_path / "events.jsonl"
    file.write_bytes(b"\n".join(EVENTS) + b"\n")
    with shop_of(rabbitmq, database_url) as (settings, _), alarm(rabbitmq):
        env = {**environment_of(settings), "AWS_REGION": "", "AWS_DEFAULT_REGION": ""}
        publishing = run(tmp_path, env, "publish", str(file), "--to", "rabbitmq")
        started = time.monotonic()
        publishing.until("RabbitMQ blocks publishers", 30)
        assert time.monotonic() - started < 10 + MARGIN_S, "the program's own start included"
        publishing.tell(signal.SIGINT)
        await_all([publishing], DRAIN_S + MARGIN_S)
        assert not wrong_end(publishing, signal.SIGINT, MARGIN_S)


@contextmanager
def alarm(node: Any) -> Iterator[None]:
    """The node's memory alarm is on while the block runs."""
    evaluate(node, "vm_memory_monitor:set_vm_memory_high_watermark(0.0001)")
    try:
        eventually(lambda: "memory" in evaluate(node, "rabbit_alarm:get_alarms()"))
        yield
    finally:
        evaluate(node, "vm_memory_monitor:set_vm_memory_high_watermark(0.4)")
        eventually(lambda: "memory" not in evaluate(node, "rabbit_alarm:get_alarms()"))


def evaluate(node: Any, expression: str) -> str:
    """What RabbitMQ's own tool says to an expression in the node."""
    broker = installed()
    assert broker is not None
    done = subprocess.run(
        [str(broker.server.with_name("rabbitmqctl")), "eval", f"{expression}."],
        env=node._environment(broker.path),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_long_poll_is_no_longer_than_the_drain(moto_server: Any, database_url: str, tmp_path: Path) -> None:
    """The exit took a receive and a poll one after the other: with INCENTIVES_WAIT_S=20 40 s, against a drain of 25."""
    settings = settings_of(
        f"t{uuid.uuid4().hex[:8]}", aws_endpoint_url=moto_server.endpoint_url, database_url=database_url
    )
    brokers = Brokers(settings)
    brokers.apply()
    open_shop(database_url, SHOP)
    env = environment_of(settings, INCENTIVES_WAIT_S="6", INCENTIVES_DRAIN_S="9")
    running = [
        run(tmp_path, env, "consume", "--from", "sqs", "--no-collect"),
        run(tmp_path, env, "dlq", "collect", "--from", "sqs"),
    ]
    brokers.publish("sqs", [EVENTS[0], b"no event"])
    eventually(lambda: count(database_url, "SELECT count(*) FROM facts") == 1)
    eventually(lambda: count(database_url, "SELECT count(*) FROM dead_letters") == 1)
    for one in running:  # both poll by now, for 6 s
        one.tell(signal.SIGTERM)
    await_all(running, 9 + MARGIN_S)
    brokers.close()
    wrong = [wrong_end(one, signal.SIGTERM, 9) for one in running]
    assert not any(wrong), "\n".join(filter(None, wrong))
    assert not [one.words for one in running if one.process.returncode], "nothing had to be cut"


def test_a_demo_that_is_interrupted_leaves_nothing_running(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="demo-") as short:  # a socket's path has 107 bytes at the most
        _interrupt_a_demo(tmp_path, Path(short))


def _interrupt_a_demo(output: Path, temporary: Path) -> None:
    demo = run(output, {"TMPDIR": str(temporary)}, "demo", "--orders", "20")
    demo.until("applied", 90)  # its parts run
    folders = list(temporary.glob("incentives-*"))
    assert folders
    demo.tell(signal.SIGINT)
    await_all([demo], 25 + MARGIN_S)
    assert not wrong_end(demo, signal.SIGINT, 25 + MARGIN_S)
    assert not list(temporary.glob("incentives-*")), "its folder is gone"
    assert not [pid for pid in Path("/proc").glob("[0-9]*/cmdline") if str(folders[0]).encode() in read_bytes(pid)]


def read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it ended meanwhile
        return b""


def test_parts_that_are_interrupted_while_starting_are_found_again(tmp_path: Path) -> None:
    state = tmp_path / "state"
    starting = run(tmp_path, {}, "up", "--state", str(state))
    eventually(lambda: '"pid"' in read_bytes(state / "state.json").decode())
    starting.tell(signal.SIGTERM)
    starting.tell(signal.SIGTERM)
    time.sleep(2 * SAME_ORDER_S)  # a person who has lost patience
    starting.tell(signal.SIGTERM)
    await_all([starting], 25 + MARGIN_S)
    assert not wrong_end(starting, signal.SIGTERM, 25 + MARGIN_S)
    assert incentives("down", "--state", state).code == 0
    assert not running_in(state)


@pytest.mark.parametrize("role", ["initdb", "epmd", "server"])
def test_parts_whose_start_is_killed_are_found_again(tmp_path: Path, role: str) -> None:
    """At once after a process is remembered, which is before it begins; and what was half made is made anew."""
    state = tmp_path / "state"
    starting = run(tmp_path, {}, "up", "--state", str(state))
    eventually(lambda: f'"{role}": {{' in read_bytes(state / "state.json").decode())
    starting.tell(signal.SIGKILL)
    await_all([starting], MARGIN_S)
    assert incentives("down", "--state", state).code == 0
    assert not running_in(state)
    if role == "initdb":
        assert incentives("up", "--state", state).code == 0
        assert incentives("down", "--state", state).code == 0


def running_in(folder: Path) -> list[Path]:
    return [pid for pid in Path("/proc").glob("[0-9]*/cmdline") if str(folder).encode() in read_bytes(pid)]
