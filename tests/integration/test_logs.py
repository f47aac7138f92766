"""The log of a fleet that meets 500 culprits, and its Sentry: each dead letter once, its traceback once, and nothing that an event
holds.
"""

from __future__ import annotations

import json
import signal
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from incentive_fleet.brokers import declare
from incentive_fleet.embedded import sample_shop
from tests.brokers_and_workers import Brokers, log_of, said, settings_of, start
from tests.chaos.faults import CONSUME, Fleet
from tests.contract.brokers_under_test import eventually
from tests.sentry_ingest import Ingest, ingest
from tests.shop import open_shop

SHOP = sample_shop.Shop(20, seed=5)
CULPRITS = 500
PERSONAL = "canary-of-ann"
FROM_RABBITMQ = [*CONSUME[: CONSUME.index("all")], "rabbitmq", "--processes", "1"]
# An error of the database whose words and detail repeat the row, as Postgres' own do.
POISON = """
    CREATE FUNCTION poison() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF NEW.source = '/poison' THEN
            RAISE EXCEPTION 'row % is out of range', NEW.data USING ERRCODE = '22003', DETAIL = NEW.data::text;
        END IF;
        RETURN NEW;
    END $$;
    CREATE TRIGGER poison BEFORE INSERT ON facts FOR EACH ROW EXECUTE FUNCTION poison();
"""


def culprits() -> list[bytes]:
    """Placings of one customer that no ledger takes, and one that is malformed."""
    placing = next(json.loads(body) for type_, body in sample_shop.events(SHOP) if b"order-placed" in body)
    made = [
        placing
        | {"id": f"x{number}", "source": "/poison", "subject": f"x-{number}"}
        | {"data": placing["data"] | {"order_id": f"x-{number}", "customer_id": PERSONAL}}
        for number in range(CULPRITS)
    ]
    malformed = placing | {
        "id": "y",
        "subject": "y-1",
        "data": placing["data"] | {"order_id": "y-1", "currency": PERSONAL},
    }
    return [json.dumps(event).encode() for event in (*made, malformed)]


def letters(url: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT count(*) FROM dead_letters").fetchone()
    assert row is not None
    return int(row[0])


@pytest.fixture
def sentry() -> Iterator[Ingest]:
    with ingest() as sentry:
        yield sentry


@pytest.mark.timeout(300)
def test_five_hundred_culprits_fill_no_log_and_no_sentry(
    database_url: str, rabbitmq: Any, sentry: Ingest, tmp_path: Path, say: Callable[[str], None]
) -> None:
    settings = settings_of(
        f"t{uuid.uuid4().hex[:8]}",
        rabbitmq_url=rabbitmq.url,
        aws_region=None,
        database_url=database_url,
        retry_delays_s=(0.2, 0.2),
        sentry_dsn=sentry.dsn,
    )
    open_shop(database_url, SHOP)
    with psycopg.connect(database_url, autocommit=True) as owner:
        owner.execute(POISON)
    declare.apply(settings)
    brokers, fleet = Brokers(settings), Fleet(settings, tmp_path / "log")
    fleet.process = start(FROM_RABBITMQ, settings, fleet.log)
    try:
        brokers.publish("rabbitmq", culprits())
        eventually(lambda: letters(database_url) == CULPRITS + 1, 150)
        assert fleet.end(signal.SIGTERM) == 0
    finally:
        brokers.close()
        if fleet.process.poll() is None:
            fleet.process.kill()
            fleet.process.wait()
    text = fleet.log.read_text()
    assert PERSONAL not in text
    told = said(fleet.log, "dead letter")
    assert Counter(line["reason"] for line in told) == {"unexpected-error": CULPRITS, "unknown-currency": 1}
    assert {line["order_id"] for line in told} == {"y-1", *(f"x-{number}" for number in range(CULPRITS))}
    unexpected = said(fleet.log, "unexpected error")
    assert sum(line["events"] for line in unexpected) == CULPRITS * 3  # three attempts each
    traces = sum("traceback" in line for line in unexpected)
    assert 1 <= traces <= 2  # from two places: a large batch is copied, a small one inserted
    assert sum(line.get("traceback_told_before", 0) > 0 for line in unexpected) == len(unexpected) - traces
    assert {line["error"] for line in unexpected} == {"NumericValueOutOfRange (SQLSTATE 22003)"}
    (started,), (stopped,) = said(fleet.log, "started"), said(fleet.log, "stopped")
    assert started["settings"]["prefix"] == settings.prefix
    assert stopped["dead_letters"] == {"unexpected-error": CULPRITS, "unknown-currency": 1}
    assert stopped["collected"] == {"new": CULPRITS + 1}
    assert {line["level"] for line in log_of(fleet.log)} <= {"info", "warning", "error"}
    assert len(text) < 600 * CULPRITS
    rest = sum(len(line) for line in text.splitlines() if '"dead letter"' not in line)
    assert rest < 100_000
    assert "publickey" not in text
    of_one_bug(sentry)
    say(f"{CULPRITS} culprits: {len(text):,} bytes of log, {rest:,} of them beside the lines of dead letters")


def of_one_bug(sentry: Ingest) -> None:
    """The worker told its Sentry once of each place, then how many more there were, and nothing of any event."""
    sent = b"".join(sentry.raw)
    for private in (PERSONAL, "x-1", "order_id", "/poison", "out of range"):
        assert private.encode() not in sent
    kinds = Counter(tuple(event["fingerprint"]) for event in sentry.events)
    assert 1 <= len(kinds) <= 2
    assert {(name, reason) for name, _, reason in kinds} == {("psycopg.errors.NumericValueOutOfRange", "22003")}
    assert all(place.startswith("incentive_fleet/ledger/") for _, place, _ in kinds)
    assert sum("exception" in event for event in sentry.events) == len(kinds)
    assert sum(event["extra"]["times"] for event in sentry.events) == CULPRITS * 3
