"""Addresses: what is in order passes as it is, what is not is refused by a sentence that repeats nothing of it."""

from __future__ import annotations

import contextlib
import re
import traceback
from typing import Any

import pytest
from botocore.exceptions import ClientError

from incentive_fleet.addresses import (
    AWS,
    MANAGEMENT,
    POSTGRES,
    RABBITMQ,
    AddressKind,
    check_address,
    described,
    without_logins,
)
from incentive_fleet.brokers.aws.client import SIGNATURE_CODES, available, sqs_client
from incentive_fleet.errors import BrokerUnavailable, SettingsError
from incentive_fleet.settings import ADDRESSES, ENDPOINTS_OF_BOTO3, SECRETS, Settings, variable

GOOD = [
    (POSTGRES, "postgresql://postgres@/incentives?host=/srv/shop/run"),
    (POSTGRES, "postgres://u:p%40ss@h1:5432,h2:5433/shop?target_session_attrs=read-write"),
    (POSTGRES, "postgresql://u:p?a#b@[::1]:5432/shop"),
    (POSTGRES, "postgresql:///shop?user=a@b&password=c@d"),
    (POSTGRES, "postgresql://%2Fsrv%2Frun:5433/shop?options=-c%20lock_timeout%3D7s"),
    (POSTGRES, "host=h1,h2 port=5432 dbname=shop password='a b://@'"),
    (POSTGRES, "postgresql://%2Fsrv%2F" + "run" * 30 + "/shop"),
    (POSTGRES, "postgresql://p%C3%A4ss@h\u00e4ndler.example.:5432/shop"),
    (POSTGRES, "postgresql://"),
    (RABBITMQ, "amqp://u:p@h1:5672,h2:5672/%2F"),
    (RABBITMQ, "amqps://rabbit.example?heartbeat=5"),
    (MANAGEMENT, "http://u:p@[::1]:15672/rabbit"),
    (AWS, "https://sqs.eu-central-1.amazonaws.com"),
    (AWS, "http://127.0.0.1:4566"),
]
BAD = [
    "{scheme}://u:CANARY@x@host/y",
    "{scheme}://u:x@CANARY@host/y",
    "{scheme}://u:CANARY/x@host/y",
    "{scheme}://u:x/CANARY@host/y",
    "{scheme}://u:CANARYhost/y",
    "{scheme}://u@host:CANARY/y",
    "{scheme}://u:CANARY@host:54x/y",
    "{scheme}://u:CANARY@host:0/y",
    "{scheme}://u:CANARY@host:123456789012345678901234567890/y",
    "{scheme}://u:CANARY@ho st/y",
    "{scheme}://u:CANARY@host\n/y",
    "{scheme}://u:CANARY%zz@host/y",
    "{scheme}://u:CANARY%@host/y",
    "{scheme}://u:CANARY%00@host/y",
    "{scheme}://u:CANARY%ff@host/y",
    "{scheme}://u:%C3CANARY@host/y",
    "{scheme}://u:x@" + "CANARY" * 11 + "/y",
    "{scheme}://u:CANARY@a..b/y",
    "{scheme}://u:CANARY@ho;st/y",
    "{scheme}://u:CANARY@[::1/y",
    "{scheme}:/u:CANARY@host/y",
    "{scheme}//u:CANARY@host/y",
    "{scheme}s3://u:CANARY@host/y",
    "ftp://u:CANARY@host/y",
    "CANARY",
    "u:CANARY@host:1",
]


@pytest.mark.parametrize(("kind", "address"), GOOD)
def test_what_is_in_order_is_left_alone(kind: AddressKind, address: str) -> None:
    assert check_address("X", address, kind) == address


@pytest.mark.parametrize("mistake", BAD)
@pytest.mark.parametrize("name", sorted(ADDRESSES))
def test_a_mistake_is_named_and_the_address_is_not_repeated(name: str, mistake: str) -> None:
    address = mistake.format(scheme=ADDRESSES[name].schemes[0])
    with pytest.raises(SettingsError) as caught:
        Settings.from_environment({f"INCENTIVES_{name.upper()}": address})
    assert f"{variable(name)} cannot be read: " in str(caught.value)
    assert "CANARY" not in str(caught.value)
    assert "CANARY" not in described(address)


@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL", *ENDPOINTS_OF_BOTO3])
def test_no_login_stands_in_an_endpoint_of_aws(name: str) -> None:
    """Nothing would use it, and botocore repeats the whole of an endpoint that it cannot reach."""
    with pytest.raises(SettingsError, match=f"{name} cannot be read: a user or password has no place in it") as caught:
        Settings.from_environment({name: "http://u:CANARY@127.0.0.1:1"})
    assert "CANARY" not in str(caught.value)


