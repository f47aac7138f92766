"""`incentives demo`."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import click

from incentive_fleet.cli import printing
from incentive_fleet.cli.command_line import format_option
from incentive_fleet.cli.layout import Column
from incentive_fleet.cli.printing import emit, say, say_table
from incentive_fleet.literal import literal

if TYPE_CHECKING:
    from incentive_fleet.embedded.demo import Story


@click.command()
@click.option(
    "--orders", type=click.IntRange(20, 5_000), default=300, show_default=True, help="Orders of the made-up shop."
)
@click.option("--seed", type=int, default=1, show_default=True, help="Another shop for another number.")
@format_option
def demo(orders: int, seed: int, output: str) -> None:
    """See all of it work on embedded parts, in under a minute. Leaves nothing running."""
    from rich.console import Console
    from rich.text import Text

    from incentive_fleet.embedded import running
    from incentive_fleet.embedded.demo import play, settings_of

    started = time.perf_counter()
    errors = Console(stderr=True)
    with errors.status("starting Postgres, RabbitMQ, SNS and SQS") as status:
        said: list[str] = []

        def tell(sentence: str) -> None:
            status.update(Text(literal(sentence)))
            head = sentence.split(":", maxsplit=1)[0]
            if not sys.stderr.isatty() and head not in said:
                said.append(head)
                printing.tell(f"{time.perf_counter() - started:5.1f} s  {head}")

        with running(tell=tell) as parts:
            with settings_of(parts) as settings:
                story = play(parts, settings, orders, seed, tell)
            tell("stopping the parts")
    seconds = time.perf_counter() - started
    emit(_document(story, seconds), output, lambda: _show(story, seconds))
    if not (story.verified.sound and story.equal_to_calm_run):
        raise SystemExit(1)


def _document(story: Story, seconds: float) -> dict[str, object]:
    return {
        "events": story.events,
        "published": story.published,
        "counts": story.counts,
        "outcomes": story.outcomes.published,
        "dead_letters": [
            {"reason": letter.reason, "detail": letter.detail, "queue": letter.source_queue}
            for letter in story.dead_letters
        ],
        "statement": story.statement,
        "order": story.order,
        "sound": story.verified.sound,
        "transfers": story.verified.transfers,
        "accounts": story.accounts,
        "equal_to_calm_run": story.equal_to_calm_run,
        "seconds": round(seconds, 1),
    }


def _show(story: Story, seconds: float) -> None:
    from incentive_fleet.cli.commands.statements import show_placed_and_picked, show_wallet

    ways = ", ".join(f"{count} through {name}" for name, count in story.published.items())
    say((f"{story.events} events", "bold"), f", published as {ways}: repeated, out of order, poison among them")
    for name, count in story.counts.items():
        say(f"  {count:>6} {name}")
    outcomes = ", ".join(f"{count} to {name}" for name, count in story.outcomes.published.items())
    say(f"  outcomes published: {outcomes}")
    say("")
    say(("Dead letters", "bold"), " (incentives dlq list)")
    rows = ((letter.reason, letter.source_queue, letter.detail) for letter in story.dead_letters)
    say_table(("reason", "queue", Column("detail", prose=True)), rows)
    say("")
    say(("One customer's statement", "bold"), " (incentives wallet)")
    show_wallet(story.statement)
    say(("One order as it was placed and as it was picked", "bold"), f" (incentives order {story.order.order_id})")
    show_placed_and_picked(story.order)
    say("")
    faults = sum(check.faults for check in story.verified.checks)
    transfers, checks = story.verified.transfers, len(story.verified.checks)
    say(
        ("Ledger", "bold"),
        f" (incentives ledger verify): {transfers:,} transfers, {checks} checks, {faults or 'no'} faults",
    )
    equal = "equal" if story.equal_to_calm_run else ("DO NOT equal", "red")
    say(f"All {story.accounts:,} balances ", equal, " those of a calm run of the same events, each once, in order.")
    say(f"{seconds:.1f} s; nothing is left running.")
