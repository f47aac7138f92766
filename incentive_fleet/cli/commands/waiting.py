"""`incentives waiting`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from incentive_fleet.cli.command_line import emit, format_option, open_reader, settings

if TYPE_CHECKING:
    from incentive_fleet.ledger.waiting import WaitingFact


@click.command()
@click.option("--older-than-hours", type=click.FloatRange(0), default=0.0, show_default=True)
@click.option("--limit", type=click.IntRange(1, 10_000), default=100, show_default=True)
@format_option
def waiting(older_than_hours: float, limit: int, output: str) -> None:
    """Refunds and deliveries whose order never came, the longest waiting first."""
    from incentive_fleet.ledger.waiting import list_waiting

    with open_reader(settings(), "waiting") as connection:
        facts = list_waiting(
            connection, now=datetime.now(UTC), older_than=timedelta(hours=older_than_hours), limit=limit
        )
    emit({"waiting": facts}, output, lambda console: console.print(_table(facts) if facts else "Nothing waits."))


def _table(facts: list[WaitingFact]) -> Any:
    from rich.table import Table

    table = Table("order", "fact", "event", "happened", "waits since", "age")
    for fact in facts:
        age = str(timedelta(seconds=fact.age_s))
        table.add_row(fact.order_id, fact.fact, f"{fact.source} {fact.event_id}", fact.happened_at, fact.since, age)
    return table
