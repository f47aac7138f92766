"""`incentives dlq`: dead letters from pager to empty queue. Every rule lives in operators/dead_letters."""

from __future__ import annotations

import getpass
import signal
import sys
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from incentive_fleet.operators.command_line import (
    emit,
    fail,
    format_option,
    open_reader,
    open_session,
    progress_bar,
    settings,
)
from incentive_fleet.operators.commands.dlq_options import (
    confirm_many,
    filter_options,
    filters_of,
    select,
)

if TYPE_CHECKING:
    from incentive_fleet.consumers.worker import Source
    from incentive_fleet.operators.dead_letters.acts import By
    from incentive_fleet.operators.dead_letters.changes import Done
    from incentive_fleet.operators.dead_letters.letter import Letter

actor_option = click.option(
    "--actor",
    envvar="INCENTIVES_ACTOR",
    default=None,
    help="Who acts, for the audit trail; by default the login's name.",
)
yes_option = click.option("--yes", is_flag=True, help="Do not ask before touching more than one.")
ids_argument = click.argument("ids", nargs=-1, type=click.IntRange(1, 2**63 - 1), metavar="ID...")
id_argument = click.argument("number", type=click.IntRange(1, 2**63 - 1), metavar="ID")
limit_option = click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True)


def _by(actor: str | None, reason: str = "") -> By:
    from incentive_fleet.operators.dead_letters.acts import By

    return By(actor if actor is not None else getpass.getuser(), datetime.now(UTC), reason)


@click.group()
def dlq() -> None:
    """Dead letters: list, rehearse, edit, replay, discard.

    `consume` collects them from the brokers while it runs; `dlq collect` does so alone.
    """


@dlq.command()
@click.option("--from", "source", type=click.Choice(["sqs", "rabbitmq", "all"]), default="all", show_default=True)
@click.option(
    "--until-idle",
    type=click.FloatRange(0.1, 86_400),
    is_flag=False,
    flag_value=5.0,
    metavar="SECONDS",
    help="End after SECONDS (5 if none are given) without a dead letter, when the queues hold none.",
)
@format_option
def collect(source: str, until_idle: float | None, output: str) -> None:
    """Bring dead letters from the brokers into the database, until told to stop. 'all' means all that are configured."""
    from incentive_fleet.logs import log_json
    from incentive_fleet.operators.dead_letters.collector import run_collector

    values = settings()
    configured: dict[Source, bool] = {"sqs": bool(values.aws_region), "rabbitmq": bool(values.rabbitmq_url)}
    sources = [name for name, there in configured.items() if source == name or (source == "all" and there)]
    if not sources:
        fail("Neither AWS_REGION nor INCENTIVES_RABBITMQ_URL is set: there is no broker to collect from.", 2)
    values.need_database_url()
    log_json()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    counts = {"new": 0, "returned": 0, "again": 0, "same": 0} | run_collector(sources, values, stop, until_idle)
    emit({"collected": counts}, output, lambda console: console.print(", ".join(f"{n} {k}" for k, n in counts.items())))


@dlq.command("list")
@filter_options()
@click.option("--group", is_flag=True, help="One line a cause, with counts.")
@limit_option
@format_option
def list_command(group: bool, limit: int, output: str, **given: Any) -> None:
    """Dead letters, the ones seen last first. Without --status, those that are open or being replayed."""
    from incentive_fleet.operators.dead_letters import documents, printing, store

    now = datetime.now(UTC)
    wanted = filters_of(given, now)
    with open_reader(settings(), "dlq list") as connection:
        total = store.count_letters(connection, wanted)
        if group:
            groups = store.group_letters(connection, wanted, limit=limit)
            document: dict[str, Any] = {"total": total, "groups": groups}
            emit(document, output, lambda console: printing.print_groups(console, groups, now))
            return
        letters = store.list_letters(connection, wanted, limit=limit)
    document = {"total": total, "dead_letters": [documents.letter_summary(letter, now) for letter in letters]}
    emit(document, output, lambda console: printing.print_list(console, letters, total, now))


@dlq.command()
@id_argument
@click.option("--effect", is_flag=True, help="Also rehearse a replay: the transfers that it would book.")
@format_option
def show(number: int, effect: bool, output: str) -> None:
    """One dead letter: body, error, history; with --effect what a replay would do."""
    from incentive_fleet.operators.dead_letters import acts, documents, printing, rehearsal, store

    now, values = datetime.now(UTC), settings()
    with open_reader(values, "dlq show") as connection:
        letter = store.get_letter(connection, number)
        history = acts.list_acts(connection, number)
        later = store.later_ids(connection, number)
    rehearsed = None
    if effect:
        with open_session(values, "dlq show") as session:
            rehearsed = rehearsal.rehearse(session, [letter])[0]
    document = documents.letter_document(
        letter, now, history=history, later=later, effect=None if rehearsed is None else rehearsal.document(rehearsed)
    )
    emit(
        document,
        output,
        lambda console: printing.print_letter(console, letter, now, history=history, later=later, effect=rehearsed),
    )


@dlq.command()
@id_argument
@click.option(
    "--set", "sets", multiple=True, metavar="PATH=VALUE", help="data.currency=GBP; JSON if it parses, else text."
)
@click.option("--unset", "unsets", multiple=True, metavar="PATH", help="Take a field out.")
@click.option("--original", is_flag=True, help="Undo every edit.")
@actor_option
@click.option("--reason", "--because", "reason", default="", help="Why, for the audit trail.")
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
    from incentive_fleet.operators.dead_letters import changes, editing, printing, store

    if original and (sets or unsets):
        raise click.UsageError("--original undoes every edit; it goes with neither --set nor --unset")
    by = _by(actor, reason)
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
        emit(document, output, lambda console: printing.print_difference(console, lines))
    else:
        emit(document, output, lambda console: console.print("Nothing changed."))


