"""`incentives outcomes export`."""

from __future__ import annotations

import json

import click

from incentive_fleet.cli.command_line import Group, lines_option, open_reader, settings
from incentive_fleet.cli.printing import say_json_line


@click.group(cls=Group)
def outcomes() -> None:
    """What was told of orders and credit."""


@outcomes.command()
@lines_option
def export() -> None:
    """Print the outbox, one CloudEvent as published a line, in the order in which they were written."""
    from incentive_fleet.ledger.outcome_export import outcomes as every_outcome

    with open_reader(settings(), "outcomes export") as connection:
        for body in every_outcome(connection):
            say_json_line(json.loads(body))
