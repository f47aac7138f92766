"""Postgres addresses: what their options ask for, and which are refused before libpq repeats them."""

from __future__ import annotations

import traceback

import psycopg
import pytest

from incentive_fleet.errors import SettingsError
from incentive_fleet.ledger.address import each_host, parameters_of, settings_in, without_settings, without_values
from incentive_fleet.ledger.connection import open_connection


@pytest.mark.parametrize(
    ("options", "settings", "rest"),
    [
        ("", {}, ""),
        ("-c lock_timeout=7s", {"lock_timeout": "7s"}, ""),
        ("-clock_timeout=7s --statement-timeout=5min", {"lock_timeout": "7s", "statement_timeout": "5min"}, ""),
        ("-c Work_Mem=1MB -c work_mem=2MB", {"work_mem": "2MB"}, ""),
        (r"-c search_path=a,\ b", {"search_path": "a, b"}, ""),
        (r"--my.tag=a\\b=c", {"my.tag": r"a\b=c"}, ""),
        ("endpoint=ep-quiet-7 -c jit=off", {"jit": "off"}, "endpoint=ep-quiet-7"),
        ("project=x", {}, "project=x"),
    ],
)
def test_options_are_read_as_a_server_reads_them(options: str, settings: dict[str, str], rest: str) -> None:
    assert settings_in(options) == settings
    assert without_settings(options) == rest


def test_pgoptions_count_where_the_address_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGOPTIONS", "-c lock_timeout=7s")
    assert parameters_of("postgresql://h/d")["options"] == "-c lock_timeout=7s"
    assert parameters_of("postgresql://h/d?options=-c%20jit%3Doff")["options"] == "-c jit=off"


def test_several_hosts_stay_as_they_are() -> None:
    found = parameters_of("postgresql://u:p@h1:1,h2:2/d?target_session_attrs=read-write")
    assert (found["host"], found["port"], found["target_session_attrs"]) == ("h1,h2", "1,2", "read-write")


@pytest.mark.parametrize(
    ("url", "hosts"),
    [
        ("postgresql://u:p@h1:1,h2:2/d?target_session_attrs=read-write", [("h1", "1"), ("h2", "2")]),
        ("postgresql://u:p@h1,h2:2/d", [("h1", ""), ("h2", "2")]),
        ("host=h1,h2 port=7", [("h1", "7"), ("h2", "7")]),
        ("host=/a,/b", [("/a", None), ("/b", None)]),
        ("postgresql://u:p@h/d", [("h", None)]),
        ("dbname=d", [(None, None)]),
    ],
)
def test_each_host_has_an_address_of_its_own_whether_it_leads_or_not(
    url: str, hosts: list[tuple[str | None, str | None]]
) -> None:
    each = each_host(parameters_of(url))
    assert [(one.get("host"), one.get("port")) for one in each] == hosts
    assert {one["target_session_attrs"] for one in each} == {"any"}


def test_each_of_several_addresses_keeps_its_name() -> None:
    each = each_host(parameters_of("host=h1,h2 hostaddr=10.0.0.1,10.0.0.2 sslmode=verify-full"))
    assert [(one["host"], one["hostaddr"], one["sslmode"]) for one in each] == [
        ("h1", "10.0.0.1", "verify-full"),
        ("h2", "10.0.0.2", "verify-full"),
    ]


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:CANARY@h/d?pasword=CANARY",
        "postgresql://u:CANARY@h/d?CANARY",
        "host=h pasword=CANARY",
        "host=h password=CAN ARY=CANARY",
        "host=h password='CANARY",
        "postgresql:u:CANARY@h/d?x=y",
        "host=h1,h2 port=1,2,3 password=CANARY",
        "postgresql://u:CANARY@h1:1,h2:2/d?host=h3",
        "host=h port=CANARY",
        "postgresql://h/d?password=x&port=CANARY",
        "host=h1,h2 port=5432,CANARY",
        "host=h port=0",
        "host=h connect_timeout=CANARY",
        "postgresql://h/d?tcp_user_timeout=CANARY",
        "host=" + "CANARY" * 11,
        "host=h..CANARY",
        "postgresql://h/d?password=%ffCANARY",
    ],
)
def test_what_libpq_cannot_read_is_not_repeated(url: str) -> None:
    with pytest.raises(SettingsError, match="INCENTIVES_DATABASE_URL cannot be read: ") as caught:
        parameters_of(url)
    assert "CANARY" not in str(caught.value)


@pytest.mark.parametrize(
    "option", ["sslmode", "channel_binding", "target_session_attrs", "ssl_min_protocol_version", "service"]
)
def test_a_value_that_libpq_refuses_is_not_repeated(option: str) -> None:
    """It says so only when it connects, and whoever mistook one option for another may have put a password there."""
    parameters = parameters_of(f"host=127.0.0.1 port=1 {option}=CANARY")
    with pytest.raises(psycopg.OperationalError) as caught:
        open_connection(parameters, "incentives test")
    assert '"..."' in str(caught.value)
    assert "CANARY" not in "".join(traceback.format_exception(caught.value))


def test_where_an_address_leads_is_still_told() -> None:
    told = without_values('server at "h1", port 1: invalid sslmode value: "no"', {"host": "h1", "sslmode": "no"})
    assert told == 'server at "h1", port 1: invalid sslmode value: "..."'
