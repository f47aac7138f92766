"""`incentives logins`: who is logged in to the console, and to put somebody out."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from incentive_fleet.cli.command_line import TEXT, Group, actor_option, format_option, login_name, open_reader, settings
from incentive_fleet.cli.printing import emit, say, say_table


@click.group(cls=Group)
def logins() -> None:
    """Logins of the console: list those that hold, end a person's."""


@logins.command(name="list")
@click.option("--ended", is_flag=True, help="Who was put out instead, by whom and when: the newest 1,000 times.")
@format_option
def list_them(ended: bool, output: str) -> None:
    """List the newest 1,000 logins that hold."""
    from incentive_fleet.ledger.console_logins import list_logins, list_put_out

    with open_reader(settings(), "logins list") as connection:
        if ended:
            put_out = list_put_out(connection)
            acts = ((one.name, one.ended, one.actor, one.acted_at) for one in put_out)
            emit({"ended": put_out}, output, lambda: say_table(("name", "ended", "actor", "acted_at"), acts))
            return
        found = list_logins(connection, datetime.now(UTC))
    columns = ("name", "roles", "began_at", "ends_at")
    rows = ((one.name, ", ".join(one.roles), one.began_at, one.ends_at) for one in found)
    emit({"logins": found}, output, lambda: say_table(columns, rows))


@logins.command()
@click.argument("name", type=TEXT, metavar="NAME")
@actor_option
@format_option
def end(name: str, actor: str | None, output: str) -> None:
    """End all logins of the person NAME, ten seconds from now at the latest. Safe to repeat."""
    from incentive_fleet.ledger.console_logins import end_logins_of
    from incentive_fleet.ledger.people import actor_of

    with open_reader(settings(), "logins end") as connection:
        acting = actor_of(connection, actor, login_name())
        ended = end_logins_of(connection, name, acting, datetime.now(UTC))
    emit({"name": name, "ended": ended}, output, lambda: say(f"logins of {name} ended: {ended}"))
