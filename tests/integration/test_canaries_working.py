"""No secret is in what commands that work print and log, nor in what is kept of dead letters."""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from incentive_fleet.embedded.aws import CREDENTIALS
from incentive_fleet.embedded.rabbitmq import RabbitMQ
from incentive_fleet.settings import Settings
from tests.brokers_and_workers import SOURCES, Brokers, environment_of, settings_of
from tests.canaries import CANARY, IN_URL, KEYS, SECRET, traces
from tests.command import incentives
from tests.dead_letter_world import LetterDatabase, order
from tests.every_command import calls, shown_by
from tests.parts import LocalStack
from tests.rabbitmq_logins import ALL, make_login


@dataclass(frozen=True)
class Shop:
    """Parts that take logins with secrets, and an event that a bug of the database's makes a dead letter."""

    database: LetterDatabase
    settings: Settings
    environment: dict[str, str]


@pytest.fixture
def shop(database_url: str, rabbitmq: RabbitMQ, localstack: LocalStack, monkeypatch: pytest.MonkeyPatch) -> Shop:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    prefix = f"c{uuid.uuid4().hex[:8]}"
    amqp, api = make_login(rabbitmq, prefix, SECRET, ALL, tags="monitoring")
    settings = settings_of(
        prefix,
        database_url=f"{database_url}&password={IN_URL}",
        rabbitmq_url=amqp,
        rabbitmq_management_url=api,
        aws_endpoint_url=localstack.endpoint_url,
        retry_delays_s=(0.1,),
    )
    environment = environment_of(settings) | KEYS
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    brokers = Brokers(settings)
    brokers.apply()
    database = LetterDatabase.loaded(database_url)
    with psycopg.connect(database_url, autocommit=True) as owner:
        owner.execute("ALTER TABLE facts ADD CONSTRAINT a_bug CHECK (order_id <> 'o-2')")
    for source in SOURCES:
        brokers.publish(source, [order(1), order(2), order(3, currency="XXX")])
    brokers.close()
    return Shop(database, settings, environment)


def stored(shop: Shop) -> str:
    """All that is kept of dead letters."""
    tables = ("dead_letters", "dead_letter_acts", "message_attempts")
    with psycopg.connect(shop.database.url) as owner:
        there = [name for name in tables if owner.execute("SELECT to_regclass(%s)", (name,)).fetchone() != (None,)]
        rows = [owner.execute(f"SELECT t::text FROM {name} AS t").fetchall() for name in there]
    assert rows[0]
    return str(rows)


def test_what_works_shows_no_secret_and_stores_none(
    shop: Shop, folder: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    for words in (
        ("consume", "--from", "all", "--until-idle", "1", "--no-collect"),
        ("dlq", "collect", "--until-idle", "0.3"),
        ("relay", "--until-idle", "0.3"),
    ):
        ran = incentives(*words, "--format", "json", env=shop.environment)
        assert ran.code == 0, ran.err
        assert not traces(ran.out + ran.err), words
    letters = {letter.reason: letter for letter in shop.database.letters()}
    assert set(letters) == {"unexpected-error", "unknown-currency"}
    assert "Traceback" in str(letters["unexpected-error"].failure)
    assert not traces(stored(shop))
    for form in ("text", "json"):
        for path, words_of_it in calls(form, folder):
            shown, _ = shown_by(words_of_it, capfd, caplog)
            assert not traces(shown), path
    for number in (letter.id for letter in letters.values()):
        for more in (["show", str(number), "--effect"], ["replay", str(number), "--dry-run"], ["history", str(number)]):
            shown, _ = shown_by(["dlq", *more], capfd, caplog)
            assert shown
            assert not traces(shown), more


def test_what_the_database_refuses_shows_no_secret(
    shop: Shop, folder: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with psycopg.connect(shop.database.url, autocommit=True) as owner:
        owner.execute("REVOKE ALL ON ALL TABLES IN SCHEMA public FROM incentives_app")
    ended_with = set()
    for path, words in calls("text", folder):
        shown, ended = shown_by(words, capfd, caplog)
        assert not traces(shown), path
        ended_with.add(type(ended).__name__)
    assert "DatabaseUnfit" in ended_with


def test_the_environment_of_the_suite_holds_no_canary() -> None:
    """What these tests set, they take back."""
    held = dict(os.environ)
    assert not [name for name, value in held.items() if CANARY in value]
    assert set(CREDENTIALS) <= set(held)
