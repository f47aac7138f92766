"""RabbitMQ's URLs: several nodes, and mistakes that are told without the password; what counts as a delivery."""

from __future__ import annotations

import ssl
from struct import pack
from typing import Any

import pika
import pytest

from incentive_fleet.addresses import Node
from incentive_fleet.brokers.rabbitmq import address
from incentive_fleet.brokers.rabbitmq.address import AMQP, MANAGEMENT, read_amqp
from incentive_fleet.brokers.rabbitmq.client import HEARTBEAT_S, NODE_S, parameters
from incentive_fleet.brokers.rabbitmq.management import Management
from incentive_fleet.brokers.rabbitmq.notes import DELIVERIES_MOST, delivered_before
from incentive_fleet.brokers.rabbitmq.publisher import RabbitMQPublisher
from incentive_fleet.errors import SettingsError
from incentive_fleet.settings import Settings
from tests.amqp import long


@pytest.mark.parametrize(
    ("url", "nodes", "login", "vhost"),
    [
        ("amqp://h", [Node("h", 5672)], ("", ""), "/"),
        ("amqps://h/", [Node("h", 5671)], ("", ""), "/"),
        ("AMQP://u:p@h1:1,h2:2/v", [Node("h1", 1), Node("h2", 2)], ("u", "p"), "v"),
        ("amqps://u:p@h1,h2:7,h3/%2F", [Node("h1", 5671), Node("h2", 7), Node("h3", 5671)], ("u", "p"), "/"),
        ("amqp://u:p@[::1]:9,[fe80::2],h/a%2Fb", [Node("::1", 9), Node("fe80::2", 5672), Node("h", 5672)], ("u", "p"), "a/b"),
        ("amqp://u:a,b%40%2F%3A@h1,h2/v?heartbeat=5", [Node("h1", 5672), Node("h2", 5672)], ("u", "a,b@/:"), "v"),
        ("amqp://h/" + "v" * 255, [Node("h", 5672)], ("", ""), "v" * 255),
    ],
)  # fmt: skip
def test_each_node_of_a_url_is_read(url: str, nodes: list[Node], login: tuple[str, str], vhost: str) -> None:
    found = read_amqp(url)
    assert list(found.nodes) == nodes
    assert (found.user, found.password, found.virtual_host) == (*login, vhost)
    assert "a,b@" not in repr(found)
    for node, one in zip(nodes, parameters(Settings(rabbitmq_url=url)), strict=True):
        assert (one.host, one.port, one.virtual_host) == (node.host, node.port, vhost)
        credentials = one.credentials
        assert isinstance(credentials, pika.PlainCredentials)
        assert (credentials.username, credentials.password) == (login if login[0] else ("guest", "guest"))


def test_query_parameters_hold_for_every_node_and_silence_is_found_soon() -> None:
    own = parameters(Settings(rabbitmq_url="amqp://h1,h2/?heartbeat=3&socket_timeout=1.5"))
    assert [(one.heartbeat, one.socket_timeout, one.stack_timeout) for one in own] == [(3, 1.5, NODE_S)] * 2
    [alone] = parameters(Settings(rabbitmq_url="amqp://h1"))
    assert alone.heartbeat == HEARTBEAT_S
    assert (alone.socket_timeout or 0) > NODE_S, "there is no other node to try instead"


SECRET = "s3cret"


