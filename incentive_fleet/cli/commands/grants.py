"""`incentives grants load FILE`, `incentives grant --key ...` and `incentives grant reverse KEY`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from incentive_fleet.cli.command_line import (
    MOMENT,
    TEXT,
    Group,
    existing_file,
    fail,
    format_option,
    login_name,
    open_session,
    settings,
)
from incentive_fleet.cli.printing import emit, say
from incentive_fleet.cli.work import working
from incentive_fleet.errors import Refused

if TYPE_CHECKING:
    from incentive_fleet.ledger.grant_file import Row

BATCH = 1_000  # grants in one transaction
SHOWN_MAX = 20  # refusals named on a terminal; JSON has them all

at_option = click.option("--at", type=MOMENT, help="When it happened; now, if not given.")


@click.group(cls=Group)
def grants() -> None:
    """Hand out credit in bulk."""


@grants.command()
@click.argument("file", type=existing_file)
@at_option
@format_option
def load(file: Path, at: datetime | None, output: str) -> None:
    """Grant every row of FILE.csv[.gz]. A refused row is named, the rest load, exit 1. Safe to repeat.

    Columns: key, customer_id, currency, amount (minor units), campaign_id, expires_at (empty: never).
    """
    from incentive_fleet.ledger.grant_file import read_grants
    from incentive_fleet.ledger.grants import grant as hand_out

    now = at or datetime.now(UTC)
    counts: Counter[str] = Counter()
    refusals: list[dict[str, object]] = []
    with open_session(settings(), "grants load") as session, working("Granting") as progress:
        for batch in _batches(read_grants(file)):
            valid = [row.grant for row in batch if not isinstance(row.grant, Refused)]
            results = iter(hand_out(session, valid, now, login_name()) if valid else [])
            for row in batch:
                result = row.grant if isinstance(row.grant, Refused) else next(results)
                if isinstance(result, Refused):
                    refusals.append({"line": row.line, "reason": result.reason, "detail": result.detail})
                else:
                    counts[result.value] += 1
            progress(0, f"{sum(counts.values()):,} rows are done with")
    document = {"granted": counts["granted"], "already_granted": counts["already-granted"], "refused": refusals}

    emit(
        document,
        output,
        lambda: say(
            f"{counts['granted']} granted, {counts['already-granted']} were granted before, {len(refusals)} refused."
        ),
    )
    if refusals:
        more = [f"and {len(refusals) - SHOWN_MAX} more"] if len(refusals) > SHOWN_MAX else []
        shown = [f"line {one['line']}: {one['reason']}: {one['detail']}" for one in refusals[:SHOWN_MAX]]
        fail(f"{file}: {len(refusals)} rows were refused, the others are loaded", more=[*shown, *more])


def _batches(rows: Iterator[Row]) -> Iterator[list[Row]]:
    batch: list[Row] = []
    for row in rows:
        batch.append(row)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


@click.group(cls=Group, invoke_without_command=True)
@click.option("--key", type=TEXT, help="Idempotency key: the same key and grant again has no effect.")
@click.option("--customer-id", type=TEXT, help="Who gets the credit.")
@click.option("--currency", type=TEXT, help="ISO 4217 code.")
@click.option("--amount", type=TEXT, help="Minor units.")
@click.option("--campaign-id", type=TEXT, help="A campaign of kind grant.")
@click.option("--expires-at", type=TEXT, default="", help="RFC 3339 time; never, if not given.")
@at_option
@format_option
@click.pass_context
def grant(ctx: click.Context, /, at: datetime | None, output: str, **texts: str | None) -> None:
    """Hand out credit to one customer, or `reverse` a grant."""
    if ctx.invoked_subcommand is not None:
        return
    from incentive_fleet.ledger.grant_file import grant_of
    from incentive_fleet.ledger.grants import grant as hand_out

    for name, text in texts.items():
        if text is None:
            raise click.UsageError(f"--{name.replace('_', '-')} is needed")
    one = grant_of(**{name: text or "" for name, text in texts.items()})
    with open_session(settings(), "grant") as session:
        result = hand_out(session, [one], at or datetime.now(UTC), login_name())[0]
    if isinstance(result, Refused):
        raise result
    emit({"key": one.key, "result": result.value}, output, lambda: say(f"{one.key}: {result.value}"))


@grant.command()
@click.argument("key", type=TEXT)
@click.option("--reason", type=TEXT, required=True, help="Why; it is kept with the grant.")
@at_option
@format_option
def reverse(key: str, reason: str, at: datetime | None, output: str) -> None:
    """Take the grant KEY back: what is left of it returns to the campaign. Safe to repeat."""
    from incentive_fleet.ledger.grants import reverse_grant

    if not reason.strip():
        raise click.UsageError(f"--reason is {reason!r}: it must say something")
    with open_session(settings(), "grant reverse") as session:
        result = reverse_grant(session, key, reason, at or datetime.now(UTC), login_name())
    again = " It had been taken back before." if result.again else ""
    emit(
        result,
        output,
        lambda: say(f"{key}: {result.returned} returned, {result.spent} were spent already.{again}"),
    )
