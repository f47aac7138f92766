"""`incentives answer-quotes`."""

from __future__ import annotations

import logging
import time

import click

from incentive_fleet.brokers import registry
from incentive_fleet.cli import interrupts
from incentive_fleet.cli.command_line import format_option, settings, until_idle_option
from incentive_fleet.cli.printing import emit, say
from incentive_fleet.cli.work import showing

log = logging.getLogger(__name__)


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
    from incentive_fleet.logs import start_logging
    from incentive_fleet.stopping import DrainCut
    from incentive_fleet.telemetry.watching import OF_QUOTES, Watched, watching

    values = settings()
    brokers = list(registry.BROKERS) if source == "all" else [registry.by_source(source)]
    for broker in brokers:  # a mistake is one sentence now, rather than in each worker
        registry.parts_of(broker).read_settings(values)
    values.need_database_url()
    start_logging(values.log_level, values.log_format)
    stop = interrupts.serve(values.drain_s)
    say_if_owner(values.need_database_url())
    fleet = Fleet(brokers, processes, values, until_idle, told=stop, quotes=True)
    interrupts.on_cut(fleet.kill)
    started = time.perf_counter()
    try:
        seen = Watched("quotes", lambda: fleet.paused, fleet.tally, OF_QUOTES, depths=False)
        with watching(values, brokers, stop, seen), showing("answering", lambda: _told(fleet.counts())):
            healthy = fleet.run()
    except DrainCut as error:
        log.error("%s", error)
        healthy = False
    counts = dict(sorted(fleet.counts().items()))
    emit(
        {"counts": counts, "seconds": round(time.perf_counter() - started, 3), "healthy": healthy},
        output,
        lambda: say(_told(counts)),
    )
    if not healthy:
        raise SystemExit(1)


def _told(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {what}" for what, count in sorted(counts.items())) or "nothing came"
