"""What is true of the RabbitMQ adapter alone."""

from __future__ import annotations

import threading
from contextlib import closing
from typing import Any

import pytest

from incentive_fleet.brokers import message_headers, topology
from incentive_fleet.brokers.contract import Ack, DeadLetter, Release, Retry
from incentive_fleet.brokers.dead_letters import Outgoing
from incentive_fleet.brokers.publishing import Message
from incentive_fleet.brokers.rabbitmq import topology as topology_rabbitmq
from incentive_fleet.brokers.rabbitmq.confirms import Confirms, Publication
from incentive_fleet.brokers.rabbitmq.dead_letters import RabbitmqDeadLetters, RabbitmqSender
from incentive_fleet.brokers.rabbitmq.transport import RabbitmqTransport
from incentive_fleet.brokers.registry import open_events
from incentive_fleet.consumers.probes import probes_of
from incentive_fleet.errors import BrokerUnavailable
from tests.contract.stages import PLACED, RabbitmqStage, collect, eventually
from tests.contract.test_transport import bodies, failure

DEAD = DeadLetter("conflict", "other content")


def test_an_ack_from_an_old_channel_is_skipped(rabbitmq_stage: RabbitmqStage) -> None:
    """Tag 1 of the dead channel must not acknowledge tag 1 of the new one, nor close it."""
    rabbitmq_stage.send(b"one")
    transport = rabbitmq_stage.open()
    [old] = collect(transport, 1)
    rabbitmq_stage.lose(transport, [old])
    [new] = collect(transport, 1)
    transport.settle([(old, Ack())])
    assert transport.skipped == 1
    assert not transport.idle()
    transport.settle([(new, Ack())])
    eventually(transport.idle)
    assert transport.skipped == 1


def test_consumers_are_recreated_after_reconnect(rabbitmq_stage: RabbitmqStage) -> None:
    transport = rabbitmq_stage.open()
    for round_ in range(3):
        body = f"round {round_}".encode()
        rabbitmq_stage.send(body)
        for type_, _ in topology.SOURCES[1:]:
            rabbitmq_stage.send(body, type_=type_)
        deliveries = collect(transport, 3)
        assert {delivery.body for delivery in deliveries} == {body}
        transport.settle([(delivery, Ack()) for delivery in deliveries])
        eventually(transport.idle)
        rabbitmq_stage.lose(transport, deliveries)


def test_consumers_are_recreated_after_the_broker_cancels_them(rabbitmq_stage: RabbitmqStage) -> None:
    transport = rabbitmq_stage.open()
    transport.receive(1, 0.01)
    with rabbitmq_stage.channel() as channel:
        channel.queue_delete(rabbitmq_stage.queue(PLACED))
    with pytest.raises(BrokerUnavailable, match="cancelled"):
        transport.receive(1, 10)
    with pytest.raises(BrokerUnavailable, match="no queue"):
        transport.receive(1, 1)
    rabbitmq_stage.empty()  # declares it again
    rabbitmq_stage.send(b"back")

    def back() -> Any:
        try:
            return transport.receive(1, 1)
        except BrokerUnavailable:  # the pause between attempts
            return []

    [delivery] = eventually(back)
    assert delivery.body == b"back"
    transport.settle([(delivery, Ack())])


def test_a_dead_letter_is_confirmed_before_the_ack(rabbitmq_stage: RabbitmqStage) -> None:
    """Without a route for the dead letter the message stays; with one it goes, and is dead-lettered once."""
    source = rabbitmq_stage.queue(PLACED)
    exchange = topology.dead_letter_exchange(rabbitmq_stage.settings.prefix)
    rabbitmq_stage.send(b"poison", b"fine")
    transport = rabbitmq_stage.open()
    by_body = {delivery.body: delivery for delivery in collect(transport, 2)}
    with rabbitmq_stage.channel() as channel:
        channel.queue_unbind(f"{source}.dlq", exchange, source)
        with pytest.raises(BrokerUnavailable, match=source):
            transport.settle([(by_body[b"poison"], DEAD), (by_body[b"fine"], Ack())])
        channel.queue_bind(f"{source}.dlq", exchange, source)
    [again] = collect(transport, 1)
    assert again.body == b"poison"
    assert again.receive_count == 2
    transport.settle([(again, DEAD)])
    assert [letter.body for letter in rabbitmq_stage.letters()] == [b"poison"]
    eventually(transport.idle)


def test_a_message_in_the_middle_is_not_acknowledged_with_its_neighbours(rabbitmq_stage: RabbitmqStage) -> None:
    rabbitmq_stage.send(*bodies(30))
    transport = rabbitmq_stage.open()
    deliveries = collect(transport, 30)
    kept = deliveries.pop(11)
    transport.settle([(delivery, Ack()) for delivery in deliveries])
    transport.close()
    [again] = collect(rabbitmq_stage.open(), 1)
    assert again.body == kept.body


def test_what_lies_above_a_gap_is_acknowledged_in_the_end(rabbitmq_stage: RabbitmqStage) -> None:
    """While more is there, acknowledgements above one that is still held may be kept back; never when all has come."""
    rabbitmq_stage.send(*bodies(200))
    transport = rabbitmq_stage.open()
    kept, *rest = collect(transport, 100)
    eventually(lambda: transport._consuming is not None and transport._consuming.undelivered)
    transport.settle([(delivery, Ack()) for delivery in rest])
    assert transport._late
    transport.settle([(delivery, Ack()) for delivery in collect(transport, 100)])
    assert not transport._late
    transport.settle([(kept, Ack())])
    eventually(transport.idle)
    assert transport.skipped == 0


