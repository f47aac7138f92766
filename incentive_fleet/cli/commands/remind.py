"""`incentives remind --as-of T --days D`."""

from __future__ import annotations

from datetime import datetime

import click

from incentive_fleet.cli.command_line import MOMENT, format_option, open_reader, settings
from incentive_fleet.cli.printing import emit, say
from incentive_fleet.cli.work import working


@click.command("remind")
@click.option("--as-of", type=MOMENT, required=True, help="RFC 3339 time; the days after its UTC day are looked at.")
@click.option("--days", type=click.IntRange(1, 365), required=True, help="How many days ahead.")
@format_option
def remind_command(as_of: datetime, days: int, output: str) -> None:
    """Announce credit that expires soon, a notice a customer, currency and day. Safe to repeat."""
    from incentive_fleet.ledger.reminders import remind

    with open_reader(settings(), "remind") as connection, working("Reminding") as progress:
        told = remind(connection, as_of, days, lambda notices: progress(0, f"{notices:,} notices are written"))
    emit({"notices": told}, output, lambda: say(f"{told:,} notices of credit that expires within {days} days."))
