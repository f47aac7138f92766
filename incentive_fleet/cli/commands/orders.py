"""`incentives orders finalize ORDER --as-placed`."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from incentive_fleet.cli.command_line import TEXT, Group, format_option, open_session, settings
from incentive_fleet.cli.printing import emit, say


@click.group(cls=Group)
def orders() -> None:
    """What a person does for an order."""


@orders.command()
@click.argument("order", type=TEXT)
@click.option("--as-placed", is_flag=True, required=True, help="With the lines of the placing.")
@click.option("--reason", type=TEXT, required=True, help="Why; it is kept.")
@format_option
def finalize(order: str, as_placed: bool, reason: str, output: str) -> None:
    """Finalize estimated ORDER whose final basket never comes; one that comes later is a conflict."""
    from incentive_fleet.ledger.finalizing import finalize_as_placed

    if not as_placed:
        raise click.UsageError("--as-placed is needed: no other basket can be given here")
    with open_session(settings(), "orders finalize") as session:
        finalize_as_placed(session, order, reason, datetime.now(UTC))
    emit({"order_id": order, "result": "finalized"}, output, lambda: say(f"{order}: finalized as placed"))
