"""What is true of the RabbitMQ adapter alone."""

from __future__ import annotations

import threading
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Any

import pika
import pytest

from incentive_fleet.brokers import message_headers, topology
from incentive_fleet.brokers.messages import Ack, DeadLetter, Delivery, Disposition, Message, Outgoing, Release, Retry
from incentive_fleet.brokers.rabbitmq import RABBITMQ, copies, proof
from incentive_fleet.brokers.rabbitmq import topology as topology_rabbitmq
from incentive_fleet.brokers.rabbitmq import transport as transport_rabbitmq
from incentive_fleet.brokers.rabbitmq.client import open_link, parameters
from incentive_fleet.brokers.rabbitmq.dead_letters import RabbitMQDeadLetters, RabbitMQSender
from incentive_fleet.brokers.rabbitmq.link import Link
from incentive_fleet.brokers.rabbitmq.plan import dead_letter_exchange
from incentive_fleet.brokers.rabbitmq.properties import Parts, text_value
from incentive_fleet.brokers.rabbitmq.sending import Copy, send
from incentive_fleet.brokers.rabbitmq.transport import RabbitMQTransport
from incentive_fleet.brokers.registry import open_events
from incentive_fleet.consumers.probes import probes_of
from incentive_fleet.errors import BrokerUnavailable
from incentive_fleet.stopping import Stop
from tests import amqp
from tests.contract.brokers_under_test import PLACED, RabbitMQUnderTest, collect, eventually
from tests.contract.test_transport import bodies, failure

DEAD = DeadLetter("conflict", "other content")


def test_an_ack_from_an_old_channel_is_skipped(rabbitmq_under_test: RabbitMQUnderTest) -> None:
    """Tag 1 of the dead channel must not acknowledge tag 1 of the new one, nor close it."""
    rabbitmq_under_test.send(b"one")
    transport = rabbitmq_under_test.open()
    [old] = collect(transport, 1)
    rabbitmq_under_test.lose(transport, [old])
    [new] = collect(transport, 1)
    transport.settle([(old, Ack())])
    assert transport.skipped == 1
    assert not transport.idle()
    transport.settle([(new, Ack())])
    eventually(transport.idle)
    assert transport.skipped == 1


def test_consumers_are_recreated_after_reconnect(rabbitmq_under_test: RabbitMQUnderTest) -> None:
    transport = rabbitmq_under_test.open()
    for round_ in range(3):
        body = f"round {round_}".encode()
        rabbitmq_under_test.send(body)
        for type_, _ in topology.SOURCES[1:]:
            rabbitmq_under_test.send(body, type_=type_)
        deliveries = collect(transport, len(topology.SOURCES))
        assert {delivery.body for delivery in deliveries} == {body}
        transport.settle([(delivery, Ack()) for delivery in deliveries])
        eventually(transport.idle)
        rabbitmq_under_test.lose(transport, deliveries)


def test_consumers_are_recreated_after_the_broker_cancels_them(rabbitmq_under_test: RabbitMQUnderTest) -> None:
    transport = rabbitmq_under_test.open()
    transport.receive(1, 0.01)
    with rabbitmq_under_test.channel() as channel:
        channel.queue_delete(rabbitmq_under_test.queue(PLACED))
    with pytest.raises(BrokerUnavailable, match="cancelled"):
        transport.receive(1, 10)
    with pytest.raises(BrokerUnavailable, match="no queue"):
        transport.receive(1, 1)
    rabbitmq_under_test.empty()  # declares it again
    rabbitmq_under_test.send(b"back")

    def back() -> Any:
        try:
            return transport.receive(1, 1)
        except BrokerUnavailable:  # the pause between attempts
            return []

    [delivery] = eventually(back)
    assert delivery.body == b"back"
    transport.settle([(delivery, Ack())])


