"""The registry knows each broker by every word that others have for it, and costs the command line no driver."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import get_type_hints

import pytest

from incentive_fleet.brokers import registry
from incentive_fleet.brokers.aws import AWS
from incentive_fleet.brokers.contract import Broker
from incentive_fleet.brokers.rabbitmq import RABBITMQ
from incentive_fleet.errors import SettingsError
from incentive_fleet.settings import Settings


def test_the_words_of_the_brokers() -> None:
    words = [(one.name, one.source, one.destination, one.variable) for one in registry.BROKERS]
    assert words == [
        ("aws", "sqs", "sns", "AWS_REGION"),
        ("rabbitmq", "rabbitmq", "rabbitmq", "INCENTIVES_RABBITMQ_URL"),
    ]
    assert registry.none_configured("nothing to do") == (
        "Neither AWS_REGION nor INCENTIVES_RABBITMQ_URL is set: nothing to do."
    )


def test_the_page_on_brokers_has_their_words() -> None:
    page = (Path(__file__).parents[2] / "docs" / "adding-a-broker.md").read_text(encoding="utf-8")
    told = re.findall(r"^\| `([a-z]+)` \| `([a-z]+)` \| `([a-z]+)` \| `([A-Z_]+)` \|$", page, re.MULTILINE)
    assert told == [(one.name, one.source, one.destination, one.variable) for one in registry.BROKERS]


@pytest.mark.parametrize("broker", registry.BROKERS, ids=lambda broker: broker.name)
def test_every_broker_is_found_by_its_words(broker: Broker) -> None:
    assert registry.by_source(broker.source) is broker
    assert registry.by_destination(broker.destination) is broker
    assert broker.setting in get_type_hints(Settings)
    assert not broker.is_configured(Settings())
    with pytest.raises(SettingsError, match=f"^{broker.variable} is not set"):
        registry.parts_of(broker).read_settings(Settings())


def test_an_unknown_word_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(SettingsError, match=r"^There is no broker 'sns', but sqs and rabbitmq\.$"):
        registry.by_source("sns")
    with pytest.raises(SettingsError, match=r"^There is no broker 'sqs', but sns and rabbitmq\.$"):
        registry.by_destination("sqs")


def test_only_the_settings_say_which_broker_there_is() -> None:
    assert registry.configured(Settings()) == []
    assert registry.configured(Settings(rabbitmq_url="amqp://h")) == [RABBITMQ]
    assert registry.configured(Settings(rabbitmq_url="amqp://h", aws_region="eu-central-1")) == [AWS, RABBITMQ]


def test_queue_names_are_of_every_broker() -> None:
    names = registry.queue_names(Settings(prefix="shop"))
    assert {"shop-order-placed-dlq", "shop.order-placed.dlq"} <= names
    assert len(names) == 28
    every = registry.every_queue(Settings(prefix="shop"))
    assert names < every
    assert "shop.order-placed.retry-4" in every
    assert not any(name.startswith("shop.quote-requested.retry") for name in every)


def test_the_words_cost_no_driver() -> None:
    """The command line needs them for its options, and answers --help at once."""
    script = "import json, sys, incentive_fleet.brokers.registry; print(json.dumps(sorted(sys.modules)))"
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in json.loads(answer.stdout)}
    assert not loaded & {"boto3", "botocore", "pika", "kombu", "amqp", "pydantic", "psycopg"}
