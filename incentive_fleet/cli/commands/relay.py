"""`incentives relay`."""

from __future__ import annotations

import signal
import threading
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

import click

from incentive_fleet.cli.command_line import fail, format_option, settings
from incentive_fleet.cli.printing import emit, say

if TYPE_CHECKING:
    from incentive_fleet.brokers.publishing import Publisher


@click.command()
@click.option(
    "--until-idle",
    type=click.FloatRange(0.1, 86_400),
    is_flag=False,
    flag_value=5.0,
    metavar="SECONDS",
    help="End when nothing was left to publish for SECONDS (5 if none are given).",
)
@format_option
def relay(until_idle: float | None, output: str) -> None:
    """Publish outcomes from the outbox to every configured broker, at least once. SIGTERM ends it between two batches."""
    from incentive_fleet.brokers.registry import configured, open_outcomes
    from incentive_fleet.ledger.logins import say_if_owner
    from incentive_fleet.logs import log_json
    from incentive_fleet.producers.relay_loop import run_relay

    values = settings()
    database_url = values.need_database_url()
    destinations = configured(values)
    if not destinations:
        fail("Neither AWS_REGION nor INCENTIVES_RABBITMQ_URL is set: there is nowhere to publish to.", code=2)
    log_json()
    say_if_owner(values.need_database_url())
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with ExitStack() as stack:
        publishers: dict[str, Publisher] = {
            name: stack.enter_context(closing(open_outcomes(values, name))) for name in destinations
        }
        summary = run_relay(
            database_url,
            publishers,
            stop=stop,
            batch_size=values.batch_size,
            until_idle_s=until_idle,
            pause_max_s=values.pause_max_s,
        )
    published = ", ".join(f"{count} to {name}" for name, count in summary.published.items())
    left = ", ".join(f"{count} for {name}" for name, count in summary.unpublished.items() if count) or "nothing"
    emit(summary, output, lambda: say(f"Published {published}; left: {left}."))
    if any(summary.refused.values()):
        raise SystemExit(1)
