"""`incentives dlq edit`: one letter by hand or by fields, or many by fields as one run. No rule lives here."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from incentive_fleet.cli.command_line import TEXT, existing_file, fail, format_option, open_reader, settings
from incentive_fleet.cli.commands.dlq_options import Selection, attributed, confirm_many, selecting
from incentive_fleet.cli.commands.dlq_runs import finish_run, following, stopped_when_interrupted
from incentive_fleet.cli.printing import ask, emit, say, tell
from incentive_fleet.cli.work import working

if TYPE_CHECKING:
    from incentive_fleet.consumers.admission import Admission
    from incentive_fleet.dead_letters.audit import Attribution
    from incentive_fleet.dead_letters.edit_plan import EditPlan
    from incentive_fleet.dead_letters.letter import Letter


@click.command()
@selecting("Every open dead letter.", "--reason-code")
@click.option(
    *("--set", "sets"),
    type=TEXT,
    multiple=True,
    metavar="PATH=VALUE",
    help="data.currency=GBP; JSON if it parses, else text.",
)
@click.option("--append", "appends", type=TEXT, multiple=True, metavar="PATH=VALUE", help="Add to the end of a list.")
@click.option("--unset", "unsets", type=TEXT, multiple=True, metavar="PATH", help="Take a field out.")
@click.option(
    *("--from-file", "file"),
    type=existing_file,
    metavar="FILE",
    help="CSV of values by order: order_id (or id), then a column for each path.",
)
@click.option("--original", is_flag=True, help="Undo every edit of one letter.")
@click.option("--dry-run", is_flag=True, help="One diff, how many would pass, and what the rest would fail with.")
@attributed("--reason", "--because", approvable=True)
@format_option
def edit(selection: Selection, original: bool, dry_run: bool, by: Attribution, output: str, **fields: Any) -> None:
    """Correct what a replay sends: one letter by fields or in $EDITOR, many by fields. Only a valid event is saved."""
    from incentive_fleet.dead_letters.approving import with_approval

    plan = _plan(**fields)
    given = bool(plan.sets or plan.appends or plan.unsets or plan.rows)
    if original and (given or dry_run):
        raise click.UsageError("--original undoes every edit; it goes with no change of fields and no --dry-run")
    one = len(selection.ids) == 1 and not plan.rows and not dry_run
    if not given and not one:
        raise click.UsageError("say what to change: --set, --append, --unset or --from-file")
    if one:
        number = selection.only_id()
        _edit_one(number, plan if given else None, original, by, output)
        return
    values = settings()
    selected, sample = selection.letters(values, by.at, "open")
    if dry_run:
        _preview(selected, plan, output)
        return
    confirm_many("edit", len(selected), sample, selection.yes)
    _edit_many(selected, plan, with_approval(by, values, len(selected)), output)


def _plan(sets: tuple[str, ...], appends: tuple[str, ...], unsets: tuple[str, ...], file: Path | None) -> EditPlan:
    from incentive_fleet.dead_letters.edit_plan import EditPlan, read_values

    key, rows = ("", dict[str, Mapping[str, str]]()) if file is None else read_values(file)
    return EditPlan(sets, appends, unsets, key, rows)


def _preview(selected: list[int], plan: EditPlan, output: str) -> None:
    from incentive_fleet.cli import dead_letters as dead_letter_text
    from incentive_fleet.consumers.admission import admission_of
    from incentive_fleet.dead_letters import bulk_edit

    values = settings()
    with open_reader(values, "dlq edit") as connection, working("Rehearsing"):
        preview = bulk_edit.preview_edit(connection, selected, plan, admission_of(values))
    refused = preview.refusals.total()
    refusals = [
        {"reason": reason, "cause": cause, "count": count, "example": preview.examples[reason, cause]}
        for (reason, cause), count in preview.refusals.most_common(bulk_edit.REFUSALS_MAX)
    ]
    document = {
        "passed": preview.passed,
        "unchanged": preview.unchanged,
        "refused": refused,
        "refusals": refusals,
        "diff": preview.difference,
    }
    emit(document, output, lambda: dead_letter_text.print_preview(preview, refusals))
    if refused:
        raise SystemExit(1)


def _edit_many(selected: list[int], plan: EditPlan, by: Attribution, output: str) -> None:
    from incentive_fleet.consumers.admission import admission_of
    from incentive_fleet.dead_letters import bulk_edit

    values = settings()
    with (
        stopped_when_interrupted(values) as begun,
        open_reader(values, "dlq edit") as connection,
        working("Editing", len(selected)) as progress,
    ):
        run_id = bulk_edit.edit_many(
            connection,
            selected,
            plan,
            by,
            admission_of(values),
            following(begun, progress, len(selected)),
        )
        finish_run(connection, run_id, "edited", output)


def _edit_one(number: int, plan: EditPlan | None, original: bool, by: Attribution, output: str) -> None:
    from incentive_fleet.cli import dead_letters as dead_letter_text
    from incentive_fleet.consumers.admission import admission_of
    from incentive_fleet.dead_letters import changes, editing, store

    values = settings()
    admission = admission_of(values)
    with open_reader(values, "dlq edit") as connection:
        letter = store.get_letter(connection, number)
        if original:
            body = letter.body
        elif plan is not None:
            body = editing.assign(letter.current_body, plan.assignments())
        else:
            body = _edited_by_hand(letter, admission)
        _refuse_invalid(letter, body, admission)
        after = changes.save_edit(connection, letter, body, by, admission)
    lines = editing.difference(letter.current_body, after.current_body, f"dead letter {number}")
    changed = after.current_body != letter.current_body
    document = {"id": number, "changed": changed, "edited": after.edited, "diff": lines}
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