@pytest.mark.parametrize(
    ("address", "there"),
    [
        ("postgresql://u:CANARY@h1:1,h2:2/shop?password=CANARY", "postgresql://h1:1,h2:2/shop"),
        ("postgresql://u:CANARY@h?password=CANARY", "postgresql://h"),
        ("amqp://u:CANARY@h/%2F", "amqp://h/%2F"),
        ("host=h password=CANARY", "a connection string"),
    ],
)
def test_a_description_says_where_it_leads_and_no_more(address: str, there: str) -> None:
    assert described(address) == there


def test_a_driver_that_repeats_an_url_is_heard_without_the_login() -> None:
    said = 'Could not connect to the endpoint URL: "http://u:CANARY@host:1/x" (see https://docs.example/a@b)'
    assert without_logins(said) == (
        'Could not connect to the endpoint URL: "http://host:1/x" (see https://docs.example/a@b)'
    )


@pytest.mark.parametrize(
    "address",
    [
        "http://local_stack:4566",
        "http://h\u00e4ndler:4566",
        "http://-local:4566",
        "http://local-.stack:4566",
        "http://h1:1,h2:2",
        "http://:4566",
        "http://[fe80::1%25lo]:4566",
        "http://local:4566/?key=CANARY",
        "http://local:4566#CANARY",
        "http://" + "stack." * 43,
    ],
)
def test_an_endpoint_that_botocore_takes_no_client_for_is_refused(address: str) -> None:
    with pytest.raises(SettingsError, match="AWS_ENDPOINT_URL cannot be read: ") as caught:
        Settings.from_environment({"AWS_ENDPOINT_URL": address})
    assert "CANARY" not in str(caught.value)


@pytest.mark.parametrize("address", ["http://local-stack.:4566/x", "http://[::1]:4566", "http://" + "a" * 63 + ".b:1"])
def test_an_endpoint_that_botocore_takes_is_left_alone(address: str) -> None:
    settings = Settings.from_environment({"AWS_ENDPOINT_URL": address, "AWS_REGION": "eu-central-1"})
    assert sqs_client(settings).meta.endpoint_url == address


ASTRAY = ["amqp://u:{}@h", "postgresql://h/shop?password={}", "host=h password={}", "https://u:x,{}/y@h"]


@pytest.mark.parametrize("setting", sorted(Settings.model_fields.keys() - ADDRESSES))
@pytest.mark.parametrize("address", ASTRAY)
def test_an_address_in_the_place_of_another_setting_is_not_repeated(setting: str, address: str) -> None:
    if setting == "allowed_sources":
        return
    with pytest.raises(SettingsError) as caught:
        Settings.from_environment({"AWS_REGION": "eu-central-1"} | {variable(setting): address.format("CANARY")})
    assert str(caught.value) == f"{variable(setting)} holds an address with a login, which has no place there."


def test_most_settings_take_no_address() -> None:
    taken = set()
    for setting in Settings.model_fields.keys() - ADDRESSES:
        with contextlib.suppress(SettingsError):
            Settings.from_environment({"AWS_REGION": "eu-central-1"} | {variable(setting): ASTRAY[0]})
            taken.add(setting)
    assert taken == {"allowed_sources"}


@pytest.mark.parametrize("code", sorted(SIGNATURE_CODES))
@pytest.mark.parametrize("destination", [None, "incentives-events"])
def test_the_words_of_aws_that_repeat_a_request_are_not_repeated(code: str, destination: str | None) -> None:
    """Neither in the error nor in its traceback: they hold the session token."""
    answer: Any = {"Error": {"Code": code, "Message": "should have been 'x-amz-security-token:CANARY'"}}
    with pytest.raises((BrokerUnavailable, SettingsError)) as caught, available(destination):
        raise ClientError(answer, "Publish")
    assert f"Publish was refused ({code})" in str(caught.value)
    assert "CANARY" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("setting", ["INCENTIVES_SESSION_KEY", "INCENTIVES_OIDC_CLIENT_SECRET"])
@pytest.mark.parametrize("length", [20, 2_000])
def test_a_secret_that_is_refused_is_not_shown(setting: str, length: int) -> None:
    secret = "c4nary" * (length // 6)
    values = {setting: secret, "INCENTIVES_SERVE_PORT": "x"} if length < 32 else {setting: secret}
    with pytest.raises(SettingsError) as caught:
        Settings.from_environment(values)
    assert "c4nary" not in str(caught.value)


def test_every_secret_is_known_as_one() -> None:
    """What a log calls only "set" is not told when it is refused either."""
    assert {name for name in Settings.model_fields if re.search("secret|_key$", name)} == SECRETS
