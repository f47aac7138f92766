"""`incentives dlq edit`, `replay`, `discard` and `restore`: what operators do to dead letters. No rule lives here."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from incentive_fleet.cli.command_line import (
    TEXT,
    fail,
    format_option,
    open_reader,
    open_session,
    settings,
)
from incentive_fleet.cli.commands.dlq_options import (
    Selection,
    attributed,
    confirm_many,
    id_argument,
    selecting,
)
from incentive_fleet.cli.printing import ask, emit, say, tell
from incentive_fleet.cli.work import working

if TYPE_CHECKING:
    from incentive_fleet.consumers.admission import Admission
    from incentive_fleet.dead_letters.audit import Attribution
    from incentive_fleet.dead_letters.changes import Done
    from incentive_fleet.dead_letters.letter import Letter


@click.command()
@id_argument
@click.option(
    "--set",
    "sets",
    type=TEXT,
    multiple=True,
    metavar="PATH=VALUE",
    help="data.currency=GBP; JSON if it parses, else text.",
)
@click.option("--unset", "unsets", type=TEXT, multiple=True, metavar="PATH", help="Take a field out.")
@click.option("--original", is_flag=True, help="Undo every edit.")
@attributed("--reason", "--because")
@format_option
def edit(
    number: int, sets: tuple[str, ...], unsets: tuple[str, ...], original: bool, by: Attribution, output: str
) -> None:
    """Correct what a replay sends: by --set and --unset, or in $EDITOR. Only a valid event is saved; the original stays."""
    from incentive_fleet.cli import dead_letters as dead_letter_text
    from incentive_fleet.consumers.admission import admission_of
    from incentive_fleet.dead_letters import changes, editing, store

    if original and (sets or unsets):
        raise click.UsageError("--original undoes every edit; it goes with neither --set nor --unset")
    values = settings()
    admission = admission_of(values)
    with open_reader(values, "dlq edit") as connection:
        letter = store.get_letter(connection, number)
        if original:
            body = letter.body
        elif sets or unsets:
            wanted = [*map(editing.parse_assignment, sets), *map(editing.parse_removal, unsets)]
            body = editing.assign(letter.current_body, wanted)
        else:
            body = _edited_by_hand(letter, admission)
        _refuse_invalid(letter, body, admission)
        after = changes.save_edit(connection, letter, body, by, admission)
    lines = editing.difference(letter.current_body, after.current_body, f"dead letter {number}")
    changed = after.current_body != letter.current_body
    document = {"id": number, "changed": changed, "edited": after.edited_body is not None, "diff": lines}
    if changed:
        emit(document, output, lambda: dead_letter_text.print_difference(lines))
    else:
        emit(document, output, lambda: say("Nothing changed."))


def _edited_by_hand(letter: Letter, admission: Admission | None) -> bytes:
    """What the operator's editor saved; asks again while it is no valid event and somebody is there to answer."""
    from incentive_fleet.consumers.admission import admitted
    from incentive_fleet.dead_letters.editing import editable
    from incentive_fleet.errors import Malformed

    before = text = editable(letter.current_body)
    while True:
        saved = _saved_by_editor(text)
        if saved is None or saved == before:
            return letter.current_body
        text = saved
        try:
            admitted(text.encode(), letter.source_queue, admission)
        except Malformed as error:
            tell(f"{error.reason}: {error.detail}")
            if sys.stdin.isatty() and ask("Edit it again?", default=True):
                continue
        return text.encode()


def _saved_by_editor(text: str) -> str | None:
    from incentive_fleet.errors import Refused

    try:
        return click.edit(text, extension=".json", require_save=False)
    except UnicodeDecodeError as error:
        raise Refused(
            "not-utf8", f"what the editor saved is no UTF-8 at byte {error.start}; nothing was saved"
        ) from None
    except ValueError as error:  # of shlex, which click has split the command
        raise Refused("no-editor", f"VISUAL or EDITOR is no command: {error}") from None


