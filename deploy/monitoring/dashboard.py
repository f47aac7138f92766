"""Makes grafana.json, the dashboard of the fleet, from the panels below: `python deploy/monitoring/dashboard.py` writes it anew.

A panel's description is what telemetry/table.py says of its metrics. Rates are sums over processes, gauges of the ledger and the
brokers are told by several and taken by max (docs/metrics.md).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from incentive_fleet.telemetry.table import METRICS

PLACE: Final = Path(__file__).with_name("grafana.json")
SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
WIDTH, HEIGHT, ACROSS = 8, 7, 24  # of a panel and of the screen, in Grafana's units
METRIC: Final = re.compile(r"incentives_[a-z_]*[a-z]")
SUFFIX: Final = re.compile(r"_(bucket|count|sum)$")


@dataclass(frozen=True, slots=True)
class Panel:
    """One picture: its expressions with the legend of each."""

    title: str
    unit: str  # Grafana's name of it
    shown: tuple[tuple[str, str], ...]
    stat: bool = False  # a number instead of a curve


def _one(title: str, unit: str, expression: str, legend: str = "", *, stat: bool = False) -> Panel:
    return Panel(title, unit, ((expression, legend),), stat)


def _rate(title: str, metric: str, *labels: str, unit: str = "ops") -> Panel:
    by, legend = ", ".join(labels), " ".join(f"{{{{{label}}}}}" for label in labels)
    return _one(title, unit, f"sum by ({by}) (rate({metric}[$__rate_interval]))", legend)


def _level(title: str, metric: str, *labels: str, unit: str = "short") -> Panel:
    by, legend = ", ".join(labels), " ".join(f"{{{{{label}}}}}" for label in labels)
    return _one(title, unit, f"max by ({by}) ({metric})" if labels else f"max({metric})", legend or "all")


def _quantiles(title: str, metric: str, *labels: str, unit: str = "s", matching: str = "") -> Panel:
    by, legend = ", ".join(("le", *labels)), "".join(f" {{{{{label}}}}}" for label in labels)
    rate = f"sum by ({by}) (rate({metric}_bucket{matching}[$__rate_interval]))"
    return Panel(title, unit, tuple((f"histogram_quantile({q}, {rate})", f"p{q * 100:g}{legend}") for q in (0.5, 0.99)))


MESSAGE: Final = '{clock="message"}'
ROWS: Final[tuple[tuple[str, tuple[Panel, ...]], ...]] = (
    (
        "Is it well?",
        (
            _one("Processes that answer", "short", 'sum(up{job="incentives"})', stat=True),
            Panel(
                "Workers",
                "short",
                (
                    ("sum(incentives_workers_alive)", "alive"),
                    ("sum(incentives_workers_wanted)", "wanted"),
                ),
                stat=True,
            ),
            _one("Open dead letters", "short", "sum(max by (cause) (incentives_open_dead_letters))", stat=True),
            Panel(
                "Objectives",
                "percentunit",
                (
                    ("1 - incentives:publish_to_commit:late_ratio_3d", "booked within 5 s, 3 days"),
                    ("1 - avg_over_time(incentives:dead_letters:late[3d])", "no letter older than a day, 3 days"),
                    ("1 - avg_over_time(incentives:verify:late[3d])", "verified within 26 h, 3 days"),
                ),
                stat=True,
            ),
            _level("Waits for a part", "incentives_paused", "activity", "cause"),
            _rate("Pauses", "incentives_pauses_total", "activity", "cause"),
            _one(
                "Workers started again", "ops", "sum(rate(incentives_worker_restarts_total[$__rate_interval]))", "all"
            ),
            _level("Parts whose gauges can be read", "incentives_reading_up", "reading"),
            _level("How long ago they were read", "incentives_reading_age_seconds", "reading", unit="s"),
        ),
    ),
    (
        "Events",
        (
            _rate("Deliveries", "incentives_deliveries_total", "source", "disposition"),
            _rate("Events committed", "incentives_events_total", "outcome"),
            _quantiles("Publishing to COMMIT", "incentives_publish_to_commit_seconds", "source", matching=MESSAGE),
            _level("Messages in source queues", 'incentives_queue_messages{role="source"}', "queue", "state"),
            _level("Messages for another try", 'incentives_queue_messages{role="retry"}', "queue", "state"),
            _level("Oldest message of a queue (AWS)", "incentives_queue_oldest_seconds", "queue", unit="s"),
            _level("Age of the message received last", "incentives_last_received_age_seconds", "queue", unit="s"),
            _quantiles("COMMIT to acknowledgement", "incentives_commit_to_ack_seconds"),
            _rate("Time by phase of a batch", "incentives_batch_phase_seconds_sum", "phase", unit="s"),
            _quantiles("Events in a batch", "incentives_batch_events", unit="short"),
            _rate("Batches tried again", "incentives_transaction_retries_total", "cause"),
            _one("Batches halved", "ops", "sum(rate(incentives_batch_splits_total[$__rate_interval]))", "all"),
            _one("Bytes held", "bytes", "sum(incentives_held_bytes)", "all"),
        ),
    ),
    (
        "Dead letters, and what waits",
        (
            _rate("Dead letters", "incentives_dead_letters_total", "reason"),
            _level("Open, by cause", "incentives_open_dead_letters", "cause"),
            _level("The oldest of them", "incentives_open_dead_letters_oldest_seconds", "cause", unit="s"),
            _level("On the broker", 'incentives_queue_messages{role="dead-letter"}', "queue", "state"),
            _rate("Collected", "incentives_collected_total", "kind"),
            _level("Anomalies that nobody has resolved", "incentives_open_anomalies", "reason"),
            _level("Facts that wait for their order", "incentives_waiting_facts"),
            _level("The oldest of them", "incentives_waiting_oldest_seconds", unit="s"),
            _level("Outcomes not yet published", "incentives_outbox_unpublished", "destination"),
            _level("The oldest of them", "incentives_outbox_oldest_seconds", "destination", unit="s"),
            _rate("Outcomes published", "incentives_relay_published_total", "destination"),
        ),
    ),
    (
        "The ledger and its database",
        (
            _level("Last run of a job", "incentives_job_age_seconds", "task", unit="s"),
            _level("Last run that went well", "incentives_job_well_age_seconds", "task", unit="s"),
            _level("Went well", "incentives_job_well", "task"),
            _level("How long it took", "incentives_job_duration_seconds", "task", unit="s"),
            _level("Verified up to transfer", "incentives_verified_transfer"),
            Panel(
                "Connections",
                "short",
                (
                    ("max by (application) (incentives_database_connections)", "{{application}}"),
                    ("max(incentives_database_connections_max)", "the server's most"),
                ),
            ),
            Panel(
                "Replication",
                "short",
                (
                    ("max by (sync) (incentives_database_standbys)", "standbys, {{sync}}"),
                    ("max(incentives_database_in_recovery)", "we reach a standby"),
                ),
            ),
            Panel(
                "Replication lag",
                "s",
                (
                    ("max by (sync) (incentives_database_replay_lag_seconds)", "{{sync}}"),
                    ("max(incentives_database_replay_age_seconds)", "of the standby that we reach"),
                ),
            ),
        ),
    ),
    (
        "Asked by people and programs",
        (
            _rate("Quote requests", "incentives_quotes_total", "source", "disposition"),
            _quantiles("Quote request to answer", "incentives_quote_seconds", "source"),
            _rate("Requests to the console", "incentives_http_requests_total", "area", "status"),
            _quantiles("Time until the console answers", "incentives_http_request_seconds", "area"),
        ),
    ),
    (
        "Money, in minor units",
        (
            _rate("Coupons redeemed", "incentives_redemptions_total", "campaign"),
            _rate("Refused", "incentives_refusals_total", "campaign", "reason"),
            _level("Net spend", "incentives_campaign_net_spend_minor_units", "campaign", "currency"),
            _one(
                "Spent of the budget",
                "percentunit",
                "max by (campaign, currency) (incentives_campaign_net_spend_minor_units)"
                " / max by (campaign, currency) (incentives_campaign_budget_minor_units > 0)",
                "{{campaign}} {{currency}}",
            ),
            _level("Owed to customers", "incentives_liability_minor_units", "kind", "currency"),
            _level("Owed by customers", "incentives_debt_minor_units", "currency"),
            _level("Expired and not given back", "incentives_breakage_minor_units", "currency"),
        ),
    ),
)


def metrics_of(expression: str) -> set[str]:
    """The metrics of the table that an expression stands on."""
    return {SUFFIX.sub("", name) if name not in METRICS else name for name in METRIC.findall(expression)}


def dashboard() -> dict[str, Any]:
    """As Grafana imports it."""
    return {
        "uid": "incentive-fleet",
        "title": "Incentive fleet",
        "tags": ["incentives"],
        "schemaVersion": 39,
        "editable": False,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "timezone": "utc",
        "templating": {
            "list": [{"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Prometheus"}]
        },
        "panels": list(_placed(ROWS)),
    }


def _placed(rows: Iterable[tuple[str, tuple[Panel, ...]]]) -> Iterator[dict[str, Any]]:
    number, y = 1, 0
    for title, panels in rows:
        yield {
            "id": number,
            "type": "row",
            "title": title,
            "gridPos": {"x": 0, "y": y, "w": ACROSS, "h": 1},
            "panels": [],
        }
        number, y = number + 1, y + 1
        for at, panel in enumerate(panels):
            row, column = divmod(at, ACROSS // WIDTH)
            place = {"x": column * WIDTH, "y": y + row * HEIGHT, "w": WIDTH, "h": HEIGHT}
            yield {"id": number, "gridPos": place} | _drawn(panel)
            number += 1
        y += -(-len(panels) * WIDTH // ACROSS) * HEIGHT


def _drawn(panel: Panel) -> dict[str, Any]:
    told = {metric: METRICS[metric].help for expression, _ in panel.shown for metric in sorted(metrics_of(expression))}
    return {
        "type": "stat" if panel.stat else "timeseries",
        "title": panel.title,
        "description": "\n".join(told.values()),
        "datasource": SOURCE,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + number), "datasource": SOURCE, "expr": expression, "legendFormat": legend}
            for number, (expression, legend) in enumerate(panel.shown)
        ],
    }


def text() -> str:
    """What grafana.json holds."""
    return json.dumps(dashboard(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    PLACE.write_text(text(), encoding="utf-8")
