"""Metrics: one table says what there is, the page keeps to it, and nothing that people or brokers name makes it grow."""

from __future__ import annotations

import asyncio
import re
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from incentive_fleet.errors import BrokerUnavailable, DatabaseUnavailable
from incentive_fleet.ledger.connection import APPLICATION_ROLE
from incentive_fleet.ledger.people import ROLES
from incentive_fleet.measuring import COUNTS, OTHER, SECONDS, SERIES_MAX, Key, Tally, from_document, sum_of
from incentive_fleet.telemetry import readings
from incentive_fleet.telemetry.exposition import Exposition
from incentive_fleet.telemetry.readings import Reading
from incentive_fleet.telemetry.table import COUNTED, METRICS, READ, TOP_CAMPAIGNS, TOP_CAUSES

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/metrics.md").read_text(encoding="utf-8")
NAME = re.compile(r"incentives_[a-z_]*[a-z]")
Samples = dict[tuple[str, ...], float]


def page(exposition: Exposition) -> str:
    content_type, body = asyncio.run(exposition.page())
    assert content_type.startswith("text/plain; version=")
    return body.decode()


def samples(text: str) -> Samples:
    """Every sample by its name and its labels' values, in the table's order."""
    found: Samples = {}
    for sample in (sample for family in text_string_to_metric_families(text) for sample in family.samples):
        metric = METRICS.get(re.sub("_(bucket|count|sum)$", "", sample.name))
        order = (*metric.labels, "le") if metric else tuple(sample.labels)
        found[sample.name, *(sample.labels[label] for label in order if label in sample.labels)] = sample.value
    return found


def everything() -> tuple[Tally, Reading]:
    """One sample of each metric of the table."""
    tally, levels = Tally(), dict[Key, float]()
    for metric in (*COUNTED, *READ):
        labels = [f"a-{label}" for label in metric.labels]
        if metric.type == "counter":
            tally.add(metric.name, *labels)
        elif metric.type == "histogram":
            tally.observe(metric.name, *labels, value=0.3, times=3)
        elif metric in COUNTED:
            tally.level(metric.name, *labels, now=7)
        else:
            levels[metric.name, *labels] = 7
    return tally, Reading("all", lambda: levels)


def test_promtool_finds_nothing_to_say_about_any_metric() -> None:
    tally, reading = everything()
    text = page(Exposition(lambda: tally, [reading]))
    told = {name.removesuffix("_total") for name in re.findall(r"^# TYPE (\S+)", text, re.MULTILINE)}
    assert told == {name.removesuffix("_total") for name in METRICS} | {"incentives_build_info"}
    checked = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


def test_the_page_of_metrics_has_each_with_its_type_and_labels() -> None:
    rows = re.findall(r"^\| `(incentives_\w+)` \| (\w+) \| ([^|]*) \| ([^|]*) \|$", PAGE, re.MULTILINE)
    told = [(name, kind, tuple(re.findall(r"`(\w+)`", labels)), text) for name, kind, labels, text in rows]
    assert told == [(metric.name, metric.type, metric.labels, metric.help) for metric in (*COUNTED, *READ)]


def test_no_metric_is_counted_that_the_table_has_not_and_none_is_left_out() -> None:
    package = ROOT / "incentive_fleet"
    named: set[str] = set()
    for path in package.rglob("*.py"):
        if path.name != "table.py":
            quoted = re.findall(r'"(incentives_[a-z_]+)"', path.read_text(encoding="utf-8"))
            named |= set(quoted) - {APPLICATION_ROLE, *ROLES, "incentives_build"}
    assert named == set(METRICS)


