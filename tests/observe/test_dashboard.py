"""Every expression of the dashboard and of the page of objectives, asked of a real Prometheus that scrapes a real fleet."""

from __future__ import annotations

import signal
import urllib.request
import uuid
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pika
import psycopg
import pytest
import yaml

from incentive_fleet import names
from incentive_fleet.brokers import declare
from incentive_fleet.embedded import sample_shop
from incentive_fleet.embedded.process import free_port
from incentive_fleet.events.codec import encode_event
from incentive_fleet.events.models import QUOTE_TYPE, EventData
from incentive_fleet.ledger.grants import Grant, grant
from incentive_fleet.ledger.session import Session
from incentive_fleet.settings import Settings
from tests.brokers_and_workers import Brokers, environment_of, settings_of
from tests.chaos.faults import Fleet
from tests.command import incentives
from tests.contract.brokers_under_test import eventually
from tests.domain import asked, back, line, placed, refunded
from tests.grafana import dashboard
from tests.integration.test_logs import POISON
from tests.observe.monitoring import Prometheus, server
from tests.observe.site import PROGRAM
from tests.quoting import request_body
from tests.shop import NOON, open_shop
from tests.unit.test_alerts import FILES, MONITORING, SAID_ON_PAGES

SHOP = sample_shop.Shop(40, seed=7, refunds=0.5)
BUDGET = """
[[campaign]]
id = "bounded"
kind = "coupon"
code = "BOUNDED"
currency = "EUR"
starts_at = 2026-01-01T00:00:00Z
ends_at = 2027-01-01T00:00:00Z
amount = 100
budget = 100000
stacking = "stackable"
"""
# What this fleet has not: SQS with CloudWatch, a standby, a deadlock, a customer who owes.
NOT_HERE: Final = {
    "incentives_queue_oldest_seconds",
    "incentives_database_standbys",
    "incentives_database_replay_lag_seconds",
    "incentives_database_replay_age_seconds",
    "incentives_transaction_retries_total",
}
PATIENCE_S = 120


@contextmanager
def scraping(folder: Path, ports: Iterable[int]) -> Iterator[Prometheus]:
    """One with the rules as they are deployed."""
    folder.mkdir()
    targets = [f"127.0.0.1:{port}" for port in ports]
    document = {
        "global": {"scrape_interval": "2s", "scrape_timeout": "2s", "evaluation_interval": "2s"},
        "rule_files": [str(MONITORING / f"{file}.yml") for file in FILES],
        "scrape_configs": [{"job_name": "incentives", "static_configs": [{"targets": targets}]}],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(document), encoding="utf-8")
    options = (f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/series", "--log.level=warn")
    with server(folder, port := free_port(), "prometheus", *options):
        yield Prometheus(port)


def body(id: str, data: EventData, source: str = "/shop") -> bytes:
    return encode_event(source, id, data, NOON)


def bodies() -> list[bytes]:
    """A shop's day, and all that may go otherwise: duplicates, a refusal, an anomaly, what waits, a grant, a bug, garbage."""
    day = [one for _, one in sample_shop.events(SHOP)]
    big = placed("o-big", line("a", unit_price=5_000), coupons=("BOUNDED", "NO-SUCH-CODE"))
    twice = [refunded(f"r-{number}", back(amount=4_000), order="o-big") for number in (1, 2)]
    of_ours = [body("big", big), *(body(one.refund_id, one, "/returns") for one in twice)]
    of_ours += [
        body("early", refunded("r-early", order="o-never")),
        body("asked", asked("asked-1", 500, campaign="hello")),
    ]
    of_ours += [body(f"x{number}", placed(f"o-x{number}"), "/poison") for number in (1, 2)]
    return [*day, *day[:20], *of_ours, b"no event"]


@pytest.fixture
def settings(database_url: str, rabbitmq: Any) -> Settings:
    """A shop with a budget, a database that refuses one source's events, and no SNS to publish to."""
    open_shop(database_url, SHOP, sample_shop.CAMPAIGNS + BUDGET)
    with closing(Session(database_url)) as session:
        grant(session, [Grant("short", "ann", "EUR", 700, "hello", expires_at=NOON + timedelta(days=1))], NOON)
    with psycopg.connect(database_url, autocommit=True) as owner:
        owner.execute(POISON)
        owner.execute("DELETE FROM destinations WHERE destination = 'sns'")
    values = {"rabbitmq_url": rabbitmq.url, "aws_region": None, "database_url": database_url}
    settings = settings_of(f"t{uuid.uuid4().hex[:8]}", **values)
    declare.apply(settings)
    return settings


@contextmanager
def serving(settings: Settings, folder: Path) -> Iterator[dict[str, Fleet]]:
    """All that runs until it is told to stop, each with a page of its own."""
    words = {
        "consume": ("consume", "--from", "rabbitmq", "--processes", "2"),
        "answer": ("answer-quotes", "--from", "rabbitmq"),
        "relay": ("relay",),
        "serve": ("serve",),
    }
    fleets = {}
    for name, command in words.items():
        ports = {"health_port": free_port(), "serve_port": free_port()}
        fleets[name] = Fleet(settings.model_copy(update=ports), folder / name, command=(*PROGRAM, *command))
    try:
        for fleet in fleets.values():
            fleet.start()
        yield fleets
    finally:
        for fleet in fleets.values():
            if fleet.process is not None and fleet.process.poll() is None:
                fleet.process.send_signal(signal.SIGTERM)
                fleet.process.wait(PATIENCE_S)


def lose_connections(url: str) -> None:
    """The database ends the sessions of every consumer, as it does when it is restarted."""
    with psycopg.connect(url, autocommit=True) as owner:
        owner.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'incentives consume%'"
        )


