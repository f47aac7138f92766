"""Reply addresses over which RabbitMQ falls: they cost one connection a minute, not one each, and no other answer."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from typing import Any

import pytest
from amqp import Message as Question

from incentive_fleet.brokers.messages import Answered, Delivery, Message
from incentive_fleet.brokers.rabbitmq import replies
from incentive_fleet.brokers.rabbitmq.client import open_link
from incentive_fleet.brokers.rabbitmq.direct import DIRECT, looks_foreign
from incentive_fleet.brokers.rabbitmq.link import Link
from incentive_fleet.brokers.rabbitmq.properties import join, short_text
from incentive_fleet.brokers.rabbitmq.replies import RabbitMQReplies
from incentive_fleet.brokers.rabbitmq.transport import RabbitMQReceipt
from incentive_fleet.embedded.rabbitmq import RabbitMQ
from incentive_fleet.settings import Settings
from incentive_fleet.stopping import Stop
from tests.contract.brokers_under_test import eventually

ANSWER = Message(b"{}", None, None)
FELLING = f"{DIRECT}/w==.AAAA"


def asked_from(address: str) -> tuple[Delivery, Message]:
    reply_to = short_text(address)
    assert reply_to is not None
    link: Any = None  # an answer needs none of the question's
    receipt = RabbitMQReceipt(link, 1, join({"reply_to": reply_to}, {}), time.time())
    return Delivery(b"{}", "questions", "rabbitmq", "", 1, receipt), ANSWER


@pytest.fixture
def links(monkeypatch: pytest.MonkeyPatch) -> list[Link]:
    """Grows with each connection that answers are sent on."""
    opened: list[Link] = []

    def noted(*given: Any) -> Link:
        opened.append(open_link(*given))
        return opened[-1]

    monkeypatch.setattr(replies, "open_link", noted)
    return opened


@pytest.fixture
def answers(rabbitmq: RabbitMQ) -> Iterator[RabbitMQReplies]:
    with closing(RabbitMQReplies(Settings(rabbitmq_url=rabbitmq.url), Stop())) as answers:
        yield answers


def test_a_flood_of_addresses_that_fell_the_broker_costs_one_connection(
    answers: RabbitMQReplies, channel: Any, links: list[Link]
) -> None:
    queue = channel.queue_declare("", exclusive=True).queue
    fates = answers.send([asked_from(one) for one in (queue, *[FELLING] * 50, queue)])
    assert fates == [Answered.SENT, *[Answered.REFUSED] * 50, Answered.SENT]
    assert answers.send([asked_from(one) for one in (FELLING, queue)]) == [Answered.REFUSED, Answered.SENT]
    assert len(links) == 2  # the one that was felled, and the next


def test_the_broker_s_own_names_look_like_its_own_and_are_answered_however_wary_we_are(
    answers: RabbitMQReplies, channel: Any
) -> None:
    heard: list[str] = []
    got: list[bytes] = []
    queue = channel.queue_declare("", exclusive=True).queue
    channel.basic_consume("amq.rabbitmq.reply-to", no_ack=True, callback=lambda one: got.append(bytes(one.body)))
    channel.basic_consume(queue, no_ack=True, callback=lambda one: heard.append(one.properties["reply_to"]))
    channel.basic_publish(_question(), "", queue)
    eventually(lambda: _drained(channel) and bool(heard))
    assert heard[0].startswith(DIRECT)
    assert not looks_foreign(heard[0])
    assert answers.send([asked_from(FELLING)]) == [Answered.REFUSED]
    assert answers.send([asked_from(heard[0])]) == [Answered.SENT]
    eventually(lambda: _drained(channel) and got == [b"{}"])


def _question() -> Any:
    return Question("?", reply_to="amq.rabbitmq.reply-to")


def _drained(channel: Any) -> bool:
    with suppress(TimeoutError):
        channel.connection.drain_events(timeout=0.1)
    return True


@pytest.mark.parametrize(
    "bent", [lambda raw: raw[:-1], lambda raw: raw + b"x", lambda raw: raw.replace(b"@", b"#"), lambda _: b"\x83a\x05"]
)
def test_a_name_that_was_bent_looks_foreign(bent: Any) -> None:
    raw = b"\x83Xv\x00\x0ereply@20560884" + bytes(12)
    assert not looks_foreign(f"{DIRECT}{base64.b64encode(raw).decode()}.AAAA")
    assert looks_foreign(f"{DIRECT}{base64.b64encode(bent(raw)).decode()}.AAAA")
    assert not looks_foreign("amq.gen-x")
