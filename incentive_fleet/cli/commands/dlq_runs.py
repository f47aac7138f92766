"""`incentives dlq runs`, `watch`, `stop`, `resume` and `undo`: what was told to be done to letters. No rule lives here."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import click

from incentive_fleet.cli.command_line import fail, format_option, open_reader, settings
from incentive_fleet.cli.commands.dlq_options import NUMBER, attributed, limit_option
from incentive_fleet.cli.printing import emit, say, tell
from incentive_fleet.cli.work import working

if TYPE_CHECKING:
    from psycopg import Connection

    from incentive_fleet.dead_letters.audit import Attribution
    from incentive_fleet.dead_letters.runs import Following
    from incentive_fleet.settings import Settings

WATCH_S: Final = 0.5  # between two looks

run_argument = click.argument("number", type=NUMBER, metavar="RUN")


@dataclass(slots=True)
class BegunRun:
    """The run of this command, once it is written down."""

    run: int = 0

    def begin(self, run_id: int, letters: int | None = None) -> None:
        """Say its number, by which other shells call it; one letter is done before anybody could ask."""
        self.run = run_id
        if letters == 1:
            return
        tell(
            f"Run {run_id}: `incentives dlq runs {run_id}` tells how far it is, `incentives dlq stop {run_id}` stops it."
        )


@contextmanager
def stopped_when_interrupted(values: Settings) -> Iterator[BegunRun]:
    """A signal stops the run that was begun in the block, so that nobody goes on with it unasked."""
    begun = BegunRun()
    try:
        yield begun
    except KeyboardInterrupt:
        from incentive_fleet.dead_letters import runs

        if begun.run:
            with open_reader(values, "dlq stop") as connection:
                runs.stop_run(connection, begun.run, "the command was interrupted")
            tell(f"Run {begun.run} is stopped: `incentives dlq resume {begun.run}` goes on with it.")
        raise


def following(begun: BegunRun, progress: Callable[[int, str], None], total: int | None = None) -> Following:
    """Say the run's number when it begins, and how far it is."""
    from incentive_fleet.dead_letters.runs import Following

    of = "" if total is None else f" of {total:,}"
    return Following(
        lambda run_id: begun.begin(run_id, total), lambda count: progress(count, f"{count:,}{of} letters are done with")
    )


def finish_run(connection: Connection[Any], run_id: int, act: str, output: str) -> None:
    """Print what became of each letter; exit code 1 when any was refused or not got to."""
    from incentive_fleet.cli import dead_letters as dead_letter_text
    from incentive_fleet.dead_letters import bulk_edit, runs

    run, done = runs.get_run(connection, run_id), runs.outcomes(connection, run_id)
    if run.status == runs.WAITING:
        told_to_the_fleet(connection, run_id, output)
        return
    refused = [one for one in done if one.refused]
    untried, acted = run.letters - len(done), len(done) - len(refused)
    document: dict[str, object] = {"run": run_id, act: acted}
    unchanged = 0
    if run.act in bulk_edit.ACTS:
        unchanged = acted - len(bulk_edit.changed_ids(connection, run_id))
        document |= {act: acted - unchanged, "unchanged": unchanged}
    document |= {"refused": len(refused), "untried": untried, "dead_letters": done}
    emit(document, output, lambda: dead_letter_text.print_done(done, act, untried, unchanged))
    if refused or untried:
        raise SystemExit(1)


def told_to_the_fleet(connection: Connection[Any], run_id: int, output: str) -> None:
    """Say that a run was written down for the fleet's processes, and how to follow it."""
    from incentive_fleet.dead_letters import documents, runs

    run = runs.get_run(connection, run_id)
    sentence = f"Run {run_id} of {run.letters:,} letters is written down: `incentives dlq watch {run_id}` follows it."
    if run.status == runs.WAITING:
        sentence = f"Run {run_id} of {run.letters:,} letters waits for another one's `incentives dlq approve {run_id}`."
    emit({"runs": [documents.run_document(run)]}, output, lambda: say(sentence))