@pytest.mark.parametrize(
    ("url", "what"),
    [
        (f"amqp://u:{SECRET}@h:port/", "port of host 1"),
        (f"amqp://u:{SECRET}@h1,h2:70000/", "port of host 2"),
        (f"amqp://u:{SECRET}@h1:0/", "port of host 1"),
        (f"amqp://u:{SECRET}@h1,,h3/", "host 2 is empty"),
        (f"amqp://u:{SECRET}@/", "host 1 is empty"),
        (f"amqp://u:{SECRET}@::1/", "several colons"),
        (f"amqp://u:{SECRET}@[::g]/", "brackets"),
        (f"amqp://u:{SECRET}@[::1]5672/", "brackets"),
        (f"amqp://u:{SECRET}/x@h/", "%2F"),
        (f"amqp://u:1/{SECRET}@h/", "%2F"),
        (f"amqp://u:1?{SECRET}@h/", "%2F"),
        (f"amqp://u:1#{SECRET}@h/", "%2F"),
        (f"amqp://u:{SECRET}#@h/", "%2F"),
        (f"amqp://u:{SECRET}", "port of host 1"),
        (f"amqp://{SECRET}@h/", "user:password"),
        (f"amqp://@{SECRET}?/@", "%2F"),
        (f"{SECRET}", "begin with amqp://"),
        (f"http://u:{SECRET}@h/", "begin with amqp://"),
        (f"amqp:/u:{SECRET}@h/", "begin with amqp://"),
        (f"amqp://u:{SECRET} x@h/", "a space"),
        (f"amqp://u:{SECRET}\n@h/", "a space"),
        (f"amqp://u:{SECRET}@b:c@h/", "%40"),
        (f"amqp://u:{SECRET}@h_!/", "host 1"),
        (f"amqp://u:{SECRET}@{','.join('h' * 17)}/", "16 hosts"),
        (f"amqp://u:{SECRET}@h/?heartbeat={SECRET}", "'heartbeat'"),
        (f"amqp://u:{SECRET}@h/?heartbeat=65536", "'heartbeat'"),
        (f"amqp://u:{SECRET}@h/?locale={SECRET * 50}", "'locale'"),
        (f"amqp://u:{SECRET}@h/{'v' * 256}", "virtual host is longer than 255 bytes"),
        (f"amqp://u:{SECRET}@h/{'%C3%A9' * 128}", "virtual host is longer than 255 bytes"),
        (f"amqp://u:{SECRET}@h/?hartbeat=1", "'hartbeat'"),
        (f"amqp://u:{SECRET}@h/?heartbeat=1&heartbeat=2", "more than once"),
        (f"amqps://u:{SECRET}@h/?ssl_options={{'ca_certs': '/{SECRET}'}}".replace(" ", ""), "'ssl_options'"),
        (f"amqps://u:{SECRET}@h/?ssl_options={{{SECRET}", "'ssl_options'"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_sentence_with_the_setting_and_without_the_password(url: str, what: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parameters(Settings(rabbitmq_url=url))
    sentence = str(caught.value)
    assert sentence.startswith(AMQP)
    assert what in sentence
    assert SECRET not in sentence
    assert "\n" not in sentence
    if "query" not in sentence and "ssl_options" not in sentence:  # what only pika knows is told when it is asked
        with pytest.raises(SettingsError) as judged:
            Settings.from_environment({AMQP: url})
        assert str(judged.value) == sentence


@pytest.mark.parametrize(
    ("url", "what"),
    [
        (f"https://u:{SECRET}@h:x", "port of host 1"),
        (f"amqp://u:{SECRET}@h", "http:// or https://"),
        (f"http://u:{SECRET}/@h", "%2F"),
    ],
)
def test_a_mistake_in_the_management_url_is_told_alike(url: str, what: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Management(Settings(rabbitmq_url="amqp://h", rabbitmq_management_url=url))
    assert str(caught.value).startswith(MANAGEMENT)
    assert what in str(caught.value)
    assert SECRET not in str(caught.value)


def test_the_management_url_names_several_nodes_and_borrows_the_login() -> None:
    found = address.management(Settings(rabbitmq_management_url="https://h1:15671,[::1]:15672,h3/api-of/"))
    assert found is not None
    assert found.nodes == (Node("h1", 15671), Node("::1", 15672), Node("h3", 443))
    assert found.urls()[1] == "https://[::1]:15672/api-of/"


def test_kombu_gets_the_tls_options_of_the_url_or_says_what_it_cannot_take() -> None:
    publisher: Any = RabbitMQPublisher("amqps://h/?ssl_options={'cafile':'/ca','certfile':'/c'}", "e")
    assert publisher._tls.for_kombu("h") == {
        "server_hostname": "h",
        "cert_reqs": ssl.CERT_REQUIRED,
        "ca_certs": "/ca",
        "certfile": "/c",
    }
    with pytest.raises(SettingsError, match="ssl_options beyond") as caught:
        RabbitMQPublisher(f"amqps://h/?ssl_options={{'password':'{SECRET}'}}", "e")
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("headers", "count"),
    [
        ({}, 0),
        ({"x-delivery-count": b"l" + pack(">q", 3)}, 3),
        ({"x-acquired-count": b"B\x02"}, 2),  # all that RabbitMQ 4.3 raises for a nack that requeues
        ({"x-delivery-count": b"b\x01", "x-acquired-count": b"I" + pack(">i", 4)}, 4),
        ({"x-delivery-count": b"s" + pack(">h", 5), "x-acquired-count": b"b\x04"}, 5),
        ({"x-delivery-count": b"b\xff", "x-acquired-count": long("S", b"many")}, 0),
        ({"x-delivery-count": b"t\x01", "x-acquired-count": b"d" + pack(">d", 1.5)}, 0),
        ({"x-delivery-count": b"l" + pack(">q", 2**62), "x-acquired-count": long("A", b"b\x01")}, 0),
        ({"x-delivery-count": b"l" + pack(">q", DELIVERIES_MOST), "x-acquired-count": b"V"}, DELIVERIES_MOST),
    ],
)
def test_a_deliverys_count_is_the_larger_of_what_the_broker_says(headers: dict[str, bytes], count: int) -> None:
    assert delivered_before({name.encode(): value for name, value in headers.items()}) == count
