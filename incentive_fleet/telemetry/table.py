"""Every metric there is: its name, type, labels and meaning. docs/metrics.md is checked against it, and nothing else is told.

Names and units are Prometheus' own: seconds, bytes, `_total` of what only grows; money in minor units beside its currency.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. `top` bounds a label whose values are not ours: the largest so many, the rest is "other"."""

    name: str
    type: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    help: str
    top: int | None = None


TOP_CAMPAIGNS: Final = 50
TOP_CAUSES: Final = 20
TOP_APPLICATIONS: Final = 20

# Counted by the process itself, all its workers together. They begin at zero when it starts.
COUNTED: Final = (
    Metric(
        "incentives_deliveries_total",
        "counter",
        ("source", "queue", "disposition"),
        "Deliveries settled, by what became of them: ack, retry, dead-letter, release.",
    ),
    Metric(
        "incentives_dead_letters_total",
        "counter",
        ("reason",),
        "Dead letters that a broker has taken, by reason.",
    ),
    Metric(
        "incentives_events_total",
        "counter",
        ("outcome",),
        "Events of committed batches: applied, waiting, duplicate, conflict, deferred.",
    ),
    Metric("incentives_batch_events", "histogram", (), "Events in a committed batch."),
    Metric(
        "incentives_batch_phase_seconds",
        "histogram",
        ("phase",),
        "Time of a batch's phases: receive (with the wait for it), decode, lock, decide, write, commit, settle; of quotes reply.",
    ),
    Metric(
        "incentives_http_requests_total",
        "counter",
        ("area", "status"),
        "Requests that the console answered: pages, graphql, login, static.",
    ),
    Metric(
        "incentives_http_request_seconds",
        "histogram",
        ("area",),
        "Time from a request's head to the head of its answer.",
    ),
    Metric(
        "incentives_publish_to_commit_seconds",
        "histogram",
        ("source", "clock"),
        "From publishing to COMMIT, as message (broker, publisher) or event (its time) tells when it began.",
    ),
    Metric(
        "incentives_commit_to_ack_seconds", "histogram", (), "From COMMIT until the broker was told, of each delivery."
    ),
    Metric(
        "incentives_last_received_age_seconds",
        "gauge",
        ("source", "queue"),
        "Age of the message received last, when it came; 0 once nothing waits.",
    ),
    Metric(
        "incentives_transaction_retries_total",
        "counter",
        ("cause",),
        "Batches tried again for another's sake: deadlock, serialization-failure, identity-taken.",
    ),
    Metric("incentives_batch_splits_total", "counter", (), "Batches halved to find what of them fails."),
    Metric(
        "incentives_pauses_total",
        "counter",
        ("activity", "cause"),
        "Times that work began to wait for a part, by the class of the error.",
    ),
    Metric(
        "incentives_paused",
        "gauge",
        ("activity", "cause"),
        "How many consumers, collectors or lanes of the relay wait for a part now.",
    ),
    Metric("incentives_held_bytes", "gauge", (), "Bytes held unsettled by all workers, counted as decoded."),
    Metric("incentives_workers_wanted", "gauge", (), "Worker processes that there should be."),
    Metric("incentives_workers_alive", "gauge", (), "Worker processes that there are."),
    Metric("incentives_worker_restarts_total", "counter", (), "Worker processes started in place of one that ended."),
    Metric(
        "incentives_collected_total",
        "counter",
        ("kind",),
        "Dead letters brought into Postgres: new, returned from a replay, again, same.",
    ),
    Metric("incentives_relay_published_total", "counter", ("destination",), "Outcomes that a broker has confirmed."),
    Metric(
        "incentives_quotes_total",
        "counter",
        ("source", "disposition"),
        "Quote requests by what became of them: answered, malformed, quote-expired, reply-unroutable, reply-refused, "
        "reply-unconfirmed, unexpected-error.",
    ),
    Metric(
        "incentives_quote_seconds",
        "histogram",
        ("source",),
        "From a quote request's arrival in the process until the broker has its answer.",
    ),
    Metric("incentives_redemptions_total", "counter", ("campaign",), "Coupons redeemed, by campaign.", TOP_CAMPAIGNS),
    Metric(
        "incentives_refusals_total",
        "counter",
        ("campaign", "reason"),
        "Coupons and earnings refused, by campaign (none: no campaign has that code) and reason.",
        TOP_CAMPAIGNS,
    ),
)