@pytest.mark.parametrize("metric", METRICS.values(), ids=lambda metric: metric.name)
def test_names_and_units_are_prometheus_own(metric: object) -> None:
    one = METRICS[metric.name]  # type: ignore[attr-defined]
    assert NAME.fullmatch(one.name)
    assert one.name.endswith("_total") == (one.type == "counter")
    assert not re.search(r"_(ms|milliseconds|minutes|kb|mb|count|sum|bucket)(_|$)", one.name)
    if one.name.endswith("_minor_units"):
        assert "currency" in one.labels
    # What people, shops or programs name has a bound; all other labels have the few values that we or the settings give.
    ours = {
        "source",
        "queue",
        "disposition",
        "reason",
        "outcome",
        "phase",
        "clock",
        "activity",
        "cause",
        "kind",
        "reading",
    }
    ours |= {"role", "state", "destination", "sync", "currency", "task", "area", "status", "result"}
    assert set(one.labels) <= ours | {"campaign", "application"}
    assert one.top is not None or not {"campaign", "application"} & set(one.labels)


def test_a_thousand_campaigns_and_causes_are_fifty_and_twenty_and_the_rest() -> None:
    campaigns: dict[Key, float] = {
        ("incentives_campaign_net_spend_minor_units", f"c{n:04}", "EUR"): float(n) for n in range(1_000)
    }
    budgets: dict[Key, float] = {
        ("incentives_campaign_budget_minor_units", f"c{n:04}", "EUR"): float(5_000 - n) for n in range(1_000)
    }
    letters: dict[Key, float] = {("incentives_open_dead_letters", f"cause{n}"): float(n) for n in range(1_000)}
    ages: dict[Key, float] = {
        ("incentives_open_dead_letters_oldest_seconds", f"cause{n}"): float(1_000 - n) for n in range(1_000)
    }
    reading = Reading("all", lambda: campaigns | budgets | letters | ages)
    found = samples(page(Exposition(Tally, [reading])))
    spend = {key[1]: value for key, value in found.items() if key[0] == "incentives_campaign_net_spend_minor_units"}
    assert len(spend) == TOP_CAMPAIGNS + 1
    assert sum(spend.values()) == sum(range(1_000))
    assert {key[1] for key in found if key[0] == "incentives_campaign_budget_minor_units"} == spend.keys()
    assert {key[1] for key in found if key[0] == "incentives_open_dead_letters"} == {
        OTHER,
        *(f"cause{n}" for n in range(1_000 - TOP_CAUSES, 1_000)),
    }
    assert found["incentives_open_dead_letters_oldest_seconds", OTHER] == 1_000


def test_a_counter_that_was_told_by_its_name_stays_and_never_falls() -> None:
    tally = Tally()
    exposition = Exposition(lambda: tally, [])
    before: Samples = {}
    for first in range(0, 200, 20):
        for number in range(first, first + 20):
            tally.add("incentives_redemptions_total", f"c{number}", by=number)
        now = {
            key: value for key, value in samples(page(exposition)).items() if key[0] == "incentives_redemptions_total"
        }
        assert all(now[key] >= value for key, value in before.items())
        assert len(now) <= TOP_CAMPAIGNS + 1
        before = now
    assert sum(before.values()) == sum(range(200))


def test_a_thread_keeps_a_bounded_number_of_series() -> None:
    tally = Tally()
    for number in range(SERIES_MAX * 3):
        tally.add("incentives_redemptions_total", f"c{number}")
        tally.level("incentives_paused", f"a{number}", "c", now=1)
        tally.observe("incentives_batch_phase_seconds", f"p{number}", value=1)
    for series in (tally.sums, tally.levels, tally.spreads):
        assert len(series) <= SERIES_MAX + 1
    assert sum(tally.sums.values()) == SERIES_MAX * 3


def test_what_a_worker_says_is_what_its_supervisor_sums() -> None:
    import json

    tally, _ = everything()
    assert from_document(json.loads(json.dumps(tally.document()))) == Tally(tally.sums, tally.levels, tally.spreads)
    both = sum_of([tally, tally])
    assert both.sums["incentives_batch_splits_total",] == 2
    assert both.levels["incentives_held_bytes",] == 14
    spread = both.spreads["incentives_commit_to_ack_seconds",]
    assert spread[SECONDS.index(0.5)] == 6
    assert spread[-1] == pytest.approx(1.8)


