"""What commands share: the --format option, exit codes, and the wiring of settings to parts.

With --format json, standard output is one JSON document and nothing else; logs and progress go to standard error.
"""

from __future__ import annotations

import getpass
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from incentive_fleet.cli import interrupts
from incentive_fleet.cli.printing import Failed

if TYPE_CHECKING:
    import psycopg

    from incentive_fleet.ledger.session import Session
    from incentive_fleet.settings import Settings

Command = TypeVar("Command", bound=Callable[..., Any])

format_option = click.option(
    "--format",
    "output",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="json: one document on standard output, nothing else.",
)
lines_option = click.option(
    "--format",
    "_output",
    type=click.Choice(["text", "json"]),
    default="json",
    expose_value=False,
    help="Either way one JSON document a line.",
)
existing_file = click.Path(exists=True, dir_okay=False, readable=True, path_type=Path)


def until_idle_option(seconds: float, end: str) -> Callable[[Command], Command]:
    """--until-idle of what else runs until it is told to stop; `end` says when it ends, {} in it how long it waits."""
    waits = f"SECONDS ({seconds:g} if none are given)"
    return click.option(
        "--until-idle",
        type=click.FloatRange(0.1, 86_400),
        is_flag=False,
        flag_value=seconds,
        metavar="SECONDS",
        help=end.format(waits),
    )


def settings() -> Settings:
    """The settings of this process, whose drain bounds its end from now on. Raises SettingsError."""
    from incentive_fleet.settings import Settings

    values = Settings.from_environment(os.environ)
    interrupts.stop_of_process(values.drain_s)
    return values


def database_url(values: Settings) -> str:
    """The application's database, for a command that goes on while it is away: a mistake in its addresses is no such thing,
    and is one sentence before anything begins. Raises SettingsError."""
    from incentive_fleet.ledger.address import parameters_of
    from incentive_fleet.settings import variable

    for name in ("database_url", "admin_database_url", "read_database_url"):
        if url := getattr(values, name):
            parameters_of(url, variable(name))
    return values.need_database_url()


def login_name() -> str:
    """Who runs this command, for audit trails: the login's name, or its number where it has none, as in a container."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid-{os.getuid()}"


@contextmanager
def open_session(values: Settings, name: str) -> Iterator[Session]:
    """A ledger session for one command, closed at its end; whatever Postgres refuses in it is one sentence.

    Raises SettingsError, DatabaseUnavailable, DatabaseContention or DatabaseUnfit.
    """
    from incentive_fleet.ledger.connection import mapped_errors
    from incentive_fleet.ledger.session import Session

    session = Session(values.need_database_url(), application_name=f"incentives {name}")
    try:
        with mapped_errors(blameless=True):
            yield session
    finally:
        session.close()


@contextmanager
def open_reader(values: Settings, name: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection under the application's role for a command that reads. Raises as open_session."""
    from incentive_fleet.ledger.connection import connect, mapped_errors

    url = values.need_database_url()
    with mapped_errors(blameless=True), connect(url, application_name=f"incentives {name}") as connection:
        yield connection


def fail(message: str, code: int = 1, *, more: Sequence[str] = ()) -> NoReturn:
    """End the command with a sentence on standard error; 1 refused or found faulty, 2 wrong use."""
    raise Failed(message, code, more)


class Group(click.Group):
    """Lists its commands each with its whole first sentence; click would cut it and drop its full stop."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, self.summary_of(ctx, name)) for name in self.list_commands(ctx)])

    def summary_of(self, ctx: click.Context, name: str) -> str:
        """One sentence about a command."""
        command = self.get_command(ctx, name)
        text = " ".join((command.help or "").split()) if command is not None else ""
        sentence = re.match(r".+?[.](?= |$)", text)
        return sentence[0] if sentence else text


class Utf8Text(click.ParamType[str]):
    """A text that Postgres can be asked for: what the shell gave as bytes that are not UTF-8 is refused by name."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(value)
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            self.fail(f"{text!r} is not UTF-8", param, ctx)
        return text


class Moment(click.ParamType[datetime]):
    """An RFC 3339 time with an offset, in the years that events may be of."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, datetime):
            return value
        from incentive_fleet.errors import Malformed
        from incentive_fleet.events.times import parse_time

        try:
            return parse_time(str(value))
        except Malformed as error:
            self.fail(f"{value!r} is not a time like 2026-01-31T00:00:00Z: {error.detail}", param, ctx)


MOMENT = Moment()
TEXT = Utf8Text()
actor_option = click.option(
    "--actor",
    type=TEXT,
    envvar="INCENTIVES_ACTOR",
    help="Who does it, as a service's login alone may say; else the operating system's user, or the person whose login it is.",
)
