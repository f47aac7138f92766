"""`incentives serve`."""

from __future__ import annotations

import click

from incentive_fleet.cli import interrupts
from incentive_fleet.cli.command_line import database_url, fail, format_option, settings, until_idle_option
from incentive_fleet.cli.printing import emit, say


@click.command()
@until_idle_option(5, "End when nobody asked anything for {}.")
@format_option
def serve(until_idle: float | None, output: str) -> None:
    """Serve the console and the GraphQL API. SIGTERM ends it, and lets what is under way end first.

    Needs the packages of incentive-fleet[console]. Without INCENTIVES_OIDC_ISSUER nobody logs in, and it listens on loopback only.
    """
    try:
        from incentive_fleet.console.serving import answered
        from incentive_fleet.console.serving import serve as serve_console
    except ImportError as error:
        fail(f"serve needs the packages of incentive-fleet[console]: {error.name} is missing", code=2)
    from incentive_fleet.brokers.registry import configured
    from incentive_fleet.consumers.garbage import set_aside
    from incentive_fleet.ledger.logins import say_if_owner
    from incentive_fleet.logs import start_logging
    from incentive_fleet.measuring import Tally
    from incentive_fleet.telemetry.watching import OF_CONSOLE, Watched, watching

    values = settings()
    url = database_url(values)
    start_logging(values.log_level, values.log_format)
    stop = interrupts.serve(values.drain_s)
    say_if_owner(url)
    tally = Tally()
    seen = Watched("serve", lambda: False, lambda: tally, OF_CONSOLE, depths=False)
    set_aside()
    with watching(values, configured(values), stop, seen):
        serve_console(values, stop, tally, until_idle)
    counts = answered(tally)
    told = ", ".join(f"{count} {area}" for area, count in sorted(counts.items())) or "none"
    emit({"answered": dict(sorted(counts.items()))}, output, lambda: say(f"Requests answered: {told}."))
