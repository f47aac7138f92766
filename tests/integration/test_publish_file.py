"""Publishing a file to a real broker: all of it or nothing, unless told otherwise."""

from __future__ import annotations

import gzip
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import pytest
from kombu import Connection

from incentive_fleet.brokers.rabbitmq.publisher import RabbitMQPublisher
from incentive_fleet.errors import SettingsError
from incentive_fleet.events.codec import encode_event
from incentive_fleet.events.models import Line, OrderPlaced
from incentive_fleet.producers.event_file import publish_file

NOW = datetime(2025, 1, 2, tzinfo=UTC)


class Broker(Protocol):
    url: str


@dataclass
class Shop:
    publisher: RabbitMQPublisher
    channel: Any
    queue: str

    def arrived(self) -> list[bytes]:
        got = iter(lambda: self.channel.basic_get(self.queue, no_ack=True), None)
        return [message.body.encode() if isinstance(message.body, str) else message.body for message in got]


@pytest.fixture
def shop(rabbitmq: Broker, prefix: str) -> Iterator[Shop]:
    with Connection(rabbitmq.url) as connection, closing(connection.channel()) as channel:
        channel.exchange_declare(prefix, "topic", durable=True, auto_delete=False)
        channel.queue_declare(prefix, durable=True, auto_delete=False)
        channel.queue_bind(prefix, prefix, "order-placed.v1")
        with RabbitMQPublisher(rabbitmq.url, prefix) as publisher:
            yield Shop(publisher, channel, prefix)
        channel.queue_delete(prefix)
        channel.exchange_delete(prefix)


def placed(number: int) -> bytes:
    line = Line(line_id="1", sku="tea", quantity=1, unit_price=100)
    data = OrderPlaced(order_id=f"o{number}", customer_id="c", currency="EUR", placed_at=NOW, lines=(line,))
    return encode_event("/shop", f"placed-{number}", data, NOW)


def test_a_good_file_is_published_in_order(shop: Shop, tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl.gz"
    events = [placed(number) for number in range(2_500)]  # more than a chunk
    file.write_bytes(gzip.compress(b"\n".join(events)))
    told: list[tuple[str, int, int | None]] = []
    summary = publish_file(file, shop.publisher, progress=lambda *step: told.append(step))
    assert (summary.lines, summary.published, summary.bad, summary.failed) == (2_500, 2_500, 0, 0)
    assert summary.ok
    assert shop.arrived() == events
    assert told[-1] == ("publish", 2_500, 2_500)
    assert told[told.index(("check", 2_500, 2_500)) + 1] == ("publish", 0, 2_500), "before the first one is sent"


BAD = b'{"specversion": "1.0", "id": 5}'


def test_one_bad_line_is_named_and_nothing_is_sent(shop: Shop, tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    file.write_bytes(b"\n".join([placed(1), BAD, placed(2).replace(b"EUR", b"XXX")]))
    summary = publish_file(file, shop.publisher)
    assert (summary.published, summary.bad, summary.ok) == (0, 2, False)
    assert [line.number for line in summary.bad_lines] == [2, 3]
    assert "data.currency" in summary.bad_lines[1].detail
    assert "XXX" in summary.bad_lines[1].detail
    assert shop.arrived() == []


def test_a_file_of_bad_lines_alone_is_not_fine(shop: Shop, tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    file.write_bytes(BAD)
    assert not publish_file(file, shop.publisher).ok


def test_bad_lines_are_skipped_when_told(shop: Shop, tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    file.write_bytes(b"\n".join([placed(1), BAD, placed(2)]))
    summary = publish_file(file, shop.publisher, skip_bad=True)
    assert (summary.lines, summary.published, summary.bad, summary.ok) == (3, 2, 1, True)
    assert shop.arrived() == [placed(1), placed(2)]


def test_raw_lines_are_sent_unchecked_and_the_unroutable_are_named(shop: Shop, tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    poison = b'{"type": "order-placed.v1", "data": NaN'
    file.write_bytes(b"\n".join([b'{"type": "order-placed.v1"}', poison, placed(2)]))
    summary = publish_file(file, shop.publisher, raw=True)
    assert (summary.published, summary.bad, summary.failed, summary.ok) == (2, 0, 1, False)
    assert [(line.number, line.reason) for line in summary.failed_lines] == [(2, "unroutable")]
    assert shop.arrived() == [b'{"type": "order-placed.v1"}', placed(2)]


def test_the_rate_is_kept(shop: Shop, tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    file.write_bytes(b"\n".join(placed(number) for number in range(60)))
    started = time.monotonic()
    assert publish_file(file, shop.publisher, rate=100).published == 60
    assert time.monotonic() - started > 0.4  # the last chunk of ten leaves after half a second


def test_a_missing_exchange_is_told_before_the_file_is_read(rabbitmq: Broker, prefix: str, tmp_path: Path) -> None:
    with RabbitMQPublisher(rabbitmq.url, f"{prefix}.none") as publisher, pytest.raises(SettingsError, match="none"):
        publish_file(tmp_path / "not-there.jsonl", publisher)