def test_a_dead_letter_is_confirmed_before_the_ack(rabbitmq_under_test: RabbitMQUnderTest) -> None:
    """Without a route for the dead letter the message stays; with one it goes, and is dead-lettered once."""
    source = rabbitmq_under_test.queue(PLACED)
    exchange = dead_letter_exchange(rabbitmq_under_test.settings.prefix)
    rabbitmq_under_test.send(b"poison", b"fine")
    transport = rabbitmq_under_test.open()
    by_body = {delivery.body: delivery for delivery in collect(transport, 2)}
    with rabbitmq_under_test.channel() as channel:
        channel.queue_unbind(f"{source}.dlq", exchange, source)
        with pytest.raises(BrokerUnavailable, match=source):
            transport.settle([(by_body[b"poison"], DEAD), (by_body[b"fine"], Ack())])
        channel.queue_bind(f"{source}.dlq", exchange, source)
    [again] = collect(transport, 1)
    assert again.body == b"poison"
    assert again.receive_count == 2
    transport.settle([(again, DEAD)])
    assert [letter.body for letter in rabbitmq_under_test.letters()] == [b"poison"]
    eventually(transport.idle)


def test_a_message_in_the_middle_is_not_acknowledged_with_its_neighbours(
    rabbitmq_under_test: RabbitMQUnderTest,
) -> None:
    rabbitmq_under_test.send(*bodies(30))
    transport = rabbitmq_under_test.open()
    deliveries = collect(transport, 30)
    kept = deliveries.pop(11)
    transport.settle([(delivery, Ack()) for delivery in deliveries])
    transport.close()
    [again] = collect(rabbitmq_under_test.open(), 1)
    assert again.body == kept.body


def test_what_lies_above_a_gap_is_acknowledged_in_the_end(rabbitmq_under_test: RabbitMQUnderTest) -> None:
    """While more is there, acknowledgements above one that is still held may be kept back; never when all has come."""
    rabbitmq_under_test.send(*bodies(200))
    transport = rabbitmq_under_test.open()
    kept, *rest = collect(transport, 100)
    eventually(lambda: transport._consuming is not None and transport._consuming.undelivered)
    transport.settle([(delivery, Ack()) for delivery in rest])
    assert transport._late
    transport.settle([(delivery, Ack()) for delivery in collect(transport, 100)])
    assert not transport._late
    transport.settle([(kept, Ack())])
    eventually(transport.idle)
    assert transport.skipped == 0


def test_the_heartbeat_is_answered_while_the_caller_is_busy(rabbitmq_under_test: RabbitMQUnderTest) -> None:
    rabbitmq_under_test.send(b"slow")
    transport = rabbitmq_under_test.open(rabbitmq_url=f"{rabbitmq_under_test.settings.rabbitmq_url}?heartbeat=1")
    [delivery] = collect(transport, 1)
    threading.Event().wait(3.5)  # the work; RabbitMQ gives up on a peer that is silent for two heartbeats
    transport.settle([(delivery, Ack())])
    eventually(transport.idle)
    assert transport.skipped == 0


def test_any_bytes_and_the_senders_properties_survive_a_retry_and_a_dead_letter(
    rabbitmq_under_test: RabbitMQUnderTest,
) -> None:
    body = bytes(range(256))
    rabbitmq_under_test.send(body)
    transport = rabbitmq_under_test.open()
    [first] = collect(transport, 1)
    transport.settle([(first, Retry(1.0, failure()))])
    [second] = collect(transport, 1)
    assert (second.body, second.message_id) == (body, "m")
    assert "x-death" in second.headers  # the broker's account of the delay queue, not kept any longer
    transport.settle([(second, DEAD)])
    [letter] = rabbitmq_under_test.letters()
    assert letter.body == body
    assert letter.headers[message_headers.MESSAGE_ID] == "m"
    assert "x-death" not in letter.headers
    assert message_headers.failure_in(letter.headers) == failure()


