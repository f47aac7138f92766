"""`incentives dlq`: dead letters from pager to empty queue. Every rule lives in dead_letters."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import Any

import click

from incentive_fleet.brokers import registry
from incentive_fleet.cli import interrupts
from incentive_fleet.cli.command_line import (
    MOMENT,
    TEXT,
    Group,
    database_url,
    fail,
    format_option,
    open_reader,
    open_session,
    settings,
    until_idle_option,
)
from incentive_fleet.cli.commands.dlq_acts import discard, redirect, replay, restore
from incentive_fleet.cli.commands.dlq_conflict import conflict
from incentive_fleet.cli.commands.dlq_edit import edit
from incentive_fleet.cli.commands.dlq_files import export, import_command, purge
from incentive_fleet.cli.commands.dlq_options import (
    NUMBER,
    filter_options,
    filters_of,
    id_argument,
    limit_option,
    refuse_unknown,
)
from incentive_fleet.cli.commands.dlq_runs import approve, list_runs, resume, stop, undo, watch
from incentive_fleet.cli.printing import emit, say
from incentive_fleet.cli.work import showing

# As in dead_letters.audit, which --help need not wait for; a test compares them.
ACTS = (
    *("collected", "imported", "returned", "reopened", "edited", "undone", "claimed", "sent", "not-sent"),
    *("discarded", "restored", "corrected", "purged", "approved", "stopped", "resumed"),
)


@click.group(cls=Group)
def dlq() -> None:
    """Dead letters: groups, rehearse, edit, replay, discard, undo.

    `consume` collects them from the brokers while it runs; `dlq collect` does so alone.
    """


@dlq.command()
@click.option(
    "--from",
    "source",
    type=click.Choice([*registry.sources(), "all"]),
    default="all",
    show_default=True,
    help="Which broker.",
)
@until_idle_option(5, "End after {} without a dead letter, when the queues hold none.")
@format_option
def collect(source: str, until_idle: float | None, output: str) -> None:
    """Bring dead letters from the brokers into the database, and carry replays on, until told to stop.

    'all' means all brokers that are configured.
    """
    from incentive_fleet.dead_letters.carrying import carrying
    from incentive_fleet.dead_letters.collector import run_collector
    from incentive_fleet.logs import start_logging
    from incentive_fleet.pausing import Pauses
    from incentive_fleet.telemetry.watching import OF_COLLECTOR, Watched, watching

    values = settings()
    brokers = registry.configured(values) if source == "all" else [registry.by_source(source)]
    if not brokers:
        fail(registry.none_configured("there is no broker to collect from"), 2)
    database_url(values)
    start_logging(values.log_level, values.log_format)
    counts: Counter[str] = Counter({"new": 0, "returned": 0, "again": 0, "same": 0})
    pauses, stop = Pauses(), interrupts.serve(values.drain_s)
    seen = Watched("collector", lambda: pauses.paused, pauses.tally, OF_COLLECTOR)
    with watching(values, brokers, stop, seen), carrying(values, stop), showing("collecting", lambda: _line(counts)):
        run_collector(brokers, values, stop, until_idle, counts, pauses)
    emit({"collected": counts}, output, lambda: say(_line(counts)))


def _line(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in counts.items())


@dlq.command()
@filter_options()
@limit_option
@format_option
def groups(limit: int, output: str, **given: Any) -> None:
    """What is the matter: letters that are alike, the most first, each group with the number that --group takes."""
    _list_groups(given, limit, output)


class _AGroupOrGroups(click.ParamType[int]):
    """A group's number; nothing at all, which click passes as 0, asks for the groups."""

    name = "group"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        return 0 if value == 0 else int(NUMBER.convert(value, param, ctx))