def test_the_heartbeat_is_answered_while_the_caller_is_busy(rabbitmq_stage: RabbitmqStage) -> None:
    rabbitmq_stage.send(b"slow")
    transport = rabbitmq_stage.open(rabbitmq_url=f"{rabbitmq_stage.settings.rabbitmq_url}?heartbeat=1")
    [delivery] = collect(transport, 1)
    threading.Event().wait(3.5)  # the work; RabbitMQ gives up on a peer that is silent for two heartbeats
    transport.settle([(delivery, Ack())])
    eventually(transport.idle)
    assert transport.skipped == 0


def test_any_bytes_and_the_senders_properties_survive_a_retry_and_a_dead_letter(rabbitmq_stage: RabbitmqStage) -> None:
    body = bytes(range(256))
    rabbitmq_stage.send(body)
    transport = rabbitmq_stage.open()
    [first] = collect(transport, 1)
    transport.settle([(first, Retry(1.0, failure()))])
    [second] = collect(transport, 1)
    assert (second.body, second.message_id) == (body, "m")
    assert "x-death" in second.headers  # the broker's account of the delay queue, not kept any longer
    transport.settle([(second, DEAD)])
    [letter] = rabbitmq_stage.letters()
    assert letter.body == body
    assert letter.headers[message_headers.MESSAGE_ID] == "m"
    assert "x-death" not in letter.headers
    assert message_headers.failure_in(letter.headers) == failure()


def test_what_other_processes_hold_shows_over_the_management_api(rabbitmq_stage: RabbitmqStage) -> None:
    rabbitmq_stage.send(b"held elsewhere")
    other = rabbitmq_stage.open()
    [delivery] = collect(other, 1)
    url = rabbitmq_stage.direct.rabbitmq_management_url
    watching = rabbitmq_stage.open(rabbitmq_management_url=url, prefetch=1)
    eventually(lambda: not watching.idle())  # the API's counts lag behind
    other.settle([(delivery, Ack())])
    eventually(watching.idle)


def test_the_nodes_of_a_url_are_tried_in_turn_by_every_part(rabbitmq_stage: RabbitmqStage, rabbitmq: Any) -> None:
    """The first two are away."""
    ports = rabbitmq.record.ports
    gone = "127.0.0.1:1,localhost:2"
    settings = rabbitmq_stage.direct.model_copy(
        update={
            "rabbitmq_url": f"amqp://guest:guest@{gone},127.0.0.1:{ports['amqp']}/%2F",
            "rabbitmq_management_url": f"http://guest:guest@127.0.0.1:1,127.0.0.1:{ports['management']}",
        }
    )
    probes_of(settings, ["rabbitmq"])["rabbitmq"]()
    assert topology_rabbitmq.apply(settings) == []
    assert topology_rabbitmq.check(settings).drift == ()
    with closing(open_events(settings, "rabbitmq")) as publisher:
        publisher.check()
        assert publisher.publish([Message(b"by any node", PLACED, "m")]) == []
    transport = RabbitmqTransport(settings)
    with closing(transport):
        [delivery] = collect(transport, 1)
        transport.settle([(delivery, DEAD)])
        eventually(transport.idle)
    with closing(RabbitmqDeadLetters(settings)) as letters:
        [letter] = letters.receive(1, 5)
        assert letter.body == b"by any node"
        letters.remove([letter])
    with closing(RabbitmqSender(settings)) as sender:
        assert sender.send([Outgoing(letter.source_queue, letter.body, letter.envelope, "1.1", None)]) == [""]


def test_when_no_node_can_be_used_each_is_named_with_its_reason(rabbitmq_stage: RabbitmqStage) -> None:
    transport = rabbitmq_stage.open(rabbitmq_url="amqp://guest:s3cret@127.0.0.1:1,localhost:2/")
    with pytest.raises(BrokerUnavailable, match=r"none of 2 nodes.*127\.0\.0\.1:1.*localhost:2") as caught:
        transport.receive(1, 0.1)
    assert "s3cret" not in str(caught.value)
    with pytest.raises(BrokerUnavailable, match="next attempt in"):  # the back-off comes after all of them
        transport.receive(1, 0.01)


def test_a_return_or_a_refusal_fails_its_publication_and_no_other() -> None:
    def publication(key: str) -> Publication:
        return Publication("exchange", key, None, b"")  # type: ignore[arg-type]

    confirms = Confirms(5, [publication(key) for key in "abac"])
    confirms.on_return("exchange", "b")
    confirms.on_confirm(6, multiple=True, acknowledged=True)
    confirms.on_confirm(8, multiple=False, acknowledged=False)
    assert not confirms.complete
    confirms.on_confirm(7, multiple=False, acknowledged=True)
    assert confirms.complete
    assert confirms.taken() == [True, False, True, False]


def test_many_are_released_and_acknowledged_in_turns(rabbitmq_stage: RabbitmqStage) -> None:
    rabbitmq_stage.send(*bodies(200))
    transport = rabbitmq_stage.open()
    for _ in range(3):
        deliveries = collect(transport, 200)
        outcomes = [(delivery, Release() if number % 3 else Ack()) for number, delivery in enumerate(deliveries)]
        transport.settle(outcomes)
        rest = sum(isinstance(outcome, Release) for _, outcome in outcomes)
        rabbitmq_stage.send(*bodies(200 - rest))
    transport.settle([(delivery, Ack()) for delivery in collect(transport, 200)])
    eventually(transport.idle)
    assert transport.skipped == 0
