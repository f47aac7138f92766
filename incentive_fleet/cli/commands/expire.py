"""`incentives expire --as-of T`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from time import monotonic

import click

from incentive_fleet.cli.command_line import MOMENT, fail, format_option, open_session, settings
from incentive_fleet.cli.printing import emit, say
from incentive_fleet.cli.work import working

SHOWN_MAX = 20  # refused wallets named on a terminal; JSON has them all


@click.command("expire")
@click.option("--as-of", type=MOMENT, required=True, help="RFC 3339 time; lots whose expiry and grace lie before go.")
@click.option("--grace-hours", type=click.IntRange(0, 8_760), help="Instead of INCENTIVES_EXPIRY_GRACE_HOURS (24).")
@format_option
def expire_command(as_of: datetime, grace_hours: int | None, output: str) -> None:
    """Move what is left of expired lots to breakage. Safe to repeat, also twice at once."""
    from incentive_fleet.ledger.expiry import expire_lots, record_expiry

    values, began_at, began = settings(), datetime.now(UTC), monotonic()
    grace = timedelta(hours=values.expiry_grace_hours if grace_hours is None else grace_hours)
    with open_session(values, "expire") as session, working("Expiring") as progress:
        summary = expire_lots(
            session, as_of, grace, lambda wallets: progress(wallets, f"{wallets:,} wallets are swept")
        )
        record_expiry(session, summary, as_of, began_at, monotonic() - began)
    moved = ", ".join(f"{amount} {currency}" for currency, amount in sorted(summary.moved.items())) or "nothing"
    emit(
        summary,
        output,
        lambda: say(f"{summary.lots} lots of {summary.wallets} wallets expired; to breakage: {moved} (minor units)."),
    )
    if summary.refused:
        shown = [f"{one['customer_id']} {one['currency']}: {one['detail']}" for one in summary.refused[:SHOWN_MAX]]
        fail(f"{len(summary.refused)} wallets were refused and stay as they are, the others are swept", more=shown)
