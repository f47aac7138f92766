"""`incentives dlq conflict`: what to do when the second event was right, rehearsed before it is booked. No rule lives here."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from incentive_fleet.cli.command_line import TEXT, fail, format_option, open_session, settings
from incentive_fleet.cli.commands.dlq_options import attributed, id_argument
from incentive_fleet.cli.printing import ask, emit, say, tell

if TYPE_CHECKING:
    from incentive_fleet.dead_letters.audit import Attribution
    from incentive_fleet.dead_letters.correcting import ConflictReport, RehearsedCorrection

# As in dead_letters.corrections, which --help need not wait for; a test compares them.
CORRECTIONS = ("cancel-and-place", "refund-difference", "new-event-id", "new-grant-key", "grant-difference")


@click.command()
@id_argument
@click.option(
    "--order-id", "new_order_id", type=TEXT, metavar="ORDER", help="The id under which to place the order anew."
)
@click.option("--campaign-id", type=TEXT, metavar="CAMPAIGN", help="The campaign of a grant of the difference.")
@click.option("--book", type=click.Choice(CORRECTIONS), help="Book this correction, and close the letter.")
@click.option("--yes", is_flag=True, help="Do not ask before booking.")
@attributed("--reason", "--because")
@format_option
def conflict(number: int, book: str | None, yes: bool, by: Attribution, output: str, **named: str | None) -> None:
    """What the ledger holds, the difference in money, and each correction, rehearsed; with --book one of them is booked."""
    from incentive_fleet.consumers.admission import admission_of
    from incentive_fleet.dead_letters import correcting, store

    values = settings()
    with open_session(values, "dlq conflict") as session:
        letter = store.get_letter(session.connection, number, whole=False)
        report = correcting.report_conflict(session, letter, admission_of(values), **named)
        booked: list[str] | None = None
        if book is not None:
            correction = _chosen(report, book)
            _confirm(number, correction, yes)
            booked = correcting.book(session, letter, correction, by)
    emit(_document(number, report, book, booked), output, lambda: _print(number, report, book, booked))


def _chosen(report: ConflictReport, name: str) -> RehearsedCorrection:
    for correction in report.corrections:
        if correction.name == name:
            return correction
    why = next((one.why for one in report.impossible if one.name == name), "it is none for this kind of conflict")
    fail(f"{name} cannot be booked: {why}")


def _confirm(number: int, correction: RehearsedCorrection, yes: bool) -> None:
    if yes:
        return
    tell(f"This will close dead letter {number} and book {correction.name}: {correction.sentence}")
    for line in _transfers(correction):
        tell(line)
    if not sys.stdin.isatty():
        fail("Nobody is there to confirm it, so nothing was done: give --yes.", 2)
    if not ask(f"Book {correction.name}?", default=False):
        fail("Nothing was done.")


def _document(number: int, report: ConflictReport, book: str | None, booked: list[str] | None) -> dict[str, Any]:
    return {
        "id": number,
        "applied": asdict(report.applied),
        "difference": report.difference,
        "money": {
            "currency": report.currency,
            "holds": report.holds,
            "would": report.would,
            "difference": {name: report.would.get(name, 0) - held for name, held in report.holds.items()},
        },
        "corrections": [
            {**asdict(one), "events": [json.loads(body) for body in one.events]} for one in report.corrections
        ],
        "impossible": report.impossible,
        "booked": book if booked is not None else None,
        "verdicts": booked or [],
    }


def _print(number: int, report: ConflictReport, book: str | None, booked: list[str] | None) -> None:
    from incentive_fleet.cli.dead_letters import print_difference

    applied = report.applied
    say(
        f"applied: {applied.fact} of order {applied.order_id}, event {applied.event_id} of {applied.source}",
        folded=True,
    )
    print_difference(report.difference)
    for name, held in report.holds.items():
        would = report.would.get(name, 0)
        say(f"{name}: {held} {report.currency} stand, {would} if this event were right ({would - held:+d})")
    for correction in report.corrections:
        say("")
        say((correction.name, "bold"), f": {correction.sentence}", folded=True)
        for line in _transfers(correction):
            say(line)
        if not correction.good:
            say(f"  cannot be booked: {', '.join(correction.verdicts)}", folded=True)
    for impossible in report.impossible:
        say("")
        say((impossible.name, "bold"), f" does not fit: {impossible.why}", folded=True)
    if booked is not None:
        say("")
        say(f"{book} is booked ({', '.join(booked)}), and dead letter {number} is closed.")


def _transfers(correction: RehearsedCorrection) -> list[str]:
    lines = [
        f"  {one['kind']}: {one['amount']} {one['currency']} {one['debit_account']} -> {one['credit_account']}"
        for one in correction.transfers
    ]
    return lines or ["  0 transfers"]
