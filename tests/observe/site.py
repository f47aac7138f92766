"""What is watched and hurt: Postgres, RabbitMQ, `consume`, `relay`, `serve` and `answer-quotes` as processes of their own, a pager,
and an operator.

The operator types what the runbooks say. Where a runbook speaks of hours, `back_dated` sets a row's time back as the owner of
the tables: the row itself came about by what the test did, and nothing else is written past the product.
"""

from __future__ import annotations

import signal
import sys
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pika
import psycopg

from incentive_fleet import names
from incentive_fleet.brokers import declare
from incentive_fleet.embedded.postgres import Postgres
from incentive_fleet.embedded.process import free_port
from incentive_fleet.embedded.rabbitmq import RabbitMQ
from incentive_fleet.events.models import QUOTE_TYPE
from tests.brokers_and_workers import Brokers, environment_of, settings_of
from tests.chaos.faults import Fleet
from tests.command import Ran, incentives
from tests.contract.brokers_under_test import eventually
from tests.dead_letter_world import order
from tests.domain import day, terms
from tests.observe import monitoring, pager
from tests.quoting import request_body

BUDGET, ONE_COUPON = 1_000, 100
TERMS = terms("coupon", "k", code="K", amount=ONE_COUPON, budget=BUDGET)
ENDED = terms("coupon", "ended", code="ENDED", amount=ONE_COUPON, budget=ONE_COUPON, ends_at=day(1))
CONNECTIONS = 100  # that the server takes
PATIENCE_S = 120
# The program, whose gauges are read again after a second: with the real bounds each act would wait for a minute.
IMPATIENT = """
import incentive_fleet.telemetry.readings as readings
import incentive_fleet.telemetry.exposition as exposition
readings.EVERY_S = exposition.EVERY_S = 1.0
for part in exposition.OF_LEDGER.values():
    part[:] = [(name, read, 1.0) for name, read, _ in part]
from incentive_fleet.cli.main import main
main()
"""
PROGRAM = (sys.executable, "-c", IMPATIENT)


@dataclass(slots=True)
class Site:
    """Everything that a test of the alerts has in hand."""

    postgres: Postgres
    url: str
    brokers: Brokers
    consume: Fleet
    relay: Fleet
    console: Fleet
    pager: pager.Pager
    prometheus: monitoring.Prometheus
    folder: Path
    _publishing: threading.Lock = field(default_factory=threading.Lock)

    def publish(self, *bodies: bytes, type_: str = "order-placed.v1") -> None:
        """From any thread: scenes of one act share the connection."""
        with self._publishing:
            self.brokers.publish("rabbitmq", bodies, type_)

    def type(self, *words: str | Path, code: int = 0) -> Ran:
        """What the operator types; it ends with that exit code."""
        ran = incentives(*words, env=environment_of(self.brokers.settings, INCENTIVES_ACTOR="ann"))
        assert ran.code == code, f"{words}: {ran.code} {ran.out} {ran.err}"
        return ran

    def ask(self, statement: str) -> Sequence[tuple[Any, ...]]:
        with psycopg.connect(self.url) as owner:
            return owner.execute(statement.encode()).fetchall()

    def until(self, statement: str) -> None:
        """Wait until a statement says yes."""
        eventually(lambda: self.ask(statement)[0][0], PATIENCE_S)

    def look(self) -> None:
        """At a page of the console, whatever it says."""
        httpx2.get(f"http://127.0.0.1:{self.console.settings.serve_port}/waiting", timeout=PATIENCE_S)

    def ask_for_a_quote(self, reply_to: str) -> None:
        """As a checkout does that does not wait for the answer."""
        exchange = names.events_exchange(self.brokers.settings.prefix)
        with self.brokers.channel() as channel:
            asks = pika.BasicProperties(reply_to=reply_to, correlation_id="1")
            channel.basic_publish(exchange, QUOTE_TYPE, request_body(), asks)

    def until_it_rings(self, act: Callable[[], None], alert: str, *words: str) -> None:
        """Somebody does it twice a second until whoever is on duty reads these words."""
        over = threading.Event()

        def again() -> None:
            while not over.wait(0.5):
                act()

        with ThreadPoolExecutor(1) as somebody:
            doing = somebody.submit(again)
            try:
                self.rings(alert, *words)
            finally:
                over.set()
        doing.result()

    def back_dated(self, table: str, column: str, hours: float, which: str) -> None:
        """As if so many hours had passed over these rows, of which there is one at least."""
        self.tampered(f"UPDATE {table} SET {column} = {column} - interval '{hours} hours' WHERE {which}")

    def tampered(self, update: str) -> None:
        """Rows that nobody may change are changed, one at least."""
        with psycopg.connect(self.url) as owner:
            owner.execute("SET session_replication_role = replica")
            assert owner.execute(update.encode()).rowcount, update

    def rings(self, alert: str, *words: str) -> None:
        """Wait until whoever is on duty reads these words of it."""
        self.pager.await_(alert, "rings", words, PATIENCE_S)

    def clears(self, alert: str) -> None:
        """Wait until the pager says that it is over."""
        self.pager.await_(alert, "clears", (), PATIENCE_S)


@contextmanager
def watched(postgres: Postgres, url: str, rabbitmq: RabbitMQ, folder: Path, files: Sequence[str]) -> Iterator[Site]:
    """Started, and scraped by a Prometheus with the rules of these files."""
    with psycopg.connect(url, autocommit=True) as owner:
        owner.execute(
            "DELETE FROM destinations WHERE destination = 'sns'"
        )  # as the runbook says of one that nobody uses
    campaigns = folder / "campaigns.toml"
    campaigns.write_text(TERMS + ENDED, encoding="utf-8")
    # Small batches and little held, so that a consumer that is stuck leaves something in the queue.
    base = settings_of(
        f"t{uuid.uuid4().hex[:8]}",
        **{"rabbitmq_url": rabbitmq.url, "aws_region": None, "database_url": url, "prefetch": 5, "batch_size": 5},
    )
    declare.apply(base)
    fleets = {
        name: Fleet(
            base.model_copy(update={"health_port": free_port(), "serve_port": free_port()}),
            folder / f"{name}.log",
            command=(*PROGRAM, *words),
        )
        for name, words in {
            "consume": ("consume", "--from", "rabbitmq", "--processes", "2"),
            "relay": ("relay",),
            "console": ("serve",),
            "quotes": ("answer-quotes", "--from", "rabbitmq"),
        }.items()
    }
    targets = {name: fleet.settings.health_port or 0 for name, fleet in fleets.items()}
    brokers = Brokers(base)
    with (
        pager.listening() as heard,
        monitoring.watching(folder / "monitoring", targets, heard.port, files) as prometheus,
    ):
        roles = fleets["consume"], fleets["relay"], fleets["console"]
        site = Site(postgres, url, brokers, *roles, heard, prometheus, folder)
        site.type("campaigns", "load", campaigns)
        try:
            for fleet in fleets.values():
                fleet.start()
            eventually(lambda: prometheus.up() == len(targets), PATIENCE_S)
            site.publish(order("first", coupons=[]))
            site.until("SELECT count(*) = 1 FROM decisions WHERE order_id = 'o-first'")  # the workers are at work
            yield site
        finally:
            for fleet in fleets.values():
                if fleet.process is not None and fleet.process.poll() is None:
                    fleet.process.send_signal(signal.SIGTERM)
                    fleet.process.wait(PATIENCE_S)
            brokers.close()