def ask_for_a_quote(brokers: Brokers) -> None:
    """As a checkout does, and wait for the answer."""
    with brokers.channel() as channel:
        own = channel.queue_declare("", exclusive=True).method.queue
        asks = pika.BasicProperties(reply_to=own, correlation_id="1", delivery_mode=2)
        exchange = names.events_exchange(brokers.settings.prefix)
        channel.basic_publish(exchange, QUOTE_TYPE, request_body(), asks, mandatory=True)
        eventually(lambda: channel.basic_get(own, auto_ack=True)[0] is not None, PATIENCE_S)


def look_at_a_page(port: int) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as answer:
        assert answer.status == 200


def run_jobs(settings: Settings) -> None:
    for words in (("expire", "--as-of", "2026-06-01T00:00:00Z"), ("ledger", "verify")):
        assert incentives(*words, env=environment_of(settings)).code == 0, words


@pytest.mark.observe
@pytest.mark.timeout(400)
def test_every_panel_and_objective_has_an_answer(settings: Settings, tmp_path: Path) -> None:
    expressions = [target["expr"] for panel in dashboard.dashboard()["panels"] for target in panel.get("targets", ())]
    brokers = Brokers(settings)
    with closing(brokers), serving(settings, tmp_path) as fleets:
        ports = [fleet.settings.health_port or 0 for fleet in fleets.values()]
        with scraping(tmp_path / "prometheus", ports) as prometheus:
            eventually(lambda: prometheus.values("sum(up)") == [float(len(fleets))], PATIENCE_S)
            brokers.publish("rabbitmq", bodies()[:30])
            eventually(lambda: sum(prometheus.values("incentives_events_total")) >= 30, PATIENCE_S)
            lose_connections(settings.need_database_url())
            brokers.publish("rabbitmq", bodies())
            ask_for_a_quote(brokers)
            look_at_a_page(fleets["serve"].settings.serve_port)
            run_jobs(settings)
            # Two poisoned and one malformed are dead in the end, and until then lie in the queues of retries.
            eventually(
                lambda: prometheus.values("sum(max by (cause) (incentives_open_dead_letters))") >= [3.0], PATIENCE_S
            )
            empty = set(expressions)

            def answered() -> bool:
                """Each has been, at one time or another: what waits for a retry waits for a second."""
                asked = {one: one.replace("$__rate_interval", "1m") for one in empty}
                empty.difference_update([one for one in empty if prometheus.values(asked[one])])
                return not {one for one in empty if not dashboard.metrics_of(one) <= NOT_HERE}

            eventually(answered, PATIENCE_S)
            assert {name for one in empty for name in dashboard.metrics_of(one)} <= NOT_HERE
            for expression in SAID_ON_PAGES:
                assert prometheus.values(expression), expression
            nothing_is_renamed_and_no_rule_fails(prometheus)
        assert {fleet.end(signal.SIGTERM) for fleet in fleets.values()} == {0}


def nothing_is_renamed_and_no_rule_fails(prometheus: Prometheus) -> None:
    """A label that Prometheus keeps for itself would come out as exported_..., and no expression of ours would find it."""
    assert [label for label in prometheus.ask("labels") if label.startswith("exported_")] == []
    rules = [rule for group in prometheus.ask("rules")["groups"] for rule in group["rules"]]
    assert {rule["health"] for rule in rules} == {"ok"}, [rule for rule in rules if rule["health"] != "ok"]