def test_what_other_processes_hold_shows_over_the_management_api(rabbitmq_under_test: RabbitMQUnderTest) -> None:
    rabbitmq_under_test.send(b"held elsewhere")
    other = rabbitmq_under_test.open()
    [delivery] = collect(other, 1)
    url = rabbitmq_under_test.direct.rabbitmq_management_url
    watching = rabbitmq_under_test.open(rabbitmq_management_url=url, prefetch=1)
    eventually(lambda: not watching.idle())  # the API's counts lag behind
    other.settle([(delivery, Ack())])
    eventually(watching.idle)


def test_the_nodes_of_a_url_are_tried_in_turn_by_every_part(
    rabbitmq_under_test: RabbitMQUnderTest, rabbitmq: Any
) -> None:
    """The first two are away."""
    ports = rabbitmq.record.ports
    gone = "127.0.0.1:1,localhost:2"
    settings = rabbitmq_under_test.direct.model_copy(
        update={
            "rabbitmq_url": f"amqp://guest:guest@{gone},127.0.0.1:{ports['amqp']}/%2F",
            "rabbitmq_management_url": f"http://guest:guest@127.0.0.1:1,127.0.0.1:{ports['management']}",
        }
    )
    probes_of(settings.model_copy(update={"database_url": "postgresql://nobody@127.0.0.1/"}), [RABBITMQ])["rabbitmq"]()
    assert topology_rabbitmq.apply(settings) == []
    assert topology_rabbitmq.check(settings).drift == ()
    with closing(open_events(settings, RABBITMQ)) as publisher:
        publisher.check()
        assert publisher.publish([Message(b"by any node", PLACED, "m")]) == []
    transport = RabbitMQTransport(settings)
    with closing(transport):
        [delivery] = collect(transport, 1)
        transport.settle([(delivery, DEAD)])
        eventually(transport.idle)
    with closing(RabbitMQDeadLetters(settings)) as letters:
        [letter] = letters.receive(1, 5)
        assert letter.body == b"by any node"
        letters.remove([letter])
    with closing(RabbitMQSender(settings)) as sender:
        assert sender.send([Outgoing(letter.source_queue, letter.body, letter.envelope, "1.1", None)]) == [""]


def test_when_no_node_can_be_used_each_is_named_with_its_reason(rabbitmq_under_test: RabbitMQUnderTest) -> None:
    transport = rabbitmq_under_test.open(rabbitmq_url="amqp://guest:s3cret@127.0.0.1:1,localhost:2/")
    with pytest.raises(BrokerUnavailable, match=r"none of 2 nodes.*127\.0\.0\.1:1.*localhost:2") as caught:
        transport.receive(1, 0.1)
    assert "s3cret" not in str(caught.value)
    with pytest.raises(BrokerUnavailable, match="next attempt in"):  # the back-off comes after all of them
        transport.receive(1, 0.01)


def test_many_are_released_and_acknowledged_in_turns(rabbitmq_under_test: RabbitMQUnderTest) -> None:
    rabbitmq_under_test.send(*bodies(200))
    transport = rabbitmq_under_test.open()
    for _ in range(3):
        deliveries = collect(transport, 200)
        dispositions = [(delivery, Release() if number % 3 else Ack()) for number, delivery in enumerate(deliveries)]
        transport.settle(dispositions)
        rest = sum(isinstance(disposition, Release) for _, disposition in dispositions)
        rabbitmq_under_test.send(*bodies(200 - rest))
    transport.settle([(delivery, Ack()) for delivery in collect(transport, 200)])
    eventually(transport.idle)
    assert transport.skipped == 0


NEARLY_A_FRAME = {f"baggage-{number}": "b" * 13_000 for number in range(10)} | {"last": "b" * 800}


