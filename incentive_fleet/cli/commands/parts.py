"""`incentives up` and `incentives down`: embedded parts that stay."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import click

from incentive_fleet.cli.command_line import format_option, settings
from incentive_fleet.cli.printing import emit, say_raw, tell

state_option = click.option(
    "--state",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(".incentives"),
    show_default=True,
    metavar="DIR",
    help="The folder that keeps the parts' data.",
)


@click.command()
@state_option
@format_option
def up_command(state: Path, output: str) -> None:
    """Start Postgres, RabbitMQ and SNS/SQS, migrated and with topology; print `export NAME=value` lines. Safe to repeat."""
    from incentive_fleet.brokers import declare
    from incentive_fleet.embedded import up
    from incentive_fleet.ledger.migrate import upgrade

    environment = up(state, tell=tell)
    os.environ.update(environment)  # boto3 reads its credentials there
    values = settings()
    upgrade(*values.need_owner_urls())
    declare.apply(values)
    lines = [f"export {name}={shlex.quote(value)}" for name, value in environment.items()]
    emit(environment, output, lambda: say_raw("\n".join([*lines, ""])))  # for a shell, so never folded


@click.command()
@state_option
@format_option
def down_command(state: Path, output: str) -> None:
    """Stop the parts that `up` started, and keep their data. Safe to repeat."""
    from incentive_fleet.embedded import down

    down(state)
    emit(
        {"state": str(state), "running": False},
        output,
        lambda: tell(f"Nothing runs in {state}."),
    )
