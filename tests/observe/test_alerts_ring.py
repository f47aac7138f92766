"""Every alert rings for a real cause and clears once that is gone: a real fleet, Prometheus, Alertmanager, and a pager."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from incentive_fleet.embedded.postgres import Postgres
from incentive_fleet.embedded.rabbitmq import RabbitMQ
from tests.observe.monitoring import DEPLOYED, rules, shortened
from tests.observe.scenes import FULL, SHORT, Scene
from tests.observe.site import CONNECTIONS, Site, watched
from tests.parts import fresh_database
from tests.shop import faults

LENGTHS = ["1m", "2m", "5m", "10m", "1d"]
DURATION = re.compile(r"(?<=for: )\w+|\[\w+\]")
Act = Mapping[Scene, tuple[str, ...]]


def alerts_of(acts: Sequence[Act]) -> list[str]:
    return [alert for act in acts for alerts in act.values() for alert in alerts]


def test_each_alert_has_a_scene_in_which_it_rings() -> None:
    assert sorted(alerts_of(FULL)) == sorted(rule["alert"] for rule in rules())


def test_nothing_but_durations_is_shortened_and_their_order_kept() -> None:
    deployed = (DEPLOYED / "rules.yml").read_text(encoding="utf-8")
    assert DURATION.sub("", deployed) == DURATION.sub("", shortened(deployed))
    held = re.findall(r"for: (\w+)", deployed), re.findall(r"for: (\w+)s\n", shortened(deployed))
    assert [int(one) for _, one in sorted(zip(*held, strict=True), key=lambda both: LENGTHS.index(both[0]))] == sorted(
        map(int, held[1])
    )


@pytest.fixture
def site(own_postgres: Postgres, own_template: str, rabbitmq: RabbitMQ, tmp_path: Path) -> Iterator[Site]:
    with psycopg.connect(own_postgres.url("postgres"), autocommit=True) as owner:
        owner.execute(f"ALTER SYSTEM SET max_connections = {CONNECTIONS}".encode())
    own_postgres.stop()
    own_postgres.start()
    with fresh_database(own_postgres, own_template) as url, watched(own_postgres, url, rabbitmq, tmp_path) as site:
        yield site


def play(site: Site, acts: Sequence[Act]) -> str:
    """Act after act; what has rung has cleared, nothing rings that nobody provoked, and the ledger is sound."""
    told = []
    for act in acts:
        began = time.monotonic()
        with ThreadPoolExecutor(len(act)) as stage:
            played = [stage.submit(scene, site) for scene in act]
        if failures := [error for one in played if (error := one.exception())]:
            raise BaseExceptionGroup("scenes that went otherwise", failures)
        told.append(f"{', '.join(alerts_of([act]))}: rang and cleared in {time.monotonic() - began:.0f} s")
    rang = {call.alert for call in site.pager.calls if call.what == "rings"}
    assert rang == set(alerts_of(acts)), site.pager.calls
    assert site.pager.ringing() == set()
    severities = {rule["alert"]: rule["labels"]["severity"] for rule in rules()}
    for call in site.pager.calls:
        assert call.service == {"page": "pagerduty", "ticket": "opsgenie"}[severities[call.alert]]
    assert site.pager.refused == []
    assert faults(site.url) == {}
    return "\n".join(told)


@pytest.mark.observe
@pytest.mark.timeout(300)
def test_alerts_ring_and_clear(site: Site, say: Callable[[str], None]) -> None:
    say(play(site, SHORT))


@pytest.mark.chaos
@pytest.mark.timeout(1_200)
def test_every_alert_rings_and_clears(site: Site, say: Callable[[str], None]) -> None:
    say(play(site, FULL))