@click.command("runs")
@click.argument("number", type=NUMBER, metavar="[RUN]", required=False)
@click.option("--unfinished", is_flag=True, help="Those that are not done.")
@limit_option
@format_option
def list_runs(number: int | None, unfinished: bool, limit: int, output: str) -> None:
    """What was told to be done to letters, the newest first: who, when, how far it is, and whether anybody carries it on."""
    from incentive_fleet.cli import dead_letters as dead_letter_text
    from incentive_fleet.dead_letters import documents, runs

    with open_reader(settings(), "dlq runs") as connection:
        found = (
            [runs.get_run(connection, number)]
            if number is not None
            else runs.list_runs(connection, unfinished=unfinished, limit=limit)
        )
    emit({"runs": [documents.run_document(run) for run in found]}, output, lambda: dead_letter_text.print_runs(found))


@click.command()
@run_argument
@format_option
def watch(number: int, output: str) -> None:
    """Follow a run until it is done or stopped; whoever carries it on is no matter. Interrupting this changes nothing."""
    from incentive_fleet.dead_letters import resuming, runs

    with open_reader(settings(), "dlq watch") as connection:
        run = runs.get_run(connection, number)
        with working("Watching", run.letters) as progress:
            while run.status in (runs.READY, runs.WAITING):
                got_to = run.done + run.refused
                progress(got_to, f"{got_to:,} of {run.letters:,} letters are done with")
                time.sleep(WATCH_S)
                run = runs.get_run(connection, number)
        finish_run(connection, number, resuming.PAST[run.act], output)


@click.command()
@run_argument
@attributed("--because")
@format_option
def stop(number: int, by: Attribution, output: str) -> None:
    """Let nobody go on with a run. What is under way is finished; `resume` goes on with the rest."""
    from incentive_fleet.dead_letters import documents, runs

    with open_reader(settings(), "dlq stop") as connection:
        runs.stop_run(connection, number, f"stopped by {by.actor}", by)
        run = runs.get_run(connection, number)
    emit(
        {"runs": [documents.run_document(run)]},
        output,
        lambda: say(f"Run {number} is stopped: {run.done + run.refused:,} of {run.letters:,} letters are done with."),
    )


@click.command()
@run_argument
@attributed("--because")
@format_option
def resume(number: int, by: Attribution, output: str) -> None:
    """Go on with a run that was stopped or whose command has died, where it stood."""
    from incentive_fleet.dead_letters import resuming, runs
    from incentive_fleet.ledger.people import actor_of

    values = settings()
    with (
        stopped_when_interrupted(values) as begun,
        open_reader(values, "dlq resume") as connection,
    ):
        run = runs.get_run(connection, number)
        if actor_of(connection, None, run.actor) != run.actor:
            fail(f"Run {number} is {run.actor}'s: a person goes on with their own runs alone.")
        run = runs.resume_run(connection, number, by)
        begun.begin(number)
        with working("Resuming", run.letters) as progress:
            resuming.resume(
                connection,
                values,
                run,
                following(begun, progress, run.letters),
            )
        finish_run(connection, number, resuming.PAST[run.act], output)


@click.command()
@run_argument
@attributed("--because")
@format_option
def approve(number: int, by: Attribution, output: str) -> None:
    """Let a run go on that waits for another one's approval. A replay is carried on by the fleet, the rest by `resume`."""
    from incentive_fleet.dead_letters import documents, runs

    with open_reader(settings(), "dlq approve") as connection:
        run = runs.approve_run(connection, number, by)
    sentence = f"Run {number} of {run.actor} is approved by {run.approved_by}: `incentives dlq resume {number}` goes on with it."
    emit({"runs": [documents.run_document(run)]}, output, lambda: say(sentence))


@click.command()
@run_argument
@attributed("--reason", "--because")
@format_option
def undo(number: int, by: Attribution, output: str) -> None:
    """Take back what an edit did to all its letters, as one run. What was edited, sent or closed since stays as it is."""
    from incentive_fleet.dead_letters import bulk_edit

    values = settings()
    with (
        stopped_when_interrupted(values) as begun,
        open_reader(values, "dlq undo") as connection,
        working("Undoing") as progress,
    ):
        run_id = bulk_edit.undo(
            connection,
            number,
            by,
            following(begun, progress),
        )
        finish_run(connection, run_id, "undone", output)