def _refuse_invalid(letter: Letter, body: bytes, admission: Admission | None) -> None:
    from incentive_fleet.consumers.admission import admitted
    from incentive_fleet.errors import Malformed

    if body in (letter.body, letter.current_body):
        return
    try:
        admitted(body, letter.source_queue, admission)
    except Malformed as error:
        fail(f"This would be given up again, so nothing was saved: {error.reason}: {error.detail}")


@click.command()
@selecting("Every open dead letter.")
@click.option("--dry-run", is_flag=True, help="Rehearse: print the transfers that it would book, send nothing.")
@click.option("--force", is_flag=True, help="Also what failed twice with this very body.")
@click.option("--rate", type=click.FloatRange(0.01, 100_000), default=None, help="Messages a second at the most.")
@attributed("--because")
@format_option
def replay(selection: Selection, dry_run: bool, force: bool, rate: float | None, by: Attribution, output: str) -> None:
    """Send dead letters to the queues that they came from: by ID, by filter, or --all."""
    from incentive_fleet.dead_letters.replay import ReplayRequest
    from incentive_fleet.dead_letters.replay import replay as run_replay

    values = settings()
    selected, sample = selection.letters(values, by.at)
    if dry_run:
        _dry_run(selected, output)
        return
    confirm_many("replay", len(selected), sample, selection.yes)
    with open_session(values, "dlq replay") as session, working("Replaying", len(selected)) as progress:
        done = run_replay(
            session,
            values,
            ReplayRequest(selected, by, force, rate),
            on_progress=lambda count: progress(count, f"{count:,} of {len(selected):,} letters are done with"),
        )
    _finish("replayed", done, output, len(selected) - len(done))


def _dry_run(selected: list[int], output: str) -> None:
    from incentive_fleet.cli import dead_letters as dead_letter_text
    from incentive_fleet.consumers.admission import admission_of
    from incentive_fleet.dead_letters import rehearsal, store

    values = settings()
    with open_reader(values, "dlq replay") as connection:
        letters = store.get_letters(connection, selected)
    with open_session(values, "dlq replay") as session:
        effects = rehearsal.rehearse(session, letters, admission_of(values))
    total = sum(len(effect.transfers) for effect in effects)
    document = {"effects": [rehearsal.document(effect) for effect in effects], "transfers": total}
    emit(document, output, lambda: dead_letter_text.print_effects(effects))
    if not all(effect.good for effect in effects):
        raise SystemExit(1)


@click.command()
@selecting("Every open dead letter.", "--reason-code")
@attributed("--reason", "--because", required=True, help="Why, for whoever asks later.")
@format_option
def discard(selection: Selection, by: Attribution, output: str) -> None:
    """Close dead letters that nobody needs. They are kept, and `restore` opens them again."""
    from incentive_fleet.dead_letters import changes

    values = settings()
    selected, sample = selection.letters(values, by.at, "open")
    confirm_many("discard", len(selected), sample, selection.yes)
    with open_reader(values, "dlq discard") as connection:
        done = changes.discard(connection, selected, by)
    _finish("discarded", done, output)


@click.command()
@selecting("Every discarded dead letter.", "--reason-code")
@attributed("--reason", "--because")
@format_option
def restore(selection: Selection, by: Attribution, output: str) -> None:
    """Open discarded dead letters again, and replayed ones (--status replayed) whose replay was lost on the way."""
    from incentive_fleet.dead_letters import changes

    values = settings()
    selected, sample = selection.letters(values, by.at, "discarded")
    confirm_many("restore", len(selected), sample, selection.yes)
    with open_reader(values, "dlq restore") as connection:
        done = changes.restore(connection, selected, by)
    _finish("restored", done, output)


def _finish(act: str, done: list[Done], output: str, untried: int = 0) -> None:
    """Print what became of each; exit code 1 when anything that was asked for was refused or not got to."""
    from incentive_fleet.cli import dead_letters as dead_letter_text

    refused = [one for one in done if one.refused]
    document = {act: len(done) - len(refused), "refused": len(refused), "untried": untried, "dead_letters": done}
    emit(document, output, lambda: dead_letter_text.print_done(done, act, untried))
    if refused or untried:
        raise SystemExit(1)
