"""A broker that the product has never heard of takes one line in the registry: every step of the fleet goes over it then.

What it is written with is tests/memory_parts.py, a parts.py and no more: publishing, consuming, collecting, replaying, relaying,
topology, health and the filters of dead letters. The contract suite has the same transport.
"""

from __future__ import annotations

from collections import Counter
from contextlib import closing

import psycopg
import pytest

from incentive_fleet.brokers import declare, registry
from incentive_fleet.brokers.messages import Message, message_of
from incentive_fleet.brokers.topology import Change
from incentive_fleet.consumers.probes import Part, probes_of
from incentive_fleet.consumers.worker import run_worker
from incentive_fleet.dead_letters.collector import run_collector
from incentive_fleet.dead_letters.known import unknown_filters
from incentive_fleet.dead_letters.replay import ReplayRequest, replay
from incentive_fleet.dead_letters.store import Filters
from incentive_fleet.ledger.connection import connect
from incentive_fleet.ledger.session import Session
from incentive_fleet.ledger.verify import verify
from incentive_fleet.producers.relay_loop import RelayPace, run_relay
from incentive_fleet.settings import Settings
from incentive_fleet.stopping import Stop
from tests.dead_letter_world import LetterDatabase, by, order
from tests.memory_parts import MEMORY, MemoryParts

IDLE_S = 0.3


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> MemoryParts:
    """The line in the registry."""
    parts = MemoryParts()
    monkeypatch.setitem(registry.BROKERS, MEMORY, parts)
    return parts


@pytest.fixture
def settings(database_url: str) -> Settings:
    return Settings(database_url=database_url, wait_s=0.1)


def test_every_step_of_the_fleet_goes_over_a_broker_of_one_line(parts: MemoryParts, settings: Settings) -> None:
    database = LetterDatabase(settings.need_database_url())
    database.load()
    with psycopg.connect(database.url) as owner:
        owner.execute("DELETE FROM destinations")
        owner.execute("INSERT INTO destinations VALUES ('memory')")
    assert registry.configured(settings) == [registry.by_source("memory")] == [registry.by_destination("memory")]
    assert declare.apply(settings) == [Change("memory", queue.source, "created") for queue in parts.queues(settings)]
    assert declare.check(settings).drift == ()

    bodies = [order(number) for number in range(5)]
    broken = Message(b'{"specversion"', "order-placed.v1", "x")
    with closing(registry.open_events(settings, MEMORY)) as publisher:
        assert publisher.publish([*map(message_of, bodies), *map(message_of, bodies[:2]), broken]) == []
    counts = run_worker([MEMORY], settings, IDLE_S, Stop())
    assert counts == Counter({"applied": 5, "duplicate": 2, "dead-letter:not-json": 1})

    assert run_collector([MEMORY], settings, Stop(), IDLE_S)["new"] == 1
    [letter] = database.letters()
    assert (letter.transport, letter.reason, letter.body) == ("memory", "not-json", broken.body)
    with database.connect() as connection:
        assert list(unknown_filters(connection, Filters(queue="order-placed-dead"), settings)) == []

    with closing(connect(database.url)) as connection:
        assert verify(connection).sound
    publishers = {MEMORY.destination: registry.open_outcomes(settings, MEMORY)}
    summary = run_relay(database.url, publishers, stop=Stop(), pace=RelayPace(until_idle_s=IDLE_S))
    assert (summary.published, summary.unpublished) == ({"memory": 5}, {})
    assert {message.type for message in parts.outcomes} == {"incentives-applied.v1"}


def test_a_letter_of_that_broker_is_replayed_to_it(parts: MemoryParts, settings: Settings) -> None:
    database = LetterDatabase(settings.need_database_url())
    database.load()
    with closing(registry.open_events(settings, MEMORY)) as publisher:
        publisher.publish([message_of(order(1)), message_of(order(1, coupons=[]))])
    assert run_worker([MEMORY], settings, IDLE_S, Stop())["dead-letter:conflict"] == 1
    run_collector([MEMORY], settings, Stop(), IDLE_S)
    [letter] = database.letters()
    [done] = replay(Session(database.url), settings, ReplayRequest([letter.id], by()))
    assert done.status == "replayed"
    assert run_worker([MEMORY], settings, IDLE_S, Stop())["dead-letter:conflict"] == 1
    assert run_collector([MEMORY], settings, Stop(), IDLE_S)["returned"] == 1
    assert database.letter(letter.id).status == "open"


def test_its_health_is_asked_for_by_its_own_word(parts: MemoryParts, settings: Settings) -> None:
    probe = probes_of(settings, [MEMORY])["memory"]
    assert Part("memory", probe).ask().result(timeout=5) == ""
    parts.broker.away = True
    assert Part("memory", probe).ask().result(timeout=5) == "unreachable"