def test_a_histogram_s_buckets_are_cumulative_and_end_with_all() -> None:
    tally = Tally()
    for value in (1, 2, 500, 501, 9_999):
        tally.observe("incentives_batch_events", value=value)
    found = samples(page(Exposition(lambda: tally, [])))
    assert [found["incentives_batch_events_bucket", f"{bound:.1f}"] for bound in (1, 2, 5, 500, 1_000)] == [
        1,
        2,
        2,
        3,
        4,
    ]
    assert found["incentives_batch_events_bucket", "+Inf"] == found["incentives_batch_events_count",] == 5
    assert found["incentives_batch_events_sum",] == 11_003
    assert len(COUNTS) + 1 == sum(key[0] == "incentives_batch_events_bucket" for key in found)


# Readings.


def raising(error: Exception) -> Callable[[], dict[Key, float]]:
    def read() -> dict[Key, float]:
        raise error

    return read


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("error", [DatabaseUnavailable("gone"), BrokerUnavailable("gone"), ValueError("a bug")])
def test_what_cannot_be_read_is_absent_and_says_so(error: Exception) -> None:
    well = Reading("well", lambda: {("incentives_waiting_facts",): 3})
    found = samples(page(Exposition(Tally, [Reading("ill", raising(error)), well])))
    assert found["incentives_reading_up", "ill"] == 0
    assert ("incentives_reading_age_seconds", "ill") not in found
    assert found["incentives_reading_up", "well"] == 1
    assert found["incentives_waiting_facts",] == 3


def test_a_part_that_hangs_keeps_no_scrape_and_is_asked_once() -> None:
    asked, go_on = [], threading.Event()

    def read() -> dict[Key, float]:
        asked.append(1)
        assert go_on.wait(30)
        return {("incentives_waiting_facts",): 3}

    exposition = Exposition(Tally, [reading := Reading("slow", read)], wait_s=0.1)
    began = time.monotonic()
    for _ in range(3):
        assert samples(page(exposition))["incentives_reading_up", "slow"] == 0
    assert time.monotonic() - began < 10
    assert asked == [1]
    go_on.set()
    assert (under_way := reading.ask()) is None or under_way.result(10) is None
    assert samples(page(exposition))["incentives_waiting_facts",] == 3


def test_a_reading_is_shared_for_its_time_and_forgotten_when_it_is_old() -> None:
    now, read = [0.0], []

    def count() -> dict[Key, float]:
        read.append(now[0])
        if now[0] > 100:
            raise DatabaseUnavailable("gone")
        return {("incentives_waiting_facts",): len(read)}

    reading = Reading("money", count, every_s=60, clock=lambda: now[0])
    exposition = Exposition(Tally, [reading])
    told = []
    for now[0] in (0, 15, 59, 61, 75, 122):
        told.append(samples(page(exposition)).get(("incentives_waiting_facts",)))
    assert read == [0, 61, 122]
    assert told == [1, 1, 1, 2, 2, None]
    assert reading.levels() == {("incentives_reading_up", "money"): 0}


def test_a_part_that_is_away_is_logged_once_and_once_when_it_is_back(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    state: list[Callable[[], dict[Key, float]]] = [raising(DatabaseUnavailable("gone"))]
    reading = Reading("backlog", lambda: dict(state[0]()))
    for _ in range(3):
        page(Exposition(Tally, [reading]))
    state[0] = dict
    page(Exposition(Tally, [reading]))
    assert [record.message for record in caplog.records] == [
        "a part's gauges cannot be read",
        "a part's gauges are read again",
    ]
    assert readings.SCRAPE_WAIT_S < 10  # Prometheus' own bound of a scrape
