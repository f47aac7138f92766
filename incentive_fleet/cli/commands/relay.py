"""`incentives relay`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

import click

from incentive_fleet.cli import interrupts
from incentive_fleet.cli.command_line import database_url, fail, format_option, settings, until_idle_option
from incentive_fleet.cli.printing import emit, say
from incentive_fleet.cli.work import showing

if TYPE_CHECKING:
    from incentive_fleet.brokers.contract import Publisher
    from incentive_fleet.producers.relay_loop import RelaySummary


@click.command()
@until_idle_option(5, "End when nothing was left to publish for {}.")
@format_option
def relay(until_idle: float | None, output: str) -> None:
    """Publish outcomes from the outbox to every configured broker, at least once. SIGTERM ends it between two batches."""
    from incentive_fleet.brokers.registry import configured, none_configured, open_outcomes
    from incentive_fleet.ledger.logins import say_if_owner
    from incentive_fleet.logs import start_logging
    from incentive_fleet.pausing import Pauses
    from incentive_fleet.producers.relay_loop import RelayPace, run_relay
    from incentive_fleet.telemetry.watching import OF_RELAY, Watched, watching

    values = settings()
    url = database_url(values)
    brokers = configured(values)
    if not brokers:
        fail(none_configured("there is nowhere to publish to"), code=2)
    start_logging(values.log_level, values.log_format)
    stop = interrupts.serve(values.drain_s)
    say_if_owner(url)
    counts: Counter[str] = Counter()
    pauses = Pauses()
    with ExitStack() as stack, showing("publishing", lambda: _line(counts)):
        seen = Watched("relay", lambda: pauses.paused, pauses.tally, OF_RELAY, depths=False)
        stack.enter_context(watching(values, brokers, stop, seen))
        publishers: dict[str, Publisher] = {
            broker.destination: stack.enter_context(closing(open_outcomes(values, broker, stop))) for broker in brokers
        }
        summary = run_relay(
            url,
            publishers,
            stop=stop,
            pace=RelayPace(values.batch_size, until_idle, values.pause_max_s),
            counts=counts,
            pauses=pauses,
        )
    emit(summary, output, lambda: say(f"Published {_line(summary.published)}; left: {_left(summary)}."))
    if any(summary.refused.values()):
        raise SystemExit(1)


def _line(published: Mapping[str, int]) -> str:
    return ", ".join(f"{count} to {name}" for name, count in published.items()) or "nothing"


def _left(summary: RelaySummary) -> str:
    if summary.unpublished is None:
        return "unknown, the database is away"
    return ", ".join(f"{count} for {name}" for name, count in summary.unpublished.items() if count) or "nothing"