@pytest.mark.parametrize("disposition", [DEAD, Retry(1.0, failure())], ids=["dead letter", "retry"])
def test_headers_that_nearly_fill_a_frame_give_way_to_ours(
    rabbitmq_under_test: RabbitMQUnderTest, disposition: Any
) -> None:
    """What we add made a legal message unsendable, 501 FRAME_ERROR in a loop; those beside it went nowhere either."""
    queue = rabbitmq_under_test.queue(PLACED)
    with rabbitmq_under_test.channel() as channel:
        properties = pika.BasicProperties(headers=NEARLY_A_FRAME, delivery_mode=2, message_id="m")
        channel.basic_publish("", queue, b"heavy", properties)
    rabbitmq_under_test.send(b"beside")
    transport = rabbitmq_under_test.open()
    taken: list[bytes] = []
    for delivery in collect(transport, 2):
        transport.settle([(delivery, disposition)], on_taken=lambda delivery, _: taken.append(delivery.body))
    assert sorted(taken) == [b"beside", b"heavy"]
    if isinstance(disposition, Retry):
        again = {delivery.body: delivery for delivery in collect(transport, 2)}
        assert again[b"heavy"].failure == failure()
        headers = again[b"heavy"].headers
    else:
        headers = {letter.body: letter for letter in rabbitmq_under_test.letters()}[b"heavy"].headers
        assert headers[message_headers.REASON] == DEAD.reason
    assert headers[message_headers.LEFT_OUT] == "baggage-9"
    assert headers["baggage-8"] == NEARLY_A_FRAME["baggage-8"]
    assert headers["last"] == NEARLY_A_FRAME["last"]


def test_a_small_frame_is_enough(rabbitmq_under_test: RabbitMQUnderTest) -> None:
    """RabbitMQ 4.1 and later take 8,192 bytes at the least, AMQP 4,096; the broker delivers larger headers all the same."""
    with rabbitmq_under_test.channel() as channel:
        headers = {"large": "b" * 18_000, "small": "s"}
        channel.basic_publish(
            "", rabbitmq_under_test.queue(PLACED), b"x" * 18_000, pika.BasicProperties(headers=headers)
        )
    transport = rabbitmq_under_test.open(rabbitmq_url=f"{rabbitmq_under_test.settings.rabbitmq_url}?frame_max=8192")
    [delivery] = collect(transport, 1)
    long = replace(failure(), traceback="t" * 8_000)
    transport.settle([(delivery, DeadLetter("unexpected-error", "\U0001f600" * 2_000, long))])
    [letter] = rabbitmq_under_test.letters()
    assert letter.body == b"x" * 18_000
    assert letter.headers[message_headers.REASON] == "unexpected-error"
    assert letter.headers[message_headers.LEFT_OUT] == "large", "ours is shortened to fit beside the rest"
    assert letter.headers["small"] == "s"


def test_a_copy_that_the_broker_will_not_have_goes_bare_and_alone(rabbitmq_under_test: RabbitMQUnderTest) -> None:
    """RabbitMQ closes the channel for it and does not say which it was: here for a list of further queues that is none."""
    source = rabbitmq_under_test.queue(PLACED)
    exchange = dead_letter_exchange(rabbitmq_under_test.settings.prefix)
    ours = {message_headers.REASON: "r", message_headers.DETAIL: "d"}
    wrong = {b"CC": text_value("not a list")}
    copies = [
        Copy(
            exchange,
            source,
            b"%d" % at,
            partial(Parts, {}, wrong if at == 17 else {}),
            lambda room: ours,
            {"least": "l"},
        )
        for at in range(40)
    ]
    links: list[Link] = []

    def link() -> Link:
        if not links or not links[-1].alive:
            links.append(open_link(parameters(rabbitmq_under_test.settings), Stop(10)))
        return links[-1]

    sent = send(copies, link)
    assert (sent.taken, sent.error) == ([True] * 40, None)
    letters = {letter.body: letter.headers for letter in rabbitmq_under_test.letters()}
    assert letters.keys() == {b"%d" % at for at in range(40)}
    assert [body for body, headers in letters.items() if "least" in headers] == [b"17"]
    assert len(links) < 12
    for one in links:
        one.close()


