"""Alerts, objectives and the dashboard: each alert fires and stays silent in promtool's tests, stands on metrics that exist, and
has a page that says what to do.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from incentive_fleet.measuring import bounds_of
from incentive_fleet.telemetry.table import METRICS
from tests.grafana import dashboard

ROOT = Path(__file__).parents[2]
MONITORING = ROOT / "deploy/monitoring"
FILES = ("rules", "objectives")


def of(member: str, file: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load((MONITORING / f"{file}.yml").read_text(encoding="utf-8"))[member]
    return found


ALL = [rule for file in FILES for group in of("groups", file) for rule in group["rules"]]
RULES = [rule for rule in ALL if "alert" in rule]
TESTS = [test for file in FILES for test in of("tests", f"{file}_test")]
RECORDED = {rule["record"] for rule in ALL if "record" in rule}
SUFFIXES = {"histogram": ("_bucket", "_count", "_sum")}
PAGE_OF_OBJECTIVES = (ROOT / "docs/objectives.md").read_text(encoding="utf-8")
SAID_ON_PAGES = re.findall(r"^```promql\n(.*?)^```$", PAGE_OF_OBJECTIVES, re.MULTILINE | re.DOTALL)


def judged(*command: str) -> None:
    ran = subprocess.run(command, cwd=MONITORING, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.observe
def test_promtool_and_amtool_find_no_fault() -> None:
    for file in FILES:
        judged("promtool", "check", "rules", f"{file}.yml")
        judged("promtool", "test", "rules", f"{file}_test.yml")
    judged("amtool", "check-config", "alertmanager.yml")


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_each_alert_is_seen_to_fire_and_to_stay_silent_after_as_long(rule: dict[str, Any]) -> None:
    asked = [one for test in TESTS for one in test["alert_rule_test"] if one["alertname"] == rule["alert"]]
    fires = {one["eval_time"] for one in asked if one["exp_alerts"]}
    silent = {one["eval_time"] for one in asked if not one["exp_alerts"]}
    assert fires
    assert fires <= silent, "not seen silent at the time at which it fires"


def stands_on_what_is(expression: str) -> None:
    """Metrics that exist, labels that they have, and what a rule of ours records."""
    told = {
        name + suffix: metric for name, metric in METRICS.items() for suffix in ("", *SUFFIXES.get(metric.type, ()))
    }
    used = re.findall(r"\b(incentives_\w+)(?:\{([^}]*)\})?", expression)
    recorded = set(re.findall(r"\bincentives:[\w:]+", expression))
    assert used or recorded or "up{" in expression
    assert recorded <= RECORDED
    for name, matchers in used:
        assert set(re.findall(r"(\w+)=", matchers)) - {"le"} <= set(told[name].labels)


@pytest.mark.parametrize("rule", ALL, ids=lambda rule: rule.get("alert") or rule["record"])
def test_each_rule_stands_on_metrics_that_exist_and_on_labels_that_they_have(rule: dict[str, Any]) -> None:
    stands_on_what_is(rule["expr"])
    assert "alert" not in rule or rule["labels"]["severity"] in {"page", "ticket"}


def test_what_the_page_of_objectives_measures_by_can_be_asked(tmp_path: Path) -> None:
    assert len(SAID_ON_PAGES) == 3
    asked = [{"record": f"asked_{number}", "expr": text} for number, text in enumerate(SAID_ON_PAGES)]
    for text in SAID_ON_PAGES:
        stands_on_what_is(text)
    (tmp_path / "asked.yml").write_text(yaml.safe_dump({"groups": [{"name": "asked", "rules": asked}]}))
    judged("promtool", "check", "rules", str(tmp_path / "asked.yml"))


def test_the_page_of_objectives_has_each_alert_and_its_bucket_exists() -> None:
    alerts = {rule["alert"] for rule in of("groups", "objectives")[0]["rules"] if "alert" in rule}
    assert set(re.findall(r"runbooks/(\w+)\.md", PAGE_OF_OBJECTIVES)) >= alerts
    bounds = {str(float(bound)) for bound in bounds_of("incentives_publish_to_commit_seconds")}
    told = [text for text in (*SAID_ON_PAGES, *(rule["expr"] for rule in ALL)) if "clock=" in text]
    assert {found for text in told for found in re.findall(r'\ble="([^"]*)"', text)} == {"5.0"} <= bounds


# The dashboard.


def test_the_dashboard_is_what_its_generator_makes() -> None:
    assert dashboard.PLACE.read_text(encoding="utf-8") == dashboard.text(), "run python deploy/monitoring/dashboard.py"


def test_the_dashboard_shows_every_metric_and_nothing_else() -> None:
    expressions = [target["expr"] for panel in dashboard.dashboard()["panels"] for target in panel.get("targets", ())]
    for expression in expressions:
        stands_on_what_is(expression)
    assert {name for one in expressions for name in dashboard.metrics_of(one)} == set(METRICS)


def test_no_panel_lies_on_another_and_each_says_what_it_shows() -> None:
    panels = dashboard.dashboard()["panels"]
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not taken & cells, panel["title"]
        assert at["x"] + at["w"] <= dashboard.ACROSS
        taken |= cells
    assert len({panel["id"] for panel in panels}) == len(panels)


def test_each_alert_has_a_page_that_begins_with_a_command_and_ends_with_its_end() -> None:
    pages = {path.stem: path.read_text() for path in (ROOT / "docs/runbooks").glob("*.md") if path.stem != "README"}
    assert pages.keys() == {rule["alert"] for rule in RULES}
    for name, text in pages.items():
        assert text.startswith(f"# {name}\n\n```sh\nincentives "), name
        assert text.rstrip().split("\n\n")[-1].startswith("Over when "), name
