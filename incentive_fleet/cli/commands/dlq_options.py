"""What the `dlq` commands share: filters, selections, and the question before more than one letter is touched."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import wraps
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import click

from incentive_fleet.cli.command_line import MOMENT, TEXT, actor_option, fail, login_name, open_reader, settings
from incentive_fleet.cli.layout import cut_to, screen_width
from incentive_fleet.cli.printing import ask, tell
from incentive_fleet.settings import Settings

if TYPE_CHECKING:
    from psycopg import Connection

    from incentive_fleet.dead_letters.letter import Letter
    from incentive_fleet.dead_letters.store import Filters

Command = TypeVar("Command", bound=Callable[..., Any])

SAMPLE: Final = 5  # letters shown before a question
UNITS_S: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
UNFINISHED: Final = "unfinished"  # open, or claimed by a replay


NUMBER: Final = click.IntRange(1, 2**63 - 1)
ids_argument = click.argument("ids", nargs=-1, type=NUMBER, metavar="ID...")
id_argument = click.argument("number", type=NUMBER, metavar="ID")
limit_option = click.option(
    "--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="Rows at the most."
)


class Age(click.ParamType[timedelta]):
    """A length of time: 90s, 15m, 2h, 3d or 1w."""

    name = "age"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        if isinstance(value, timedelta):
            return value
        match = re.fullmatch(r"(\d{1,6})([smhdw])", str(value))
        if match is None:
            self.fail(f"{value!r} is not an age like 90s, 15m, 2h, 3d or 1w", param, ctx)
        return timedelta(seconds=int(match[1]) * UNITS_S[match[2]])


FILTERS: Final = (
    *("code", "type_", "order", "customer", "queue", "status", "cause", "group", "source", "edited", "replayed", "run"),
    *("older_than", "newer_than", "since", "until", "text"),
)
group_option = click.option("--group", type=NUMBER, metavar="N", help="A group of `dlq groups`, by its number.")


def filter_options(
    *code_names: str, group: Callable[[Callable[..., Any]], Any] = group_option
) -> Callable[[Command], Command]:
    """The filters; `code_names` is what the one for reason codes is called where --reason means something else."""
    options = [
        click.option(
            *(code_names or ("--reason", "--reason-code")),
            "code",
            type=TEXT,
            metavar="CODE",
            help="Reason code, as listed.",
        ),
        click.option("--type", "type_", type=TEXT, metavar="TYPE", help="The event's type."),
        click.option("--order", type=TEXT, metavar="ORDER", help="The order's id."),
        click.option(
            "--customer", type=TEXT, metavar="CUSTOMER", help="The customer's id, also of the order's other events."
        ),
        click.option("--queue", type=TEXT, metavar="QUEUE", help="The source queue or the dead-letter queue."),
        group,
        click.option("--cause", type=TEXT, metavar="CAUSE", help="A group's cause, the whole of it."),
        click.option("--source", type=TEXT, metavar="SOURCE", help="The producer: the event's source."),
        click.option("--older-than", type=Age(), help="Last seen longer ago: 90s, 15m, 2h, 3d, 1w."),
        click.option("--newer-than", type=Age(), help="Last seen less long ago."),
        click.option("--since", type=MOMENT, help="Last seen then or later: 2026-01-31T00:00:00Z."),
        click.option("--until", type=MOMENT, help="Last seen before then."),
        click.option("--edited/--not-edited", default=None, help="Whether a replay sends an edited body."),
        click.option("--replayed/--not-replayed", default=None, help="Whether it was ever replayed."),
        click.option("--run", type=NUMBER, metavar="RUN", help="What a run of `dlq runs` had to do with."),
        click.option(
            "--text", type=TEXT, metavar="TEXT", help="Found in the detail or the body; ASCII case is ignored."
        ),
        click.option(
            "--status",
            type=click.Choice(["open", "replaying", "replayed", "discarded", UNFINISHED, "any"]),
            default=None,
            help="By default what a command is for: open ones, for `restore` discarded ones.",
        ),
    ]

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def filters_of(given: dict[str, Any], now: datetime, default_status: str = UNFINISHED) -> Filters:
    """The filters that the options gave."""
    from incentive_fleet.dead_letters.store import Filters

    status = given["status"] or default_status
    statuses = {UNFINISHED: ("open", "replaying"), "any": None}.get(status, (status,))
    older, newer = given["older_than"], given["newer_than"]
    return Filters(
        reason=given["code"],
        type=given["type_"],
        order=given["order"],
        customer=given["customer"],
        queue=given["queue"],
        cause=given["cause"],
        group=given["group"],
        source=given["source"],
        edited=given["edited"],
        replayed=given["replayed"],
        run=given["run"],
        since=given["since"],
        until=given["until"],
        statuses=statuses,
        seen_before=None if older is None else now - older,
        seen_after=None if newer is None else now - newer,
        text=given["text"],
    )


def refuse_unknown(connection: Connection[Any], wanted: Filters, values: Settings) -> None:
    """End with exit code 2 where a filter names a reason code, queue or type that is nobody's, and say which there are."""
    from incentive_fleet.dead_letters.known import unknown_filters

    words = {"reason": "reason code", "type": "event type", "queue": "queue", "group": "group", "run": "run"}
    for unknown in unknown_filters(connection, wanted, values):
        word = words[unknown.name]
        fail(f"The {word} {unknown.value!r} is not known; known are:", 2, more=[f"  {name}" for name in unknown.known])


