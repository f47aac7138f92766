"""`incentives wallets hold` and `release`."""

from __future__ import annotations

import click

from incentive_fleet.cli.command_line import TEXT, Group, format_option, open_reader, settings
from incentive_fleet.cli.printing import emit, say

reason_option = click.option("--reason", type=TEXT, required=True, help="Why; it is kept.")


@click.group(cls=Group)
def wallets() -> None:
    """Put customers' credit on hold, or let it go."""


@wallets.command()
@click.argument("customer", type=TEXT)
@reason_option
@format_option
def hold(customer: str, reason: str, output: str) -> None:
    """Hold CUSTOMER's credit in all currencies: placings apply none of it, all else goes on. Safe to repeat."""
    from incentive_fleet.ledger.holds import hold as put_on_hold

    with open_reader(settings(), "wallets hold") as connection:
        new = put_on_hold(connection, customer, reason)
    result = "held" if new else "held-before"
    emit({"customer_id": customer, "result": result}, output, lambda: say(f"{customer}: {result}"))


@wallets.command()
@click.argument("customer", type=TEXT)
@reason_option
@format_option
def release(customer: str, reason: str, output: str) -> None:
    """Let CUSTOMER's credit be applied again. Safe to repeat."""
    from incentive_fleet.ledger.holds import release as let_go

    with open_reader(settings(), "wallets release") as connection:
        new = let_go(connection, customer, reason)
    result = "released" if new else "not-held"
    emit({"customer_id": customer, "result": result}, output, lambda: say(f"{customer}: {result}"))