def _edited_by_hand(letter: Letter) -> bytes:
    """What the operator's editor saved; asks again while it is no valid event and somebody is there to answer."""
    from incentive_fleet.errors import Malformed
    from incentive_fleet.events.codec import decode
    from incentive_fleet.operators.dead_letters.editing import editable

    before = text = editable(letter.current_body)
    while True:
        saved = click.edit(text, extension=".json", require_save=False)
        if saved is None or saved == before:
            return letter.current_body
        text = saved
        try:
            decode(text.encode())
        except Malformed as error:
            click.echo(f"{error.reason}: {error.detail}", err=True)
            if sys.stdin.isatty() and click.confirm("Edit it again?", default=True, err=True):
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


@dlq.command()
@ids_argument
@filter_options()
@click.option("--all", "everything", is_flag=True, help="Every open dead letter.")
@click.option("--dry-run", is_flag=True, help="Rehearse: print the transfers that it would book, send nothing.")
@click.option("--force", is_flag=True, help="Also what failed twice with this very body.")
@click.option("--rate", type=click.FloatRange(0.01, 100_000), default=None, help="Messages a second at the most.")
@actor_option
@click.option("--because", default="", help="Why, for the audit trail.")
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
    from incentive_fleet.operators.dead_letters.replay import replay as run_replay

    by, values = _by(actor, because), settings()
    selected, sample = select(values, ids, given, everything, by.at)
    if dry_run:
        _dry_run(selected, output)
        return
    confirm_many("replay", len(selected), sample, yes)
    with open_session(values, "dlq replay") as session, progress_bar("replaying", len(selected)) as progress:
        done = run_replay(
            session,
            values,
            selected,
            by,
            force=force,
            rate_per_s=rate,
            on_progress=lambda count: progress(count, f"{count:,} of {len(selected):,}"),
        )
    _finish("replayed", done, output, len(selected) - len(done))


def _dry_run(selected: list[int], output: str) -> None:
    from incentive_fleet.operators.dead_letters import printing, rehearsal, store

    values = settings()
    with open_reader(values, "dlq replay") as connection:
        letters = store.get_letters(connection, selected)
    with open_session(values, "dlq replay") as session:
        effects = rehearsal.rehearse(session, letters)
    total = sum(len(effect.transfers) for effect in effects)
    document = {"effects": [rehearsal.document(effect) for effect in effects], "transfers": total}
    emit(document, output, lambda console: printing.print_effects(console, effects))
    if not all(effect.good for effect in effects):
        raise SystemExit(1)


@dlq.command()
@ids_argument
@filter_options("--reason-code")
@click.option("--all", "everything", is_flag=True, help="Every open dead letter.")
@click.option("--reason", "--because", "reason", required=True, help="Why, for whoever asks later.")
@actor_option
@yes_option
@format_option
def discard(
    ids: tuple[int, ...], everything: bool, reason: str, actor: str | None, yes: bool, output: str, **given: Any
) -> None:
    """Close dead letters that nobody needs. They are kept, and `restore` opens them again."""
    from incentive_fleet.operators.dead_letters import changes

    by, values = _by(actor, reason), settings()
    selected, sample = select(values, ids, given, everything, by.at, "open")
    confirm_many("discard", len(selected), sample, yes)
    with open_reader(values, "dlq discard") as connection:
        done = changes.discard(connection, selected, by)
    _finish("discarded", done, output)


@dlq.command()
@ids_argument
@filter_options("--reason-code")
@click.option("--all", "everything", is_flag=True, help="Every discarded dead letter.")
@click.option("--reason", "--because", "reason", default="", help="Why, for the audit trail.")
@actor_option
@yes_option
@format_option
def restore(
    ids: tuple[int, ...], everything: bool, reason: str, actor: str | None, yes: bool, output: str, **given: Any
) -> None:
    """Open discarded dead letters again, and replayed ones (--status replayed) whose replay was lost on the way."""
    from incentive_fleet.operators.dead_letters import changes

    by, values = _by(actor, reason), settings()
    selected, sample = select(values, ids, given, everything, by.at, "discarded")
    confirm_many("restore", len(selected), sample, yes)
    with open_reader(values, "dlq restore") as connection:
        done = changes.restore(connection, selected, by)
    _finish("restored", done, output)


@dlq.command()
@click.argument("number", type=click.IntRange(1, 2**63 - 1), metavar="[ID]", required=False)
@limit_option
@format_option
def history(number: int | None, limit: int, output: str) -> None:
    """The audit trail of one dead letter or of all: who did what, when, why, before and after."""
    from incentive_fleet.operators.dead_letters import acts, printing, store

    with open_reader(settings(), "dlq history") as connection:
        if number is not None:
            store.get_letter(connection, number)
        rows = acts.list_acts(connection, number, limit=limit)
    emit({"acts": rows}, output, lambda console: printing.print_history(console, rows))


def _finish(act: str, done: list[Done], output: str, untried: int = 0) -> None:
    """Print what became of each; exit code 1 when anything that was asked for was refused or not got to."""
    from incentive_fleet.operators.dead_letters import printing

    refused = [one for one in done if one.refused]
    document = {act: len(done) - len(refused), "refused": len(refused), "untried": untried, "dead_letters": done}
    emit(document, output, lambda console: printing.print_done(console, done, act, untried))
    if refused or untried:
        raise SystemExit(1)
