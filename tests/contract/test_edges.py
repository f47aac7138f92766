"""Drivers' errors at the edge, and headers that somebody else wrote."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import (
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    NoCredentialsError,
    ParamValidationError,
    ReadTimeoutError,
)

from incentive_fleet.brokers import message_headers
from incentive_fleet.brokers.aws.client import available
from incentive_fleet.brokers.aws.transport import SqsTransport
from incentive_fleet.brokers.rabbitmq.transport import RabbitMQTransport
from incentive_fleet.errors import BrokerUnavailable, SettingsError
from incentive_fleet.settings import Settings
from tests.contract.test_transport import failure


def client_error(code: str, status: int) -> ClientError:
    response: Any = {"Error": {"Code": code, "Message": "m"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(response, "ReceiveMessage")


@pytest.mark.parametrize(
    "error",
    [
        EndpointConnectionError(endpoint_url="http://nowhere"),
        ConnectTimeoutError(endpoint_url="http://nowhere"),
        ReadTimeoutError(endpoint_url="http://nowhere"),
        NoCredentialsError(),
        client_error("ThrottlingException", 400),
        client_error("ExpiredToken", 403),
        client_error("InternalError", 500),
        client_error("AWS.SimpleQueueService.NonExistentQueue", 400),
    ],
    ids=lambda error: type(error).__name__,
)
def test_every_refusal_of_the_service_is_the_brokers_absence(error: Exception) -> None:
    with pytest.raises(BrokerUnavailable), available():
        raise error


def test_a_call_of_ours_that_is_wrong_stays_a_bug() -> None:
    with pytest.raises(ParamValidationError), available():
        raise ParamValidationError(report="Id is missing")


def test_a_missing_or_wrong_address_is_a_settings_error() -> None:
    with pytest.raises(SettingsError, match="AWS_REGION"):
        SqsTransport(Settings())
    with pytest.raises(SettingsError, match="INCENTIVES_RABBITMQ_URL"):
        RabbitMQTransport(Settings())
    with pytest.raises(SettingsError, match="INCENTIVES_RABBITMQ_URL"):
        RabbitMQTransport(Settings(rabbitmq_url="amqp://host:port/"))


def test_a_failure_survives_its_header_and_long_parts_are_shortened() -> None:
    assert message_headers.failure_in({message_headers.FAILURE: message_headers.of_failure(failure(3))}) == failure(3)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", '{"attempts": "many"}', '{"attempts": null}'])
def test_a_failure_header_that_we_did_not_write_is_no_failure(text: str) -> None:
    assert message_headers.failure_in({message_headers.FAILURE: text}) is None
