"""`incentives dlq replay`, `redirect`, `discard` and `restore`: what operators do to dead letters. No rule lives here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

from incentive_fleet.brokers import registry
from incentive_fleet.cli.command_line import TEXT, format_option, open_reader, open_session, settings
from incentive_fleet.cli.commands.dlq_options import Selection, attributed, confirm_many, selecting
from incentive_fleet.cli.commands.dlq_runs import (
    finish_run,
    following,
    stopped_when_interrupted,
    told_to_the_fleet,
)
from incentive_fleet.cli.printing import emit
from incentive_fleet.cli.work import working

if TYPE_CHECKING:
    from incentive_fleet.dead_letters.audit import Attribution
    from incentive_fleet.dead_letters.claims import Target
    from incentive_fleet.settings import Settings


@dataclass(frozen=True, slots=True)
class _Sending:
    """How letters are to be sent."""

    force: bool
    rate: float | None
    detach: bool


def _sending(command: Callable[..., Any]) -> Callable[..., Any]:
    """--force, --rate and --detach; the command gets them as `how`."""

    @wraps(command)
    def run(force: bool, rate: float | None, detach: bool, **given: Any) -> Any:
        return command(how=_Sending(force, rate, detach), **given)

    for option in (
        click.option("--detach", is_flag=True, help="Leave it to the fleet's processes, and do not wait."),
        click.option(
            "--rate", type=click.FloatRange(0.01, 100_000), default=None, help="Messages a second at the most."
        ),
        click.option("--force", is_flag=True, help="Also what failed twice with this very body."),
    ):
        run = option(run)
    return run


@click.command()
@selecting("Every open dead letter.")
@click.option("--dry-run", is_flag=True, help="Rehearse: print the transfers that it would book, send nothing.")
@_sending
@attributed("--because", approvable=True)
@format_option
def replay(
    selection: Selection,
    dry_run: bool,
    how: _Sending,
    by: Attribution,
    output: str,
) -> None:
    """Send dead letters to the queues that they came from: by ID, by filter, or --all."""
    selected, sample = selection.letters(settings(), by.at)
    if dry_run:
        _dry_run(selected, output)
        return
    confirm_many("replay", len(selected), sample, selection.yes)
    _send(selected, by, how, None, "replayed", output)


@click.command()
@selecting("Every open dead letter.")
@click.option("--to-queue", type=TEXT, required=True, metavar="QUEUE", help="The queue to send them to.")
@click.option(
    "--to",
    type=click.Choice([*registry.sources()]),
    default=None,
    help="The broker of that queue; by default the one that all of them came from.",
)
@_sending
@attributed("--because", approvable=True)
@format_option
def redirect(
    selection: Selection,
    to_queue: str,
    to: str | None,
    how: _Sending,
    by: Attribution,
    output: str,
) -> None:
    """Send dead letters to another queue than they came from, of either broker."""
    from incentive_fleet.dead_letters.claims import Target
    from incentive_fleet.dead_letters.store import transports_of

    values = settings()
    selected, sample = selection.letters(values, by.at)
    if to is None:
        with open_reader(values, "dlq redirect") as connection:
            transports = transports_of(connection, selected)
        if len(transports) > 1:
            raise click.UsageError(
                f"they came from {' and '.join(transports)}: say with --to which broker has {to_queue!r}"
            )
        to = next(iter(transports or registry.sources()))
    confirm_many(f"send to {to_queue!r} of {to}", len(selected), sample, selection.yes)
    _send(selected, by, how, Target(to, to_queue), "redirected", output)


def _send(
    selected: list[int],
    by: Attribution,
    how: _Sending,
    to: Target | None,
    act: str,
    output: str,
) -> None:
    from incentive_fleet.dead_letters.approving import with_approval
    from incentive_fleet.dead_letters.replay import ReplayRequest, begin_replay
    from incentive_fleet.dead_letters.replay import replay as run_replay

    values = settings()
    by = with_approval(by, values, len(selected), lambda: _booked_at_most(values, selected))
    request = ReplayRequest(selected, by, how.force, how.rate, to)
    if how.detach or by.needs_approval:
        with open_reader(values, "dlq replay") as connection:
            told_to_the_fleet(connection, begin_replay(connection, request), output)
        return
    with (
        stopped_when_interrupted(values) as begun,
        open_session(values, "dlq replay") as session,
        working("Sending", len(selected)) as progress,
    ):
        run_replay(session, values, request, following(begun, progress, len(selected)))
    with open_reader(values, "dlq replay") as connection:
        finish_run(connection, begun.run, act, output)


def _booked_at_most(values: Settings, selected: list[int]) -> int | None:
    from incentive_fleet.dead_letters.approving import booked_at_most

    with open_session(values, "dlq replay") as session, working("Rehearsing"):
        return booked_at_most(session, values, selected)


def _dry_run(selected: list[int], output: str) -> None:
    from incentive_fleet.cli import dead_letters as dead_letter_text
    from incentive_fleet.consumers.admission import admission_of
    from incentive_fleet.dead_letters import rehearsal

    values = settings()
    with open_reader(values, "dlq replay") as connection:
        letters = rehearsal.letters_to_rehearse(connection, selected)
    with open_session(values, "dlq replay") as session, working("Rehearsing"):
        effects = rehearsal.rehearse(session, letters, admission_of(values))
    total = sum(len(effect.transfers) for effect in effects)
    document = {"effects": [rehearsal.document(effect) for effect in effects], "transfers": total}
    emit(document, output, lambda: dead_letter_text.print_effects(effects))
    if not all(effect.good for effect in effects):
        raise SystemExit(1)


@click.command()
@selecting("Every open dead letter.", "--reason-code")
@attributed("--reason", "--because", required=True, help="Why, for whoever asks later.", approvable=True)
@format_option
def discard(selection: Selection, by: Attribution, output: str) -> None:
    """Close dead letters that nobody needs. They are kept, and `restore` opens them again."""
    _move("discard", "discarded", selection, "open", by, output)


@click.command()
@selecting("Every discarded dead letter.", "--reason-code")
@attributed("--reason", "--because", approvable=True)
@format_option
def restore(selection: Selection, by: Attribution, output: str) -> None:
    """Open discarded dead letters again, and replayed ones (--status replayed) whose replay was lost on the way."""
    _move("restore", "restored", selection, "discarded", by, output)


def _move(verb: str, past: str, selection: Selection, status: str, by: Attribution, output: str) -> None:
    from incentive_fleet.dead_letters import changes
    from incentive_fleet.dead_letters.approving import with_approval

    values = settings()
    selected, sample = selection.letters(values, by.at, status)
    confirm_many(verb, len(selected), sample, selection.yes)
    by = with_approval(by, values, len(selected))
    act = {"discard": changes.discard, "restore": changes.restore}[verb]
    with (
        stopped_when_interrupted(values) as begun,
        open_reader(values, f"dlq {verb}") as connection,
        working(f"To {verb}", len(selected)) as progress,
    ):
        act(connection, selected, by, following(begun, progress, len(selected)))
        finish_run(connection, begun.run, past, output)
