"""What the producers decide without a broker: reading lines, grouping SNS calls, the test-only hook that kills."""

from __future__ import annotations

import gzip
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from incentive_fleet.brokers.aws import AWS
from incentive_fleet.brokers.aws.publisher import group
from incentive_fleet.brokers.messages import Message, Rejection, message_of
from incentive_fleet.brokers.rabbitmq import RABBITMQ
from incentive_fleet.brokers.rabbitmq.publisher import RabbitMQPublisher
from incentive_fleet.brokers.registry import configured
from incentive_fleet.errors import Refused, SettingsError
from incentive_fleet.events.codec import encode_event
from incentive_fleet.events.models import Line, OrderPlaced
from incentive_fleet.producers.event_file import BadLine, read_messages
from incentive_fleet.settings import Settings

NOW = datetime(2025, 1, 2, tzinfo=UTC)


def placed(order_id: str) -> bytes:
    line = Line(line_id="1", sku="tea", quantity=1, unit_price=100)
    data = OrderPlaced(order_id=order_id, customer_id="c", currency="EUR", placed_at=NOW, lines=(line,))
    return encode_event("/shop", f"placed-{order_id}", data, NOW)


@pytest.mark.parametrize(
    ("body", "type_", "id_"),
    [
        (b'{"type": "order-placed.v1", "id": "1"}', "order-placed.v1", "1"),
        (b'{"type": 5, "id": null}', None, None),
        (b'{"type": "a\\nb", "id": ""}', None, None),
        (b'{"type": "' + "\u00e4".encode() * 128 + b'"}', None, None),  # 256 bytes: one more than a short string
        (b"[1]", None, None),
        (b"{", None, None),
        (b"\xff", None, None),
        (b"[" * 100_000, None, None),
        (b"", None, None),
    ],
)
def test_a_raw_line_is_sent_with_as_much_type_and_id_as_can_be_read(body: bytes, type_: str, id_: str) -> None:
    assert message_of(body) == Message(body, type_, id_)


def test_lines_are_numbered_as_an_editor_numbers_them(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    file.write_bytes(b"\n" + placed("1") + b"\r\n \t\n{\n" + placed("2"))
    first, bad, last = list(read_messages(file))
    assert first == (2, Message(placed("1"), "order-placed.v1", "placed-1"))
    assert isinstance(bad[1], BadLine)
    assert bad[1].number == bad[0] == 4
    assert last[0] == 5


def test_a_line_beyond_the_bound_is_bad_and_the_next_is_read(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    file.write_bytes(b"x" * 5_000 + b"\n" + placed("1") + b"\n" + b"y" * 5_000)
    lines = [line for _, line in read_messages(file, line_max_bytes=len(placed("1")))]
    assert [type(line) for line in lines] == [BadLine, Message, BadLine]


def test_a_gzipped_file_reads_like_a_plain_one(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl.gz"
    file.write_bytes(gzip.compress(placed("1") + b"\n" + placed("2") + b"\n"))
    assert [number for number, _ in read_messages(file)] == [1, 2]


@pytest.mark.parametrize("content", [b"not gzip", gzip.compress(placed("1"))[:-9]])
def test_a_broken_gzipped_file_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "events.jsonl.gz"
    file.write_bytes(content)
    with pytest.raises(Refused, match="unreadable-file"):
        list(read_messages(file))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="unreadable-file"):
        list(read_messages(tmp_path / "none.jsonl"))


@given(st.lists(st.tuples(st.integers(0, 120), st.sampled_from(["", "t", "order-placed.v1"])), max_size=60))
def test_each_message_goes_into_exactly_one_call_within_the_limits(shapes: list[tuple[int, str]]) -> None:
    messages = [Message(b"x" * size, type_ or None, None) for size, type_ in shapes]
    rejections: list[Rejection] = []
    calls = list(group(messages, 100, rejections))
    sent = [int(entry["Id"]) for call in calls for entry in call]
    assert sorted(sent + [rejection.index for rejection in rejections]) == list(range(len(messages)))
    for call in calls:
        assert 1 <= len(call) <= 10
        assert sum(_bytes(messages[int(entry["Id"])]) for entry in call) <= 100
    assert all(_bytes(messages[rejection.index]) > 100 for rejection in rejections)


def _bytes(message: Message) -> int:
    return len(message.body) + (len("typeString" + message.type) if message.type else 0)


def test_sns_takes_text_only() -> None:
    rejections: list[Rejection] = []
    assert list(group([Message(b"\xff", None, None)], 100, rejections)) == []
    assert rejections[0].reason == "not-text"


def test_the_destinations_are_those_that_the_settings_name() -> None:
    assert configured(Settings()) == []
    assert configured(Settings(rabbitmq_url="amqp://h")) == [RABBITMQ]
    assert configured(Settings(rabbitmq_url="amqp://h", aws_region="eu-central-1")) == [AWS, RABBITMQ]


def test_another_scheme_than_amqp_is_a_wrong_setting() -> None:
    with pytest.raises(SettingsError, match="INCENTIVES_RABBITMQ_URL"):
        RabbitMQPublisher("redis://h", "e")


@pytest.mark.parametrize(("plan", "survives"), [("", True), ("other", True), ("step:3", True), ("step:2", False)])
def test_a_planned_step_kills_without_a_word(plan: str, survives: bool) -> None:
    step = "failpoint('step')"
    program = f"from incentive_fleet.failpoints import failpoint\n{step}\nprint(1, flush=True)\n{step}\nprint(2)"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "INCENTIVES_TEST_FAULT": plan},
        capture_output=True,
        check=False,
    )
    assert done.stdout == (b"1\n2\n" if survives else b"1\n")
    assert done.returncode == (0 if survives else -signal.SIGKILL)
