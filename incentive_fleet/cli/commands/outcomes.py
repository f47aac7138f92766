"""`incentives outcomes export`."""

from __future__ import annotations

import json

import click

from incentive_fleet.cli.command_line import Group, lines_option, open_reader, settings
from incentive_fleet.cli.printing import say_json_line
from incentive_fleet.cli.work import working


@click.group(cls=Group)
def outcomes() -> None:
    """What was told of orders and credit."""


@outcomes.command()
@lines_option
def export() -> None:
    """Print the outbox, one CloudEvent as published a line, in the order in which they were written."""
    from incentive_fleet.ledger.outcome_export import outcomes as every_outcome

    with open_reader(settings(), "outcomes export") as connection, working("Exporting", prints=True) as progress:
        for number, body in enumerate(every_outcome(connection), 1):
            say_json_line(json.loads(body))
            progress(number, f"{number:,} outcomes are printed")