def attributed(
    *names: str, required: bool = False, help: str = "Why, for the audit trail.", approvable: bool = False
) -> Callable[[Command], Command]:
    """--actor, the reason under these names, and --needs-approval where the act may wait; the command gets all as `by`."""
    needed: dict[str, Any] = {"required": True} if required else {"default": ""}
    reason_option = click.option(*names, "act_reason", type=TEXT, help=help, **needed)

    def decorate(command: Command) -> Command:
        @wraps(command)
        def run(actor: str | None, act_reason: str, needs_approval: bool = False, **given: Any) -> Any:
            from incentive_fleet.dead_letters.audit import Attribution
            from incentive_fleet.ledger.people import actor_of

            with open_reader(settings(), "dlq") as connection:
                acting = actor_of(connection, actor, login_name())
            return command(by=Attribution(acting, datetime.now(UTC), act_reason, needs_approval), **given)

        approval_option = click.option(
            "--needs-approval", is_flag=True, help="Only write the run down: it waits for another one's `dlq approve`."
        )
        return cast("Command", actor_option(reason_option(approval_option(run) if approvable else run)))

    return decorate


@dataclass(frozen=True, slots=True)
class Selection:
    """Which letters a command is about, as it was told: ids, filters or all; and whether to ask before many."""

    ids: tuple[int, ...]
    everything: bool
    given: dict[str, Any]  # the filters
    yes: bool

    def letters(
        self, values: Settings, now: datetime, default_status: str = UNFINISHED
    ) -> tuple[list[int], list[Letter]]:
        """The ids, and the first few letters. Exit code 2 when it is not said which."""
        from incentive_fleet.dead_letters import store

        filtered = any(self.given[name] is not None for name in FILTERS)
        if bool(self.ids) + filtered + self.everything != 1:
            raise click.UsageError("say which: either IDs, or filters, or --all")
        wanted = filters_of(self.given, now, default_status)
        with open_reader(values, "dlq") as connection:
            refuse_unknown(connection, wanted, values)
            selected = sorted(set(self.ids)) or store.select_ids(connection, wanted)
            return selected, store.get_letters(connection, selected[:SAMPLE], bodies=False)

    def only_id(self) -> int:
        """The one letter that was named. Exit code 2 when filters were given beside it."""
        if self.everything or any(self.given[name] is not None for name in FILTERS):
            raise click.UsageError("say which: either IDs, or filters, or --all")
        return self.ids[0]


def selecting(everything: str, *code_names: str, asks: bool = True) -> Callable[[Command], Command]:
    """IDs, filters, --all (`everything` is its help) and, where it asks, --yes; the command gets them as `selection`."""
    all_option = click.option("--all", "everything", is_flag=True, help=everything)
    yes_option = click.option("--yes", is_flag=True, help="Do not ask before touching more than one.")

    def decorate(command: Command) -> Command:
        @wraps(command)
        def run(ids: tuple[int, ...], everything: bool, yes: bool = True, **given: Any) -> Any:
            filters = {name: given.pop(name) for name in FILTERS}
            return command(selection=Selection(ids, everything, filters, yes), **given)

        asking = yes_option(run) if asks else run
        return cast("Command", ids_argument(filter_options(*code_names)(all_option(asking))))

    return decorate


def confirm_many(verb: str, count: int, sample: Sequence[Letter], yes: bool) -> None:
    """Ask before more than one letter is touched; exit code 2 where nobody can answer, 1 where the answer is no."""
    if count <= 1 or yes:
        return
    tell(f"This will {verb} {count:,} dead letters, such as:")
    for letter in sample:
        told = f"  {letter.id}  {letter.status}  {letter.reason}  {letter.order_id or ''}  {letter.detail}"
        tell(cut_to(told, screen_width()))
    if not sys.stdin.isatty():
        fail("Nobody is there to confirm it, so nothing was done: give --yes.", 2)
    if not ask(f"{verb.capitalize()} {count:,} dead letters?", default=False):
        fail("Nothing was done.")
