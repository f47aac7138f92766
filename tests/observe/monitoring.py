"""A real Prometheus and Alertmanager with the rules and routes of deploy/monitoring, in less time and with other addresses.

What a test changes in them is in `shortened` and `rerouted`, and nothing else: how long a condition must hold (`for`), how
far back a rate looks, how long Alertmanager gathers, where the services are and where their keys lie. No expression, no
threshold, no label, no route and no text differs from what production runs.
"""

from __future__ import annotations

import json
import re
import shutil
import signal
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from incentive_fleet.embedded.process import end, free_port, spawn, wait_ready

DEPLOYED = Path(__file__).parents[2] / "deploy/monitoring"
SCRAPED = "3s"  # and no shorter: a page waits two seconds for a part that hangs
JUDGED = "1s"
# Durations keep their order, for one alert must be there before those that it explains.
HELD, HELD_S = 1 / 30, (2, 25)  # of each `for`, and at least and most
WINDOW, WINDOW_S = 1 / 20, (30, 60)  # of each [10m] and the like
GATHERED = {"group_wait": "1s", "group_interval": "1s"}
READY_S = 30


def deployed(file: str) -> str:
    return (DEPLOYED / file).read_text(encoding="utf-8")


def alerts(*files: str) -> dict[str, dict[str, Any]]:
    """The alerts of these files as they are deployed, by name."""
    groups = [group for file in files for group in yaml.safe_load(deployed(file))["groups"]]
    return {rule["alert"]: rule for group in groups for rule in group["rules"] if "alert" in rule}


def shortened(text: str) -> str:
    """The rules with a thirtieth of every `for` and a twentieth of every window, within their bounds."""
    held = re.sub(r"(?<=^        for: )\w+$", lambda found: _part(found[0], HELD, HELD_S), text, flags=re.MULTILINE)
    return re.sub(r"(?<=\[)\d+[smhd](?=\])", lambda found: _part(found[0], WINDOW, WINDOW_S), held)


def _part(duration: str, of: float, bounds: tuple[int, int]) -> str:
    least, most = bounds
    seconds = int(duration[:-1]) * {"s": 1, "m": 60, "h": 3_600, "d": 86_400}[duration[-1]]
    return f"{min(most, max(least, round(seconds * of)))}s"


def rerouted(text: str, pager_port: int, keys: Path) -> str:
    """alertmanager.yml for the pager of the test: gathered for a second, with keys of its own."""
    routes = yaml.safe_load(text)
    routes["route"] |= GATHERED
    for receiver in routes["receivers"]:
        for one in receiver.get("pagerduty_configs", ()):
            one |= {"url": f"http://127.0.0.1:{pager_port}/pagerduty", "routing_key_file": str(keys / "pagerduty")}
        for one in receiver.get("opsgenie_configs", ()):
            one |= {"api_url": f"http://127.0.0.1:{pager_port}/opsgenie/", "api_key_file": str(keys / "opsgenie")}
    return str(yaml.safe_dump(routes))


class Prometheus:
    """What it sees now."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/api/v1"

    def firing(self) -> set[str]:
        """Alerts that fire, also those that a route keeps silent."""
        found = self.ask("alerts")["alerts"]
        return {one["labels"]["alertname"] for one in found if one["state"] == "firing"}

    def up(self) -> int:
        """How many targets answer."""
        return sum(one["health"] == "up" for one in self.ask("targets")["activeTargets"])

    def values(self, expression: str) -> list[float]:
        """Of every series that an expression has now; raises HTTPError where it is wrong."""
        return [float(one["value"][1]) for one in self.ask("query", query=expression)["result"]]

    def ask(self, what: str, **parameters: str) -> Any:
        """As Grafana's source of data does."""
        with urllib.request.urlopen(f"{self._url}/{what}?{urllib.parse.urlencode(parameters)}", timeout=30) as answer:
            return json.loads(answer.read())["data"]


@contextmanager
def watching(folder: Path, targets: Mapping[str, int], pager_port: int, files: Sequence[str]) -> Iterator[Prometheus]:
    """Both servers, on the health ports of these processes, with the rules of these files; they tell the pager."""
    folder.mkdir()
    for service in ("pagerduty", "opsgenie"):
        (folder / service).write_text(f"{service}'s", encoding="utf-8")
    alertmanager, prometheus = free_port(), free_port()
    for file in files:
        (folder / file).write_text(shortened(deployed(file)), encoding="utf-8")
    routes = rerouted(deployed("alertmanager.yml"), pager_port, folder)
    (folder / "alertmanager.yml").write_text(routes, encoding="utf-8")
    (folder / "prometheus.yml").write_text(yaml.safe_dump(_scraping(targets, alertmanager, files)), encoding="utf-8")
    with (
        server(
            folder,
            alertmanager,
            *(
                "prometheus-alertmanager",
                f"--config.file={folder}/alertmanager.yml",
                f"--storage.path={folder}/silences",
            ),
            *("--cluster.listen-address=", "--log.level=warn"),
        ),
        server(
            folder,
            prometheus,
            *("prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/series"),
            "--log.level=warn",
        ),
    ):
        yield Prometheus(prometheus)


def _scraping(targets: Mapping[str, int], alertmanager: int, files: Sequence[str]) -> dict[str, Any]:
    instances: Sequence[dict[str, Any]] = [
        {"targets": [f"127.0.0.1:{port}"], "labels": {"instance": name}} for name, port in targets.items()
    ]
    return {
        "global": {"scrape_interval": SCRAPED, "scrape_timeout": SCRAPED, "evaluation_interval": JUDGED},
        "rule_files": list(files),
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [f"127.0.0.1:{alertmanager}"]}]}]},
        "scrape_configs": [{"job_name": "incentives", "static_configs": instances}],
    }


@contextmanager
def server(folder: Path, port: int, program: str, *options: str) -> Iterator[None]:
    assert shutil.which(program), f"{program} is not installed: `make observe-check` asks for it"
    log = folder / f"{program}.log"
    process = spawn(
        [program, f"--web.listen-address=127.0.0.1:{port}", *options],
        log=log,
        environment={"HOME": str(folder)},
        leash=signal.SIGKILL,
    )
    try:
        wait_ready(program, lambda: _ready(port), process, log, READY_S)
        yield
    finally:
        end(process, [(signal.SIGTERM, 10), (signal.SIGKILL, 5)])


def _ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/-/ready", timeout=5) as answer:
            return int(answer.status) == 200
    except OSError:
        return False
