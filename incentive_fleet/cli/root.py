"""The command line `incentives`. Commands are imported when they are called, so that --help answers at once."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import click

from incentive_fleet.cli import interrupts, streams
from incentive_fleet.cli.command_line import Group
from incentive_fleet.cli.work import said

if TYPE_CHECKING:
    from incentive_fleet.errors import TransientError

# name -> (module, attribute, one line of help). The help stands here so that listing needs no import.
COMMANDS: dict[str, tuple[str, str, str]] = {
    "anomalies": ("anomalies", "anomalies", "Orders that a person should look at; resolve them with a reason."),
    "answer-quotes": ("answer_quotes", "answer_quotes", "Answer checkouts that ask what a basket would get."),
    "audiences": ("audiences", "audiences", "Lists of customers that campaigns are for, or are not for."),
    "backfill": ("backfill", "backfill_command", "Apply events from a file, without a broker."),
    "campaigns": ("campaigns", "campaigns", "Load and list campaign terms."),
    "codes": ("codes", "codes", "Codes of campaigns with a pool: load, generate, revoke, export, show."),
    "consume": ("consume", "consume", "Run the fleet: consume events and apply their incentives."),
    "db": ("db", "db", "The database's schema."),
    "demo": ("demo", "demo", "See all of it work on embedded parts, in under a minute."),
    "dlq": ("dlq", "dlq", "Dead letters: groups, rehearse, edit, replay, discard, undo."),
    "doctor": ("doctor", "doctor", "What database and brokers are set to, and what each setting risks."),
    "down": ("parts", "down_command", "Stop the parts that `up` started."),
    "expire": ("expire", "expire_command", "Move expired credit to breakage."),
    "grant": ("grants", "grant", "Hand out credit, or take it back."),
    "grants": ("grants", "grants", "Hand out credit in bulk."),
    "ledger": ("ledger", "ledger", "Balances, verification and export."),
    "logins": ("logins", "logins", "Logins of the console: list those that hold, end a person's."),
    "order": ("statements", "order", "Everything about one order: facts, decision, transfers."),
    "orders": ("orders", "orders", "What a person does for an order: finalize it as it was placed."),
    "outcomes": ("outcomes", "outcomes", "What was told of orders and credit, as it was published."),
    "publish": ("publish", "publish", "Publish events from a file to SNS or RabbitMQ."),
    "quote": ("quote", "quote_command", "What orders would get that were placed next, without effect."),
    "relay": ("relay", "relay", "Publish outcomes from the outbox."),
    "remind": ("remind", "remind_command", "Announce credit that expires soon."),
    "schemas": ("schemas", "schemas", "JSON Schemas and the AsyncAPI document of the events."),
    "serve": ("serve", "serve", "The console and the GraphQL API."),
    "status": (
        "status",
        "status",
        "One screen: queues, processes, dead letters, what waits, the last verify and expire.",
    ),
    "tokens": ("tokens", "tokens", "Tokens of the console's API: make, list, revoke."),
    "topology": ("topology", "topology", "Topics, queues and exchanges: apply them, check them for drift."),
    "up": ("parts", "up_command", "Start embedded Postgres, RabbitMQ and SNS/SQS, and keep them running."),
    "waiting": ("waiting", "waiting", "Facts that wait for their order, or for its final basket."),
    "wallet": ("statements", "wallet", "A customer's statement: balance, lots, transfers."),
    "wallets": ("wallets", "wallets", "Put customers' credit on hold, or let it go."),
}


class Cut(click.ClickException):
    """An interruption on its way past click, which would print a blank line for it."""

    def __init__(self, number: int) -> None:
        super().__init__("interrupted")
        self.number = number


class LazyGroup(Group):
    """Knows its commands by name and imports one only to run it."""

    def invoke(self, ctx: click.Context) -> Any:
        """As click does, but for interruptions."""
        try:
            return super().invoke(ctx)
        except interrupts.Interrupted as interrupted:
            raise Cut(interrupted.number) from None

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        command = getattr(importlib.import_module(f"incentive_fleet.cli.commands.{module}"), attribute)
        assert isinstance(command, click.Command)
        return command

    def summary_of(self, ctx: click.Context, name: str) -> str:
        return COMMANDS[name][2]


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="incentive-fleet")
def cli() -> None:
    """Apply, reverse and reissue credits and coupons, exactly once in effect.

    Settings come from the environment: INCENTIVES_DATABASE_URL, INCENTIVES_RABBITMQ_URL and what boto3 reads. Exit codes:
    0 done, 1 refused or found faulty, 2 wrong use, 130 or 143 interrupted by SIGINT or SIGTERM.
    """


def run() -> int:
    """Run the command line; its exit code. Errors become one sentence on standard error."""
    from incentive_fleet import errors
    from incentive_fleet.cli import printing

    printing.prepare_streams()
    interrupts.tell_by(said)
    try:
        code = cli.main(standalone_mode=False)
    except click.exceptions.Abort:  # a question was not answered
        code = interrupts.interrupted(interrupts.signalled()) if interrupts.signalled() else 130
    except Cut as cut:
        code = interrupts.interrupted(cut.number)
    except click.ClickException as error:
        printing.tell_failure(error)
        code = error.exit_code
    except errors.TransientError as error:
        # A driver's words may have several lines; they are one sentence here.
        printing.tell_error(" ".join(line.strip() for line in str(error).split("\n")), _whereabouts(error))
        code = 2 if isinstance(error, errors.SchemaUnfit) else 1
    except errors.FleetError as error:
        printing.tell_error(str(error))
        code = 2 if isinstance(error, errors.SettingsError) else 1
    except streams.Lost:
        code = 0
    except SystemExit as ended:  # a command whose result is its exit code
        code = ended.code
    return _told(code if isinstance(code, int) else 0)


def _told(code: int) -> int:
    """The exit code, once it is said where standard output did not take all; a reader that has had enough is no fault."""
    from incentive_fleet.cli import printing

    error = streams.lost()
    if error is None or isinstance(error, BrokenPipeError):
        return code
    printing.tell_error(f"standard output cannot be written: {error.strerror}. What was printed is not complete.")
    return code or 1


def _whereabouts(error: TransientError) -> list[str]:
    """The settings by which the part was to be reached, and where they lead: hosts and ports, never a login."""
    from incentive_fleet.addresses import described
    from incentive_fleet.brokers.registry import BROKERS
    from incentive_fleet.cli.command_line import settings
    from incentive_fleet.errors import BrokerUnavailable, DatabaseUnavailable
    from incentive_fleet.settings import variable

    values = settings()
    addresses: dict[str, str | None] = {}
    if isinstance(error, DatabaseUnavailable):
        addresses = {
            "INCENTIVES_DATABASE_URL": values.database_url,
            "INCENTIVES_ADMIN_DATABASE_URL": values.admin_database_url,
        }
    elif isinstance(error, BrokerUnavailable):
        addresses = {variable(name): getattr(values, name) for broker in BROKERS for name in broker.addresses}
    told = [f"{setting} leads to {described(address)}." for setting, address in addresses.items() if address]
    if isinstance(error, BrokerUnavailable):
        told += [f"{broker.variable} is {where}." for broker in BROKERS if (where := broker.whereabouts(values))]
    return told
