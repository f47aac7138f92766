"""`incentives consume`."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import click

from incentive_fleet.brokers import registry
from incentive_fleet.cli import fleets
from incentive_fleet.cli.command_line import format_option, settings, until_idle_option
from incentive_fleet.cli.work import showing
from incentive_fleet.errors import TransientError

if TYPE_CHECKING:
    from incentive_fleet.brokers.contract import Broker
    from incentive_fleet.consumers.supervisor import Fleet
    from incentive_fleet.settings import Settings

log = logging.getLogger(__name__)

TOLD = 20  # lines of one warning
COLLECT_S = 1.0  # the dead-letter queues are empty when nothing came from them for so long


@click.command()
@click.option("--from", "source", type=click.Choice([*registry.sources(), "all"]), required=True, help="Which broker.")
@click.option("--processes", type=click.IntRange(1, 64), default=1, show_default=True, help="Worker processes.")
@until_idle_option(30, "End after {} without a message, when the queues hold nothing ready, delayed or in flight.")
@click.option(
    "--collect/--no-collect",
    default=True,
    show_default=True,
    help="Meanwhile bring dead letters into Postgres, and carry replays on.",
)
@format_option
def consume(source: str, processes: int, until_idle: float | None, collect: bool, output: str) -> None:
    """Run the fleet. SIGTERM and SIGINT drain it within INCENTIVES_DRAIN_S seconds; workers that die are restarted."""
    from incentive_fleet.consumers.supervisor import Fleet
    from incentive_fleet.dead_letters.carrying import carrying
    from incentive_fleet.dead_letters.collector import collecting
    from incentive_fleet.ledger.logins import say_if_owner
    from incentive_fleet.measuring import sum_of
    from incentive_fleet.pausing import Pauses
    from incentive_fleet.telemetry.watching import EVERYTHING, Watched, watching

    values = settings()
    brokers, stop = fleets.begin(source, values)
    # Beside the start, for an API that is away must not hold up consuming.
    threading.Thread(target=_tell_policies, args=(values, brokers), name="policies", daemon=True).start()
    say_if_owner(values.need_database_url())
    fleet, pauses = Fleet(brokers, processes, values, until_idle, told=stop), Pauses()
    started = time.perf_counter()
    seen = Watched("fleet", lambda: fleet.paused, lambda: sum_of([fleet.tally(), pauses.tally()]), EVERYTHING)
    beside: list[AbstractContextManager[object]] = [watching(values, brokers, stop, seen)]
    if collect:
        drain_s = None if until_idle is None else COLLECT_S
        beside.append(collecting(brokers, values, stop, drain_s=drain_s, pauses=pauses))
        beside.append(carrying(values, stop))
    beside.append(showing("consuming", lambda: _line(fleet, started)))
    fleets.run(fleet, beside, output, _counted)


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{n} {what}" for what, n in counts.items()) or "nothing came"


def _tell_policies(values: Settings, brokers: list[Broker]) -> None:
    """Log what the broker's policies can take from our queues, or that it could not be looked at."""
    from incentive_fleet.brokers.declare import check_policies

    try:
        report = check_policies(values, brokers)
    except TransientError as error:
        log.warning("policies of the broker not looked at", extra={"error": str(error)})
        return
    for sentence in report.unseen:
        log.info("policies of the broker not looked at", extra={"error": sentence})
    if report.drift:
        told = [f"{drift.name}: {drift.attribute} is {drift.actual}" for drift in report.drift]
        more = [f"and {len(told) - TOLD} more"] if len(told) > TOLD else []
        log.warning("policies of the broker can take messages", extra={"policies": [*told[:TOLD], *more]})


def _line(fleet: Fleet, started: float) -> str:
    counts, seconds = fleet.counts(), time.perf_counter() - started
    handled = sum(counts[verdict] for verdict in ("applied", "waiting", "duplicate", "conflict"))
    dead = sum(count for name, count in counts.items() if name.startswith("dead-letter:"))
    return f"{handled:,} events, {handled / seconds:,.0f}/s, {dead} dead letters{', paused' if fleet.paused else ''}"