# Read from the ledger and the brokers. Absent while they cannot be read; incentives_reading_up is 0 then.
READ: Final = (
    Metric(
        "incentives_reading_up",
        "gauge",
        ("reading",),
        "1 when the gauges of that part could be read, 0 when they are absent.",
    ),
    Metric(
        "incentives_reading_age_seconds",
        "gauge",
        ("reading",),
        "How long ago they were read; several scrapes share one reading.",
    ),
    Metric(
        "incentives_queue_messages",
        "gauge",
        ("source", "queue", "role", "state"),
        "Messages in a queue; role: source, retry, dead-letter; state: ready, in-flight, delayed.",
    ),
    Metric(
        "incentives_queue_oldest_seconds",
        "gauge",
        ("source", "queue"),
        "Age of a queue's oldest message, as CloudWatch tells it; absent where no broker does.",
    ),
    Metric(
        "incentives_open_dead_letters",
        "gauge",
        ("cause",),
        "Collected dead letters that nobody has dealt with, by reason and, of unexpected errors, class.",
        TOP_CAUSES,
    ),
    Metric(
        "incentives_open_dead_letters_oldest_seconds", "gauge", ("cause",), "Age of the oldest of them.", TOP_CAUSES
    ),
    Metric("incentives_waiting_facts", "gauge", (), "Refunds and deliveries that wait for their order."),
    Metric("incentives_waiting_oldest_seconds", "gauge", (), "How long the oldest of them has waited."),
    Metric("incentives_open_anomalies", "gauge", ("reason",), "Anomalies that nobody has resolved."),
    Metric(
        "incentives_outbox_unpublished", "gauge", ("destination",), "Outcomes that a destination has not confirmed."
    ),
    Metric("incentives_outbox_oldest_seconds", "gauge", ("destination",), "Age of the oldest of them."),
    Metric(
        "incentives_job_age_seconds", "gauge", ("task",), "When expire, verify or verify-full began last, as an age."
    ),
    Metric("incentives_job_duration_seconds", "gauge", ("task",), "How long it took."),
    Metric("incentives_job_well", "gauge", ("task",), "1 when nothing was refused or found by it, else 0."),
    Metric("incentives_job_well_age_seconds", "gauge", ("task",), "When the last one that went well began, as an age."),
    Metric("incentives_verified_transfer", "gauge", (), "Number of the transfer up to which the ledger is verified."),
    Metric(
        "incentives_database_connections",
        "gauge",
        ("application",),
        "Connections to the ledger's database.",
        TOP_APPLICATIONS,
    ),
    Metric("incentives_database_connections_max", "gauge", (), "Connections that the server takes."),
    Metric("incentives_database_in_recovery", "gauge", (), "1 when we reach a standby, which takes no writes."),
    Metric("incentives_database_replay_age_seconds", "gauge", (), "Of a standby: age of what it replayed last."),
    Metric(
        "incentives_database_standbys",
        "gauge",
        ("sync",),
        "Standbys of the server, by how they are synchronized; unknown to a login that is no monitor.",
    ),
    Metric(
        "incentives_database_replay_lag_seconds",
        "gauge",
        ("sync",),
        "Longest replay lag of them, where the login may see it.",
    ),
    Metric(
        "incentives_campaign_net_spend_minor_units",
        "gauge",
        ("campaign", "currency"),
        "What a campaign has given and not got back.",
        TOP_CAMPAIGNS,
    ),
    Metric(
        "incentives_campaign_budget_minor_units",
        "gauge",
        ("campaign", "currency"),
        "Its budget, if it has one and has not ended.",
        TOP_CAMPAIGNS,
    ),
    Metric(
        "incentives_liability_minor_units",
        "gauge",
        ("kind", "currency"),
        "Owed to customers: wallet (may be spent) and pending (vests on delivery).",
    ),
    Metric(
        "incentives_debt_minor_units",
        "gauge",
        ("currency",),
        "Owed by customers, after a clawback of what they had spent.",
    ),
    Metric("incentives_breakage_minor_units", "gauge", ("currency",), "Expired and not given back."),
)

METRICS: Final = {metric.name: metric for metric in (*COUNTED, *READ)}
