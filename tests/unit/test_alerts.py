"""Alerts: each fires and stays silent in promtool's tests, stands on metrics that exist, and has a page that says what to do."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from incentive_fleet.telemetry.table import METRICS

ROOT = Path(__file__).parents[2]
MONITORING = ROOT / "deploy/monitoring"
RULES: list[dict[str, Any]] = yaml.safe_load((MONITORING / "rules.yml").read_text())["groups"][0]["rules"]
TESTS: list[dict[str, Any]] = yaml.safe_load((MONITORING / "rules_test.yml").read_text())["tests"]
SUFFIXES = {"histogram": ("_bucket", "_count", "_sum")}


def judged(*command: str) -> None:
    ran = subprocess.run(command, cwd=MONITORING, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_promtool_and_amtool_find_no_fault() -> None:
    judged("promtool", "check", "rules", "rules.yml")
    judged("promtool", "test", "rules", "rules_test.yml")
    judged("amtool", "check-config", "alertmanager.yml")


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_each_alert_is_seen_to_fire_and_to_stay_silent_after_as_long(rule: dict[str, Any]) -> None:
    asked = [one for test in TESTS for one in test["alert_rule_test"] if one["alertname"] == rule["alert"]]
    fires = {one["eval_time"] for one in asked if one["exp_alerts"]}
    silent = {one["eval_time"] for one in asked if not one["exp_alerts"]}
    assert fires
    assert fires <= silent, "not seen silent at the time at which it fires"


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_each_alert_stands_on_metrics_that_exist_and_on_labels_that_they_have(rule: dict[str, Any]) -> None:
    told = {
        name + suffix: metric for name, metric in METRICS.items() for suffix in ("", *SUFFIXES.get(metric.type, ()))
    }
    used = re.findall(r"(incentives_\w+)(?:\{([^}]*)\})?", rule["expr"])
    assert used or "up{" in rule["expr"]
    for name, matchers in used:
        assert set(re.findall(r"(\w+)=", matchers)) <= set(told[name].labels)
    assert rule["labels"]["severity"] in {"page", "ticket"}


def test_each_alert_has_a_page_that_begins_with_a_command_and_ends_with_its_end() -> None:
    pages = {path.stem: path.read_text() for path in (ROOT / "docs/runbooks").glob("*.md") if path.stem != "README"}
    assert pages.keys() == {rule["alert"] for rule in RULES}
    for name, text in pages.items():
        assert text.startswith(f"# {name}\n\n```sh\nincentives "), name
        assert text.rstrip().split("\n\n")[-1].startswith("Over when "), name
