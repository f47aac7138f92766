"""`incentives ledger balances`, `verify` and `export`."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING

import click

from incentive_fleet.cli.command_line import MOMENT, Group, format_option, open_reader, settings
from incentive_fleet.cli.layout import Column
from incentive_fleet.cli.printing import emit, say, say_raw, say_table
from incentive_fleet.cli.work import working

if TYPE_CHECKING:
    from incentive_fleet.ledger.verify import VerifyReport


@click.group(cls=Group)
def ledger() -> None:
    """Balances, verification and export."""


@ledger.command()
@click.option("--as-of", type=MOMENT, help="Only what lies before this time; all, if not given.")
@click.option(
    "--by",
    type=click.Choice(["booked", "happened"]),
    default="booked",
    show_default=True,
    help="Which of a transfer's two times counts.",
)
@format_option
def balances(as_of: datetime | None, by: str, output: str) -> None:
    """Every account that is not zero, positive on its normal side, in minor units."""
    from incentive_fleet.ledger.balances import read_balances

    with open_reader(settings(), "ledger balances") as connection, working("Adding up"):
        found = read_balances(connection, as_of=as_of, by="happened" if by == "happened" else "booked")
    emit(found, output, lambda: _show_balances(found))


def _show_balances(found: dict[str, int]) -> None:
    rows = ((*key.rpartition("|")[::2], f"{balance:,}") for key, balance in found.items())
    say_table(("account", "currency", Column("balance", right=True)), rows)
    if not found:
        say("Every account is zero.")


@ledger.command()
@click.option(
    "--full/--incremental",
    "full",
    default=None,
    help="Read all of it, or what is new, a thirtieth of the rest and the current balances; by size, if not given.",
)
@click.option(
    "--sample", type=click.IntRange(1, 1_000), default=10, show_default=True, help="Bad rows shown of a check."
)
@format_option
def verify(full: bool | None, sample: int, output: str) -> None:
    """Check the ledger by SQL, in one snapshot; name the first bad rows; exit 1 if there are any.

    What was found sound is sealed, and the run is written down for `status` and alerts.
    """
    from incentive_fleet.ledger.nightly import Mode, verify_and_record

    mode: Mode = "auto" if full is None else "full" if full else "incremental"
    another = partial(open_reader, settings(), "ledger verify")
    with working("Verifying") as progress:
        report = verify_and_record(
            another, mode, sample, lambda done, steps: progress(done, f"{done} of {steps} steps have run")
        )
    emit(_report(report), output, lambda: _show(report))
    if not report.sound:
        raise SystemExit(1)


def _report(report: VerifyReport) -> dict[str, object]:
    return {
        "sound": report.sound,
        "verified_at": report.verified_at,
        "transfers": report.transfers,
        "full": report.full,
        "turn": report.turn,
        "readings": report.readings,
        "point": report.point,
        "held": report.held,
        "recorded": report.recorded,
        "checks": report.checks,
    }


def _show(report: VerifyReport) -> None:
    for check in report.checks:
        mark = ("FAULT", "red") if check.faults else ("ok   ", "green")
        say(mark, f" {check.name}: {check.description}", folded=True)
        if check.unsaid:
            say(f"      not said: {check.unsaid}", folded=True)
        for row in check.first:
            say("      " + ", ".join(f"{name} {value}" for name, value in row.items()))
    faults = sum(check.faults for check in report.checks)
    say(f"{report.transfers:,} transfers, {len(report.checks)} checks: {faults or 'no'} faults.")
    for sentence in _how_far(report):
        say(sentence, folded=True)


def _how_far(report: VerifyReport) -> list[str]:
    """What an incremental run has read; what the point is when it is not at the end."""
    told = []
    if not report.full:
        new, current, turn = report.readings
        told.append(
            f"Read: {new.transfers:,} new transfers ({new.seconds:.1f} s), the current balances ({current.seconds:.1f} s),"
            f" {turn.transfers:,} older ones, whose turn it is ({turn.seconds:.1f} s). `--full` reads all."
        )
    if report.held:
        told.append(
            "A transaction that was writing did not end: what is new is verified and stays unsealed for the next run."
        )
    if not report.recorded:
        told.append("This is a standby: nothing is sealed, and the run is not written down.")
    return told


@ledger.command()
@click.option(
    "--format",
    "form",
    type=click.Choice(["hledger"]),
    default="hledger",
    show_default=True,
    help="The journal's program.",
)
def export(form: str) -> None:
    """Print the ledger as a journal that `hledger check` accepts and whose balances equal ours."""
    from incentive_fleet.ledger.export import export_hledger

    with open_reader(settings(), f"ledger export {form}") as connection, working("Exporting", prints=True) as progress:
        written = 0
        for text in export_hledger(connection):
            say_raw(text)
            written += len(text)
            progress(written, f"{written:,} characters are written")