def test_an_error_in_building_one_copy_concerns_that_copy_alone(
    rabbitmq_under_test: RabbitMQUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    rabbitmq_under_test.send(b"one", b"two", b"fine")
    transport = rabbitmq_under_test.open()
    by_body = {delivery.body: delivery for delivery in collect(transport, 3)}
    culprit = by_body[b"one"].receipt.properties  # type: ignore[attr-defined]
    real = copies.senders
    seen: list[bytes] = []

    def failing(encoded: bytes) -> Parts:
        seen.append(encoded)
        if len(seen) == 1:
            raise RecursionError("nobody thought of that")
        return real(encoded)

    monkeypatch.setattr(transport_rabbitmq, "senders", failing)
    dispositions: list[tuple[Delivery, Disposition]] = [
        (by_body[b"one"], DEAD),
        (by_body[b"two"], DEAD),
        (by_body[b"fine"], Ack()),
    ]
    transport.settle(dispositions)
    assert seen[0] == culprit
    letters = {letter.body: letter.headers for letter in rabbitmq_under_test.letters()}
    assert {body: headers[message_headers.REASON] for body, headers in letters.items()} == {
        b"one": DEAD.reason,
        b"two": DEAD.reason,
    }
    eventually(transport.idle)


def test_a_sender_cannot_have_our_copies_put_into_further_queues(rabbitmq_under_test: RabbitMQUnderTest) -> None:
    """`CC` is an order to the broker; obeyed for a retry, it would double the message with each one."""
    queue = rabbitmq_under_test.queue(PLACED)
    with rabbitmq_under_test.channel() as channel:
        properties = pika.BasicProperties(headers={"CC": ["nowhere"], "mine": "m"}, delivery_mode=2)
        channel.basic_publish("", queue, b"twice?", properties)
    transport = rabbitmq_under_test.open()
    [first] = collect(transport, 1)
    assert "CC" in first.headers
    transport.settle([(first, Retry(1.0, failure()))])
    [second] = collect(transport, 1)
    assert "CC" not in second.headers
    assert second.headers["mine"] == "m"


@pytest.mark.parametrize("body", [b"", b"one frame", b"b" * 300_000], ids=["empty", "one frame", "many frames"])
@pytest.mark.parametrize("own_way", [False, True], ids=["fast path", "pika's own"])
def test_what_pika_cannot_decode_does_not_end_the_link(
    rabbitmq_under_test: RabbitMQUnderTest, body: bytes, own_way: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if own_way:
        monkeypatch.setattr(proof._Pika, "differs", None)
        monkeypatch.setitem(pika.spec.props, pika.BasicProperties.INDEX, pika.BasicProperties)
        monkeypatch.setattr(
            pika.SelectConnection,
            "_proto_data_received",
            pika.connection.Connection._on_data_available,  # type: ignore[attr-defined]
        )
    times = b"T" + (1_790_000_000_000).to_bytes(8)
    pairs = [(b"sent-at", times), (b"deep", amqp.nested(2_000))]
    connection = amqp.RawConnection(rabbitmq_under_test.direct.rabbitmq_url or "")
    properties = amqp.properties(
        headers=amqp.table(pairs), timestamp=b"\xff" * 8, correlation_id=amqp.short(b"\xff\x00")
    )
    connection.publish([(rabbitmq_under_test.queue(PLACED), properties, body)])
    connection.close()
    rabbitmq_under_test.send(b"behind")
    transport = rabbitmq_under_test.open()
    first, second = collect(transport, 2)
    assert proof._Pika.differs == own_way
    assert (first.body, second.body) == (body, b"behind")
    assert first.headers["sent-at"] == "1790000000000"
    transport.settle([(first, DEAD), (second, Ack())])
    eventually(transport.idle)
    with rabbitmq_under_test.channel() as channel:
        assert channel.queue_declare(f"{rabbitmq_under_test.queue(PLACED)}.dlq", passive=True).method.message_count == 1
        channel.queue_purge(f"{rabbitmq_under_test.queue(PLACED)}.dlq")
