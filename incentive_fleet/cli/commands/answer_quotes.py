"""`incentives answer-quotes`."""

from __future__ import annotations

import click

from incentive_fleet.brokers import registry
from incentive_fleet.cli import fleets
from incentive_fleet.cli.command_line import format_option, settings, until_idle_option
from incentive_fleet.cli.work import showing


@click.command("answer-quotes")
@click.option("--from", "source", type=click.Choice([*registry.sources(), "all"]), required=True, help="Which broker.")
@click.option("--processes", type=click.IntRange(1, 64), default=1, show_default=True, help="Worker processes.")
@until_idle_option(30, "End after {} without a request, when the queue holds nothing ready or in flight.")
@format_option
def answer_quotes(source: str, processes: int, until_idle: float | None, output: str) -> None:
    """Answer quote requests from their queue, writing nothing. SIGTERM and SIGINT drain it within INCENTIVES_DRAIN_S seconds;
    workers that die are restarted."""
    from incentive_fleet.consumers.supervisor import Fleet
    from incentive_fleet.ledger.logins import say_if_owner
    from incentive_fleet.telemetry.watching import OF_QUOTES, Watched, watching

    values = settings()
    brokers, stop = fleets.begin(source, values)
    say_if_owner(values.need_database_url())
    fleet = Fleet(brokers, processes, values, until_idle, told=stop, quotes=True)
    seen = Watched("quotes", lambda: fleet.paused, fleet.tally, OF_QUOTES, depths=False)
    beside = [watching(values, brokers, stop, seen), showing("answering", lambda: _told(fleet.counts()))]
    fleets.run(fleet, beside, output, _told)


def _told(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {what}" for what, count in sorted(counts.items())) or "nothing came"
