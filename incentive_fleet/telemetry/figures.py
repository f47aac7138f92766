"""What was read from the ledger and the brokers, as gauges. No I/O of its own: it is given a connection, or what was read."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from psycopg import Connection

from incentive_fleet.brokers.topology import QueueDepth
from incentive_fleet.dead_letters.standing import read_open
from incentive_fleet.ledger.jobs import read_runs
from incentive_fleet.ledger.standing import read_backlog, read_campaigns, read_money, read_server
from incentive_fleet.measuring import Key

Levels = dict[Key, float]


def of_queues(source: str, depths: Iterable[QueueDepth]) -> Levels:
    """What lies in a broker's queues, and for how long; what it does not tell is absent."""
    depths = list(depths)
    ages = {
        ("incentives_queue_oldest_seconds", source, depth.queue): depth.oldest_s
        for depth in depths
        if depth.oldest_s is not None
    }
    return ages | {
        ("incentives_queue_messages", source, depth.queue, depth.role, state): count
        for depth in depths
        for state, count in (("ready", depth.ready), ("in-flight", depth.in_flight), ("delayed", depth.delayed))
        if count is not None
    }


def of_backlog(connection: Connection[Any]) -> Levels:
    """What waits, is odd or is unpublished, and the jobs of a schedule. Raises TransientError and StatementTimedOut, as all do."""
    backlog = read_backlog(connection)
    levels: Levels = {
        ("incentives_waiting_facts",): backlog.waiting,
        ("incentives_waiting_oldest_seconds",): backlog.waiting_oldest_s,
    }
    levels |= {("incentives_open_anomalies", reason): count for reason, count in backlog.anomalies.items()}
    for destination, (count, oldest_s) in backlog.outbox.items():
        levels["incentives_outbox_unpublished", destination] = count
        levels["incentives_outbox_oldest_seconds", destination] = oldest_s
    return levels | of_jobs(connection)


def of_jobs(connection: Connection[Any]) -> Levels:
    """When the jobs of a schedule ran last, and what came of it; how far the ledger is verified."""
    runs, levels = read_runs(connection), dict[Key, float]()
    for job, run in runs.items():
        levels["incentives_job_age_seconds", job] = run.age_s
        levels["incentives_job_duration_seconds", job] = run.seconds
        levels["incentives_job_well", job] = run.well
        if run.well_age_s is not None:
            levels["incentives_job_well_age_seconds", job] = run.well_age_s
    if "verify" in runs:
        levels["incentives_verified_transfer",] = runs["verify"].figures["point"]
    return levels


def of_dead_letters(connection: Connection[Any]) -> Levels:
    """Open letters by cause; none at all is told as one zero, so that an alert can tell it from silence."""
    levels: Levels = {("incentives_open_dead_letters", "none"): 0}
    for one in read_open(connection):
        levels["incentives_open_dead_letters", one.cause] = one.letters
        levels["incentives_open_dead_letters_oldest_seconds", one.cause] = one.oldest_s
    return levels


def of_server(connection: Connection[Any]) -> Levels:
    """Connections and replication."""
    server = read_server(connection)
    levels: Levels = {
        ("incentives_database_connections_max",): server.connections_max,
        ("incentives_database_in_recovery",): server.in_recovery,
    }
    levels |= {("incentives_database_connections", name): count for name, count in server.connections.items()}
    if server.replay_age_s is not None:
        levels["incentives_database_replay_age_seconds",] = server.replay_age_s
    for sync, (number, lag_s) in server.standbys.items():
        levels["incentives_database_standbys", sync] = number
        if lag_s is not None:
            levels["incentives_database_replay_lag_seconds", sync] = lag_s
    return levels


def of_campaigns(connection: Connection[Any]) -> Levels:
    """Spending and budgets."""
    levels: Levels = {}
    for one in read_campaigns(connection):
        levels["incentives_campaign_net_spend_minor_units", one.campaign_id, one.currency] = one.net_spend
        if one.budget is not None:
            levels["incentives_campaign_budget_minor_units", one.campaign_id, one.currency] = one.budget
    return levels


def of_money(connection: Connection[Any]) -> Levels:
    """What is owed, by currency."""
    money, levels = read_money(connection), dict[Key, float]()
    for kind, sums in (("wallet", money.wallets), ("pending", money.pending)):
        levels |= {("incentives_liability_minor_units", kind, currency): amount for currency, amount in sums.items()}
    levels |= {("incentives_debt_minor_units", currency): amount for currency, amount in money.debt.items()}
    return levels | {
        ("incentives_breakage_minor_units", currency): amount for currency, amount in money.breakage.items()
    }
