"""`incentives dlq export`, `import` and `purge`: letters that leave, come, or go for good. No rule lives here."""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from incentive_fleet.cli.command_line import existing_file, fail, format_option, lines_option, open_reader, settings
from incentive_fleet.cli.commands.dlq_options import Age, Selection, attributed, selecting
from incentive_fleet.cli.printing import ask, emit, say, say_raw
from incentive_fleet.cli.work import working

if TYPE_CHECKING:
    from incentive_fleet.dead_letters.audit import Attribution


@click.command()
@selecting("Every open dead letter.", asks=False)
@lines_option
def export(selection: Selection) -> None:
    """Print dead letters whole, bodies and headers included, one JSON object a line."""
    from datetime import UTC, datetime

    from incentive_fleet.dead_letters.exchange import export_lines

    values = settings()
    selected, _ = selection.letters(values, datetime.now(UTC))
    with open_reader(values, "dlq export") as connection, working("Exporting", len(selected), prints=True) as progress:
        for number, line in enumerate(export_lines(connection, selected), 1):
            say_raw(line)
            progress(number, f"{number:,} of {len(selected):,} letters are printed")


@click.command("import")
@click.argument("file", type=existing_file)
@attributed("--reason", "--because")
@format_option
def import_command(file: Path, by: Attribution, output: str) -> None:
    """Keep the dead letters of a file that `export` printed, open. What is known is left as it is."""
    from incentive_fleet.consumers.admission import admission_of
    from incentive_fleet.dead_letters.exchange import import_file

    values = settings()
    with open_reader(values, "dlq import") as connection, working("Importing") as progress:
        counts = import_file(
            connection, file, by, admission_of(values), lambda done: progress(done, f"{done:,} letters are done with")
        )
    emit(dict(counts), output, lambda: say(f"{counts['imported']:,} imported, {counts['known']:,} known"))


@click.command()
@click.option("--closed", is_flag=True, help="Those replayed or discarded: others are never deleted. Needed.")
@click.option("--older-than", type=Age(), required=True, help="Closed so long ago, and left alone since: 90d.")
@click.option("--dry-run", is_flag=True, help="Only count them.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@attributed("--reason", "--because")
@format_option
def purge(closed: bool, older_than: timedelta, dry_run: bool, yes: bool, by: Attribution, output: str) -> None:
    """Delete closed dead letters for good, bodies and edits included. The trail of what was done stays."""
    from incentive_fleet.dead_letters import purging

    if not closed:
        raise click.UsageError("closed letters alone are deleted: say --closed")
    before = by.at - older_than
    with open_reader(settings(), "dlq purge") as connection:
        count = purging.count_closed(connection, before)
        if dry_run:
            emit({"purged": 0, "would": count}, output, lambda: say(f"{count:,} would be deleted"))
            return
        if count and not yes:
            if not sys.stdin.isatty():
                fail("Nobody is there to confirm it, so nothing was done: give --yes.", 2)
            if not ask(f"Delete {count:,} dead letters for good?", default=False):
                fail("Nothing was done.")
        with working("Purging", count) as progress:
            purged = purging.purge(
                connection, before, by, on_progress=lambda done: progress(done, f"{done:,} of {count:,} are deleted")
            )
    emit({"purged": purged, "would": count}, output, lambda: say(f"{purged:,} deleted"))
