"""`incentives waiting`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import click

from incentive_fleet.cli.command_line import format_option, open_reader, settings
from incentive_fleet.cli.printing import emit, say, say_table

if TYPE_CHECKING:
    from incentive_fleet.ledger.waiting import WaitingFact


HOURS_MAX = 876_000  # a hundred years


@click.command()
@click.option(
    "--older-than-hours",
    type=click.FloatRange(0, HOURS_MAX),
    default=0.0,
    show_default=True,
    help="Only what has waited so long.",
)
@click.option("--limit", type=click.IntRange(1, 10_000), default=100, show_default=True, help="Rows at the most.")
@format_option
def waiting(older_than_hours: float, limit: int, output: str) -> None:
    """Facts that wait for their order, or for its final basket, the longest waiting first."""
    from incentive_fleet.ledger.waiting import list_waiting

    with open_reader(settings(), "waiting") as connection:
        facts = list_waiting(
            connection, now=datetime.now(UTC), older_than=timedelta(hours=older_than_hours), limit=limit
        )
    emit({"waiting": facts}, output, lambda: _show(facts))


def _show(facts: list[WaitingFact]) -> None:
    rows = (
        (
            *(one.order_id, one.fact, one.waits_for, one.source, one.event_id, one.happened_at, one.since),
            str(timedelta(seconds=one.age_s)),
        )
        for one in facts
    )
    say_table(("order", "fact", "waits for", "source", "event", "happened", "waits since", "age"), rows)
    if not facts:
        say("Nothing waits.")
