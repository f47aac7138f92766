"""`incentives audiences load` and `remove`."""

from __future__ import annotations

from pathlib import Path

import click

from incentive_fleet.cli.command_line import Group, existing_file, format_option, open_reader, settings
from incentive_fleet.cli.printing import emit, say
from incentive_fleet.cli.work import working


@click.group(cls=Group)
def audiences() -> None:
    """Lists of customers that campaigns are for, or are not for."""


@audiences.command()
@click.argument("file", type=existing_file)
@format_option
def load(file: Path, output: str) -> None:
    """Add the customers of FILE.csv[.gz] to audiences, all or nothing. Safe to repeat. Columns: audience, customer_id."""
    from incentive_fleet.ledger.audiences import add_members
    from incentive_fleet.ledger.code_file import read_members

    with open_reader(settings(), "audiences load") as connection, working("Loading"):
        added = add_members(connection, read_members(file))
    emit({"added": added}, output, lambda: say(f"{added:,} customers added."))


@audiences.command()
@click.argument("file", type=existing_file)
@format_option
def remove(file: Path, output: str) -> None:
    """Take the customers of FILE.csv[.gz] out of audiences, all or nothing. Safe to repeat. Columns: audience, customer_id."""
    from incentive_fleet.ledger.audiences import remove_members
    from incentive_fleet.ledger.code_file import read_members

    with open_reader(settings(), "audiences remove") as connection, working("Removing"):
        removed = remove_members(connection, read_members(file))
    emit({"removed": removed}, output, lambda: say(f"{removed:,} customers taken out."))
