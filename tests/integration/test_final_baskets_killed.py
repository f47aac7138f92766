"""Estimated orders over both brokers at once, shuffled and repeated, while workers die: the balances of a calm run."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from incentive_fleet.embedded import sample_shop
from incentive_fleet.embedded.postgres import Postgres
from tests.brokers_and_workers import SOURCES, Brokers
from tests.killing import Killed, play_killing
from tests.parts import fresh_database
from tests.shop import balances, calm_balances, faults, open_shop

BROKER_SETTINGS = {"sqs_visibility_s": 1}
SHOP = sample_shop.Shop(70, seed=31, refunds=0.5, groceries=0.9)
EVENTS = [body for _, body in sample_shop.events(SHOP)]
KILLS = 3


def test_workers_that_die_amid_final_baskets_change_nothing(
    brokers: Brokers,
    database_url: str,
    postgres: Postgres,
    database_template: str,
    tmp_path: Path,
    say: Callable[[str], None],
) -> None:
    with fresh_database(postgres, database_template) as calm_url:
        open_shop(calm_url, SHOP)
        calm = calm_balances(calm_url, EVENTS)
    open_shop(database_url, SHOP)
    settings = brokers.settings.model_copy(update={"database_url": database_url, "batch_size": 20, "prefetch": 40})
    killed = Killed(brokers, SOURCES, settings, tmp_path / "log", random.Random(31))
    play_killing(killed, EVENTS, KILLS)
    assert killed.kills >= KILLS - 1, "nearly every kill found a worker"
    assert balances(database_url) == calm
    assert faults(database_url) == {}
    for source in SOURCES:
        assert brokers.left(source) == {}
        assert brokers.letters(source) == []
    say(f"{len(EVENTS)} events, {killed.kills} workers killed")