@dlq.command("list")
@filter_options(
    group=click.option(
        *("--group", "group"),
        type=_AGroupOrGroups(),
        is_flag=False,
        flag_value=0,
        metavar="[N]",
        help="A group of `dlq groups`, by its number; without one, the groups.",
    )
)
@limit_option
@format_option
def list_command(limit: int, output: str, **given: Any) -> None:
    """Dead letters, the ones seen last first. Without --status, those that are open or being replayed."""
    from incentive_fleet.cli import dead_letters as dead_letter_text
    from incentive_fleet.dead_letters import documents, store

    if given["group"] == 0:
        _list_groups({**given, "group": None}, limit, output)
        return
    now, values = datetime.now(UTC), settings()
    wanted = filters_of(given, now)
    with open_reader(values, "dlq list") as connection:
        refuse_unknown(connection, wanted, values)
        total = store.count_letters(connection, wanted)
        letters = store.list_letters(connection, wanted, limit=limit)
    document = {"total": total, "dead_letters": [documents.letter_summary(letter, now) for letter in letters]}
    emit(document, output, lambda: dead_letter_text.print_list(letters, total, now))


def _list_groups(given: dict[str, Any], limit: int, output: str) -> None:
    from incentive_fleet.cli import dead_letters as dead_letter_text
    from incentive_fleet.dead_letters import documents, store

    now, values = datetime.now(UTC), settings()
    wanted = filters_of(given, now)
    with open_reader(values, "dlq groups") as connection:
        refuse_unknown(connection, wanted, values)
        total = store.count_letters(connection, wanted)
        found = store.group_letters(connection, wanted, limit=limit)
    document = {"total": total, "groups": [documents.group_document(one) for one in found]}
    emit(document, output, lambda: dead_letter_text.print_groups(found, now))


@dlq.command()
@id_argument
@click.option("--effect", is_flag=True, help="Also rehearse a replay: the transfers that it would book.")
@format_option
def show(number: int, effect: bool, output: str) -> None:
    """One dead letter: body, error, history; with --effect what a replay would do."""
    from incentive_fleet.cli import dead_letters as dead_letter_text
    from incentive_fleet.consumers.admission import admission_of
    from incentive_fleet.dead_letters import audit, documents, rehearsal, store

    now, values = datetime.now(UTC), settings()
    with open_reader(values, "dlq show") as connection:
        letter = store.get_letter(connection, number, whole=False)
        history = audit.list_entries(connection, number)
        later = store.later_ids(connection, number)
    rehearsed = None
    if effect:
        with open_session(values, "dlq show") as session:
            rehearsed = rehearsal.rehearse(session, [letter], admission_of(values))[0]
    document = documents.letter_document(
        letter, now, history=history, later=later, effect=None if rehearsed is None else rehearsal.document(rehearsed)
    )
    emit(
        document,
        output,
        lambda: dead_letter_text.print_letter(letter, now, history=history, later=later, effect=rehearsed),
    )


@dlq.command()
@click.argument("number", type=NUMBER, metavar="[ID]", required=False)
@click.option("--since", type=MOMENT, help="Acts of then or later: 2026-01-31T00:00:00Z.")
@click.option("--until", type=MOMENT, help="Acts of before then.")
@click.option("--actor", type=TEXT, help="Acts of this person.")
@click.option("--act", type=click.Choice(ACTS), metavar="ACT", help="Acts of this kind, such as edited or sent.")
@click.option("--run", type=NUMBER, metavar="RUN", help="Acts of this run.")
@limit_option
@format_option
def history(number: int | None, limit: int, output: str, **given: Any) -> None:
    """The audit trail of one dead letter or of all: who did what, when, why, before and after."""
    from incentive_fleet.cli import dead_letters as dead_letter_text
    from incentive_fleet.dead_letters import audit, store

    with open_reader(settings(), "dlq history") as connection:
        rows = audit.list_entries(connection, number, limit=limit, wanted=audit.AuditFilters(**given))
        if number is not None and not rows:
            store.get_letter(connection, number, whole=False)
    emit({"acts": rows}, output, lambda: dead_letter_text.print_history(rows))


for _command in (
    export,
    import_command,
    purge,
    edit,
    replay,
    redirect,
    conflict,
    discard,
    restore,
    list_runs,
    watch,
    stop,
    resume,
    undo,
    approve,
):
    dlq.add_command(_command)
