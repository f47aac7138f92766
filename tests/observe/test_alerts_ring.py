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
from tests.contract.brokers_under_test import eventually
from tests.observe.monitoring import alerts, deployed, shortened
from tests.observe.scenes import FULL, SHORT, Scene
from tests.observe.site import CONNECTIONS, PATIENCE_S, Site, watched
from tests.parts import fresh_database
from tests.shop import faults

FILES = "rules.yml", "objectives.yml"
DURATION = re.compile(r"(?<=for: )\w+|\[\w+\]")
UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
Act = Mapping[Scene, tuple[str, ...]]


def alerts_of(acts: Sequence[Act]) -> list[str]:
    return [alert for act in acts for alerts in act.values() for alert in alerts]


def test_each_alert_has_a_scene_in_which_it_rings() -> None:
    assert sorted(alerts_of(FULL)) == sorted(alerts(*FILES))


@pytest.mark.parametrize("file", FILES)
def test_nothing_but_durations_is_shortened_and_their_order_kept(file: str) -> None:
    before, after = deployed(file), shortened(deployed(file))
    assert before != after
    assert DURATION.sub("", before) == DURATION.sub("", after)
    pairs = {
        (_seconds(one), _seconds(other)) for one, other in zip(*map(DURATION.findall, (before, after)), strict=True)
    }
    for kind in ("[", ""):
        of_kind = sorted((one, other) for (of, one), (_, other) in pairs if of == kind)
        assert [other for _, other in of_kind] == sorted(other for _, other in of_kind)


def _seconds(duration: str) -> tuple[str, int]:
    return ("[" if "[" in duration else ""), int(duration.strip("[]smhd")) * UNITS[duration.strip("[]")[-1]]


@pytest.fixture
def site(
    request: pytest.FixtureRequest, own_postgres: Postgres, own_template: str, rabbitmq: RabbitMQ, tmp_path: Path
) -> Iterator[Site]:
    """With the rules that the test names."""
    with psycopg.connect(own_postgres.url("postgres"), autocommit=True) as owner:
        owner.execute(f"ALTER SYSTEM SET max_connections = {CONNECTIONS}".encode())
    own_postgres.stop()
    own_postgres.start()
    with (
        fresh_database(own_postgres, own_template) as url,
        watched(own_postgres, url, rabbitmq, tmp_path, request.param) as site,
    ):
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
    eventually(lambda: not site.pager.ringing(), PATIENCE_S)
    known = alerts(*FILES)
    for call in site.pager.calls:
        assert call.service == {"page": "pagerduty", "ticket": "opsgenie"}[known[call.alert]["labels"]["severity"]]
    assert site.pager.refused == []
    assert faults(site.url) == {}
    return "\n".join(told)


@pytest.mark.observe
@pytest.mark.parametrize("site", [FILES[:1]], ids=["rules"], indirect=True)
@pytest.mark.timeout(300)
def test_alerts_ring_and_clear(site: Site, say: Callable[[str], None]) -> None:
    say(play(site, SHORT))


@pytest.mark.chaos
@pytest.mark.parametrize("site", [FILES], ids=["rules and objectives"], indirect=True)
@pytest.mark.timeout(1_200)
def test_every_alert_rings_and_clears(site: Site, say: Callable[[str], None]) -> None:
    say(play(site, FULL))
