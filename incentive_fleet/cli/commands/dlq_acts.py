"""`incentives dlq edit`, `replay`, `discard` and `restore`: what operators do to dead letters. No rule lives here."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

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
    actor_option,
    by_whom,
    confirm_many,
    filter_options,
    id_argument,
    ids_argument,
    select,
    yes_option,
)
from incentive_fleet.cli.printing import ask, emit, say, tell
from incentive_fleet.cli.work import working

if TYPE_CHECKING:
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
@actor_option
@click.option("--reason", "--because", "reason", type=TEXT, default="", help="Why, for the audit trail.")
@format_option
def edit(
    number: int,
    sets: tuple[str, ...],
    unsets: tuple[str, ...],
    original: bool,
    actor: str | None,
    reason: str,
    output: str,
) -> None:
    """Correct what a replay sends: by --set and --unset, or in $EDITOR. Only a valid event is saved; the original stays."""
    from incentive_fleet.cli import dead_letters as dead_letter_text
    from incentive_fleet.dead_letters import changes, editing, store

    if original and (sets or unsets):
        raise click.UsageError("--original undoes every edit; it goes with neither --set nor --unset")
    by = by_whom(actor, reason)
    with open_reader(settings(), "dlq edit") as connection:
        letter = store.get_letter(connection, number)
        if original:
            body = letter.body
        elif sets or unsets:
            wanted = [*map(editing.parse_assignment, sets), *map(editing.parse_removal, unsets)]
            body = editing.assign(letter.current_body, wanted)
        else:
            body = _edited_by_hand(letter)
        _refuse_invalid(letter, body)
        after = changes.save_edit(connection, letter, body, by)
    lines = editing.difference(letter.current_body, after.current_body, f"dead letter {number}")
    changed = after.current_body != letter.current_body
    document = {"id": number, "changed": changed, "edited": after.edited_body is not None, "diff": lines}
    if changed:
        emit(document, output, lambda: dead_letter_text.print_difference(lines))
    else:
        emit(document, output, lambda: say("Nothing changed."))


def _edited_by_hand(letter: Letter) -> bytes:
    """What the operator's editor saved; asks again while it is no valid event and somebody is there to answer."""
    from incentive_fleet.dead_letters.editing import editable
    from incentive_fleet.errors import Malformed
    from incentive_fleet.events.codec import decode

    before = text = editable(letter.current_body)
    while True:
        saved = click.edit(text, extension=".json", require_save=False)
        if saved is None or saved == before:
            return letter.current_body
        text = saved
        try:
            decode(text.encode())
        except Malformed as error:
            tell(f"{error.reason}: {error.detail}")
            if sys.stdin.isatty() and ask("Edit it again?", default=True):
                continue
        return text.encode()


def _refuse_invalid(letter: Letter, body: bytes) -> None:
    from incentive_fleet.errors import Malformed
    from incentive_fleet.events.codec import decode

    if body in (letter.body, letter.current_body):
        return
    try:
        decode(body)
    except Malformed as error:
        fail(f"This would be given up again, so nothing was saved: {error.reason}: {error.detail}")


@click.command()
@ids_argument
@filter_options()
@click.option("--all", "everything", is_flag=True, help="Every open dead letter.")
@click.option("--dry-run", is_flag=True, help="Rehearse: print the transfers that it would book, send nothing.")
@click.option("--force", is_flag=True, help="Also what failed twice with this very body.")
@click.option("--rate", type=click.FloatRange(0.01, 100_000), default=None, help="Messages a second at the most.")
@actor_option
@click.option("--because", type=TEXT, default="", help="Why, for the audit trail.")
@yes_option
@format_option
def replay(
    ids: tuple[int, ...],
    everything: bool,
    dry_run: bool,
    force: bool,
    rate: float | None,
    actor: str | None,
    because: str,
    yes: bool,
    output: str,
    **given: Any,
) -> None:
    """Send dead letters to the queues that they came from: by ID, by filter, or --all."""
    from incentive_fleet.dead_letters.replay import replay as run_replay

    by, values = by_whom(actor, because), settings()
    selected, sample = select(values, ids, given, everything, by.at)
    if dry_run:
        _dry_run(selected, output)
        return
    confirm_many("replay", len(selected), sample, yes)
    with open_session(values, "dlq replay") as session, working("Replaying", len(selected)) as progress:
        done = run_replay(
            session,
            values,
            selected,
            by,
            force=force,
            rate_per_s=rate,
            on_progress=lambda count: progress(count, f"{count:,} of {len(selected):,} letters are done with"),
        )
    _finish("replayed", done, output, len(selected) - len(done))


def _dry_run(selected: list[int], output: str) -> None:
    from incentive_fleet.cli import dead_letters as dead_letter_text
    from incentive_fleet.dead_letters import rehearsal, store

    values = settings()
    with open_reader(values, "dlq replay") as connection:
        letters = store.get_letters(connection, selected)
    with open_session(values, "dlq replay") as session:
        effects = rehearsal.rehearse(session, letters)
    total = sum(len(effect.transfers) for effect in effects)
    document = {"effects": [rehearsal.document(effect) for effect in effects], "transfers": total}
    emit(document, output, lambda: dead_letter_text.print_effects(effects))
    if not all(effect.good for effect in effects):
        raise SystemExit(1)


@click.command()
@ids_argument
@filter_options("--reason-code")
@click.option("--all", "everything", is_flag=True, help="Every open dead letter.")
@click.option("--reason", "--because", "reason", type=TEXT, required=True, help="Why, for whoever asks later.")
@actor_option
@yes_option
@format_option
def discard(
    ids: tuple[int, ...], everything: bool, reason: str, actor: str | None, yes: bool, output: str, **given: Any
) -> None:
    """Close dead letters that nobody needs. They are kept, and `restore` opens them again."""
    from incentive_fleet.dead_letters import changes

    by, values = by_whom(actor, reason), settings()
    selected, sample = select(values, ids, given, everything, by.at, "open")
    confirm_many("discard", len(selected), sample, yes)
    with open_reader(values, "dlq discard") as connection:
        done = changes.discard(connection, selected, by)
    _finish("discarded", done, output)


@click.command()
@ids_argument
@filter_options("--reason-code")
@click.option("--all", "everything", is_flag=True, help="Every discarded dead letter.")
@click.option("--reason", "--because", "reason", type=TEXT, default="", help="Why, for the audit trail.")
@actor_option
@yes_option
@format_option
def restore(
    ids: tuple[int, ...], everything: bool, reason: str, actor: str | None, yes: bool, output: str, **given: Any
) -> None:
    """Open discarded dead letters again, and replayed ones (--status replayed) whose replay was lost on the way."""
    from incentive_fleet.dead_letters import changes

    by, values = by_whom(actor, reason), settings()
    selected, sample = select(values, ids, given, everything, by.at, "discarded")
    confirm_many("restore", len(selected), sample, yes)
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
