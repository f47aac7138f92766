"""`incentives codes load`, `generate`, `revoke`, `export` and `show`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from incentive_fleet.cli import streams
from incentive_fleet.cli.command_line import (
    TEXT,
    Group,
    existing_file,
    fail,
    format_option,
    open_reader,
    settings,
)
from incentive_fleet.cli.printing import emit, say, say_json_line, say_table
from incentive_fleet.cli.work import working

SHOWN_MAX = 20  # lines of a refused file that are named on a terminal

reason_option = click.option("--reason", type=TEXT, required=True, help="Why; it is kept.")
batch_option = click.option(
    "--batch", type=TEXT, required=True, help="The batch's key: the same key is the same batch."
)


@click.group(cls=Group)
def codes() -> None:
    """Codes of campaigns with a pool."""


@codes.command()
@click.argument("file", type=existing_file)
@format_option
def load(file: Path, output: str) -> None:
    """Add the codes of FILE.csv[.gz] to their campaigns' pools, all or nothing. Safe to repeat.

    Columns: campaign_id, code, and if wanted customer_id (whom it is bound to) and expires_at.
    """
    from incentive_fleet.ledger.code_file import read_codes
    from incentive_fleet.ledger.codes import CodesRefused, load_codes

    try:
        with open_reader(settings(), "codes load") as connection, working("Loading"):
            added, known = load_codes(connection, read_codes(file))
    except CodesRefused as refused:
        fail(f"{file}: nothing was loaded", more=refused.problems[:SHOWN_MAX])
    emit({"added": added, "known": known}, output, lambda: say(f"{added:,} codes added, {known:,} were there."))


@codes.command()
@click.argument("campaign", type=TEXT)
@batch_option
@click.option("--count", type=click.IntRange(1, 10_000_000), required=True, help="How many codes the batch is to have.")
@format_option
def generate(campaign: str, batch: str, count: int, output: str) -> None:
    """Make up codes for CAMPAIGN's pool until the batch has as many. Resumable, and safe to repeat."""
    from incentive_fleet.ledger.codes import generate_codes

    with open_reader(settings(), "codes generate") as connection, working("Generating", count) as progress:
        added = generate_codes(
            connection, campaign, batch, count, lambda done: progress(done, f"{done:,} codes are there")
        )
    document = {"campaign_id": campaign, "batch": batch, "codes": count, "added": added}
    emit(document, output, lambda: say(f"Batch {batch} has {count:,} codes, {added:,} of them new."))


@codes.command()
@click.argument("file", type=existing_file)
@reason_option
@format_option
def revoke(file: Path, reason: str, output: str) -> None:
    """Revoke the codes of FILE.csv[.gz] for ever, all or nothing; uses that stand stay. Safe to repeat. Column: code."""
    from incentive_fleet.ledger.code_file import read_revoked
    from incentive_fleet.ledger.codes import CodesRefused, revoke_codes

    try:
        with open_reader(settings(), "codes revoke") as connection, working("Revoking"):
            revoked, before = revoke_codes(connection, read_revoked(file), reason)
    except CodesRefused as refused:
        fail(f"{file}: nothing was revoked", more=refused.problems[:SHOWN_MAX])
    emit(
        {"revoked": revoked, "revoked_before": before},
        output,
        lambda: say(f"{revoked:,} codes revoked, {before:,} were revoked before."),
    )


@codes.command()
@click.argument("campaign", type=TEXT)
@batch_option
@format_option
def export(campaign: str, batch: str, output: str) -> None:
    """Print the codes of a batch of CAMPAIGN, one a line; as JSON one text a line, for there may be millions."""
    from incentive_fleet.ledger.codes import export_codes

    show = say_json_line if output == "json" else say
    with open_reader(settings(), "codes export") as connection, working("Exporting", prints=True) as progress:
        for number, code in enumerate(export_codes(connection, campaign, batch), 1):
            streams.end_if_lost()
            show(code)
            progress(number, f"{number:,} codes are printed")


@codes.command()
@click.argument("code", type=TEXT)
@format_option
def show(code: str, output: str) -> None:
    """What became of CODE: whom it is for, until when, and on which order it stands."""
    from incentive_fleet.ledger.codes import show_code

    with open_reader(settings(), "codes show") as connection:
        found = show_code(connection, code)
    if found is None:
        fail(f"code is {code!r}: no pool has it")
    emit(found, output, lambda: _show(found))


def _show(found: dict[str, Any]) -> None:
    say_table(("code", "what is known"), ((name, value) for name, value in found.items() if value is not None))
